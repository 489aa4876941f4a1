"""Which differences are only in flight: rows that are not below the stream's point."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from naviglio.flows.reconcile import newer
from naviglio.model import Column, Kind, TableName, TableSchema, TableSpec
from naviglio.storage.engine import local_engine

NAME = TableName(schema="", table="t")
SPEC = TableSpec(name="t", source=NAME, target=NAME, key=("id",), way="stream", modified="c")
ZERO = r"\x00"
SECOND = 1_357_041_600_000_000_000  # 2013-01-01 12:00 UTC


@pytest.mark.parametrize(
    ("kind", "carrier", "held", "below", "above"),
    [
        ("timestamptz", "timestamp[us, tz=UTC]", "TIMESTAMPTZ", "2013-01-01 11:59:59.999999+00",
         "2013-01-01 13:00:00+01"),
        ("timestamp", "timestamp[us]", "TIMESTAMP", "2013-01-01 11:59:59.999999",
         "2013-01-01 12:00:00"),
        ("timestamptz", "string", "VARCHAR", "2013-01-01T12:59:59.9999999+01:00",
         "2013-01-01T12:00:00.0000001+00:00"),
        ("timestamp", "string", "VARCHAR", "2013-01-01T11:59:59.1234567", "2013-01-01T12:00:00"),
        ("int32", "int32", "INTEGER", "4", "5"),
        ("bytes", "binary", "BLOB", ZERO * 7 + r"\xFF", ZERO * 6 + r"\x01\x00"),
    ],
)  # fmt: skip
def test_rows_at_the_point_and_above_are_in_flight(
    kind: Kind, carrier: str, held: str, below: str, above: str
) -> None:
    """Whatever the stream goes along; a time that was carried as text by its moment."""
    column = Column(name="c", kind=kind, carrier=carrier, source_type=kind)
    schema = TableSchema(columns=(column,), key=("c",))
    point = {"int32": 5, "bytes": 256}.get(kind, SECOND)
    with local_engine() as engine:
        assert [_judged(engine, newer(schema, SPEC, point), held, v) for v in (below, above)] == [
            False,
            True,
        ]


def _judged(engine: duckdb.DuckDBPyConnection, condition: str, held: str, value: str) -> Any:
    query = f"SELECT {condition} FROM (SELECT CAST(? AS {held}) AS expected)"
    return engine.execute(query, [value]).fetchall()[0][0]
