"""A Spark connection is understood or refused, never guessed at."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from naviglio.errors import ConfigError
from naviglio.transform.cluster import Cluster, cluster_of, read


@pytest.mark.parametrize(
    "master",
    ["local", "local[*]", "local[4]", "local[2,3]", "yarn", "spark://m:7077",
     "spark://a:7077,b:7077", "k8s://https://api.example:6443"],
)  # fmt: skip
def test_masters_that_spark_knows(master: str) -> None:
    """Each as `spark-submit --master` takes it."""
    assert cluster_of("c", master, {}).master == master
    assert cluster_of("c", master, {}).is_here == master.startswith("local")


@pytest.mark.parametrize(
    "master",
    ["", "spark", "spark://", "spark://m", "local[0]", "local[*", "yarn-client", "mesos://m:5050",
     "postgres://db:5432", "spark://u:p@m:7077", "m:7077"],
)  # fmt: skip
def test_other_masters_are_refused(master: str) -> None:
    """The error names those that are known."""
    with pytest.raises(ConfigError, match=r"'c' names the master .*known: local\[\*\]"):
        cluster_of("c", master, {})


def test_all_options_are_taken_over() -> None:
    """Under the names of Airflow's provider, from a connection's extra or from a URL."""
    keytab = base64.b64encode(b"\x05\x02key").decode()
    extra = {
        "queue": "etl", "deploy-mode": "client", "spark-binary": "spark3-submit",
        "namespace": "jobs", "principal": "etl@EXAMPLE", "keytab": keytab,
        "properties-file": "/etc/spark/secret.conf", "conf": {"spark.executor.memory": "2g"},
        "rest-port": 6066,
    }  # fmt: skip
    found = cluster_of("c", "yarn", extra)
    assert found == Cluster(
        master="yarn", queue="etl", binary="spark3-submit", namespace="jobs",
        principal="etl@EXAMPLE", keytab=b"\x05\x02key", properties_file="/etc/spark/secret.conf",
        conf={"spark.executor.memory": "2g"},
    )  # fmt: skip
    assert "key" not in repr(found)
    url = "spark://m:7077/?proxy-user=ann&conf=%7B%22spark.cores.max%22%3A+2%7D"
    assert read("c", url) == Cluster(
        master="spark://m:7077", proxy_user="ann", conf={"spark.cores.max": "2"}
    )


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"que": "etl"}, r"'que'; known: .*Did you mean 'queue'"),
        ({"deploy-mode": "cluster"}, r"deploy-mode 'cluster'.*Set it to `client`"),
        ({"spark-binary": "/bin/sh"}, r"spark-binary '/bin/sh'; known: spark-submit"),
        ({"proxy-user": "ann", "principal": "p", "keytab": "eA=="}, "of which Spark takes one"),
        ({"principal": "p"}, "principal and keytab, or neither"),
        ({"principal": "p", "keytab": "no base64!"}, "not the Base64 of a file"),
        ({"conf": "[1]"}, "a JSON object"),
        ({"conf": "{"}, "a JSON object"),
        ({"conf": {"memory": "2g"}}, "names begin with `spark.`"),
        ({"conf": {"spark.ssl.trustStorePassword": "hush"}}, "`properties-file`"),
    ],
)
def test_what_cant_be_kept_is_refused(extra: dict[str, Any], told: str) -> None:
    """With the next step, and no value that may be secret."""
    with pytest.raises(ConfigError, match=told) as caught:
        cluster_of("c", "yarn", extra)
    assert "hush" not in str(caught.value)
