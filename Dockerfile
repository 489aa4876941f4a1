# One image for Airflow's processes, Spark's master and worker, and the command line: docs/deployment.md.
# All that pip installs is pinned by hash; no stage is given a secret.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /opt/naviglio
COPY requirements.txt locks/whole.txt
COPY docker/requirements.txt locks/deployment.txt
# uv and setuptools come by their hashes too, as in the Makefile.
RUN awk '/^[a-z]/{on=/^(uv|setuptools)==/} on' locks/whole.txt > locks/first.txt \
 && awk '/^[a-z]/{on=/^setuptools==/} on' locks/whole.txt > locks/builder.txt \
 && python3 -m venv /opt/first \
 && /opt/first/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r locks/first.txt \
 && python3 -m venv --without-pip venv \
 && /opt/first/bin/uv pip install --no-cache --python venv/bin/python --require-hashes -r locks/builder.txt \
 && /opt/first/bin/uv pip install --no-cache --python venv/bin/python --require-hashes --no-build-isolation \
    --compile-bytecode -r locks/deployment.txt
COPY pyproject.toml README.md LICENSE ./
COPY include/naviglio/__init__.py include/naviglio/
RUN /opt/first/bin/uv pip install --no-cache --python venv/bin/python --no-deps --no-build-isolation -e .
# A mirror of Maven Central for the two jars of Spark's Delta connector; their checksums are pinned in the code.
ARG NAVIGLIO_MAVEN=""
COPY include include
RUN NAVIGLIO_SPARK_JARS=/opt/naviglio/jars NAVIGLIO_MAVEN="${NAVIGLIO_MAVEN}" venv/bin/naviglio spark jars

FROM ${PYTHON}
# Java for Spark; the driver of SQL Server loads the two libraries.
# Debian keeps only the newest version of a package: a pinned one would soon be gone (DL3008).
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgssapi-krb5-2 libltdl7 openjdk-17-jre-headless \
 && rm -rf /var/lib/apt/lists/*
# The account of who starts the stack, so that secrets can stay 0600 on the host.
ARG UID=1000
ARG GID=1000
RUN groupadd --non-unique --gid "${GID}" naviglio \
 && useradd --non-unique --uid "${UID}" --gid "${GID}" --create-home --shell /usr/sbin/nologin naviglio \
 && install -d -m 0700 -o "${UID}" -g "${GID}" /var/lib/naviglio /var/lib/airflow /var/lib/airflow/logs
WORKDIR /opt/naviglio
COPY --from=build /opt/naviglio/venv venv
RUN ln -s /opt/naviglio/venv/lib/python3.*/site-packages/pyspark spark
COPY --from=build /opt/naviglio/jars jars
COPY pyproject.toml README.md LICENSE ./
COPY dags dags
COPY plugins plugins
COPY docker/healthy.py docker/healthy.py
COPY include include
RUN venv/bin/python -m compileall -q dags include plugins
ENV PATH=/opt/naviglio/venv/bin:/opt/naviglio/spark/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SPARK_HOME=/opt/naviglio/spark \
    NAVIGLIO_HOME=/var/lib/naviglio \
    NAVIGLIO_PIPELINES=/opt/naviglio/include/pipelines \
    NAVIGLIO_SPARK_JARS=/opt/naviglio/jars \
    AIRFLOW_HOME=/var/lib/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/naviglio/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/naviglio/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
# Code and libraries belong to root: who runs here can't change them.
USER ${UID}:${GID}
CMD ["naviglio", "--help"]
