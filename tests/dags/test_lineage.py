"""OpenLineage hears which tables a task read and wrote, and nothing of who connects."""

from __future__ import annotations

import pytest
from airflow.providers.openlineage.extractors.base import DefaultExtractor

from naviglio.model import TableName
from naviglio_airflow.lineage import dataset_of
from naviglio_airflow.operators import (
    ApplyOperator,
    CaptureOperator,
    LoadOperator,
    NaviglioOperator,
    ReconcileOperator,
)
from tests.dags.told import path_of
from tests.integration.lines import Line


def ends(task: NaviglioOperator) -> tuple[list[str], list[str]]:
    """Return the names of what Airflow's own extractor finds."""
    found = DefaultExtractor(task).extract_on_complete(None)
    assert found is not None
    return (
        [f"{one.namespace} {one.name}" for one in found.inputs],
        [f"{one.namespace} {one.name}" for one in found.outputs],
    )


def test_tables_follow_one_another_from_source_to_target(line: Line) -> None:
    """What one step writes is what the next one reads; no password is in any name."""
    file, name = str(path_of(line)), line.pipeline.name
    sources, landed = ends(CaptureOperator(task_id="c", pipeline=file, groups=["t"]))
    read, lake = ends(ApplyOperator(task_id="a", pipeline=file, groups=["t"]))
    loaded, targets = ends(LoadOperator(task_id="l", pipeline=file, groups=["t"]))
    assert (landed, lake) == (read, loaded)
    assert lake == [f"file {line.home.lake}/{name}/t"]
    assert sources[0].startswith("postgres://")
    assert sources[0].endswith(f":5432 operations.{line.name}.t")
    assert targets[0].endswith(f":5432 warehouse.{line.name}.t")
    compared, nothing = ends(ReconcileOperator(task_id="r", pipeline=file))
    assert (len(compared), nothing) == (6, [])
    told = str([sources, landed, lake, targets, compared])
    assert not any(url.split(":")[2].split("@")[0] in told for url in line.urls.values())


@pytest.mark.parametrize(
    ("url", "namespace", "name"),
    [
        ("postgresql://u:p@db:5433/ops", "postgres://db:5433", "ops.m.t"),
        ("mssql://u:p@db/dwh", "mssql://db:1433", "dwh.m.t"),
        ("duckdb:///srv/w.duckdb", "file", "/srv/w.duckdb/m.t"),
    ],
)
def test_names_follow_openlineages_conventions(url: str, namespace: str, name: str) -> None:
    """A database is named by its address; the port is always said."""
    found = dataset_of(url, TableName(schema="m", table="t"))
    assert (found.namespace, found.name) == (namespace, name)
