"""Airflow keeps its settings where the session's temporary folder is; a line for its tasks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.connections.connections import variable_of
from tests.integration.lines import Line, drop_schemas, new_line

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="naviglio-airflow-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")


@pytest.fixture
def line(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """Return a log table `t` and a registry table `r`, as the environment names them."""
    made = new_line(cluster, tmp_path)
    monkeypatch.setenv("NAVIGLIO_HOME", str(made.home.root))
    for name, url in made.urls.items():
        monkeypatch.setenv(variable_of(name), url)
    made.declare(
        t="{capture: {where: modified_at}, event_time: at, deletes: sweep}", r="{capture: diff}"
    )
    made.source(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, modified_at timestamptz, x text)",
        "CREATE TABLE r (id int PRIMARY KEY, x text)",
        "INSERT INTO t SELECT n, timestamptz '2013-01-05 12:00Z' + n * interval '1 day',"
        " now() - interval '1 h', 'v' || n FROM generate_series(1, 4) n",
        "INSERT INTO r VALUES (1, 'a')",
    )
    try:
        yield made
    finally:
        drop_schemas(made)
