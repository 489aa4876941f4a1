"""Airflow keeps its settings where the session's temporary folder is."""

from __future__ import annotations

import os
import tempfile

import pytest

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="naviglio-airflow-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ.setdefault("AIRFLOW__API_AUTH__JWT_SECRET", "for these tests alone " * 4)


@pytest.fixture(scope="session")
def airflow_tables() -> None:
    """Airflow's tables in a database below AIRFLOW_HOME: made from its models, in a second."""
    from airflow import settings
    from airflow.models import import_all_models  # noqa: TID251 - the api-server is no task
    from airflow.models.base import Base  # noqa: TID251 - the same

    import_all_models()  # type: ignore[no-untyped-call]
    Base.metadata.create_all(settings.get_engine())  # type: ignore[no-untyped-call]
