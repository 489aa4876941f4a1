"""A pipeline moves to another vendor by its connection alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from naviglio.adapters.duckdb.sql import literal
from tests.integration.lines import DIFF, SWEPT, Line

_FLIGHTS = (
    "CREATE TABLE flights (id bigint PRIMARY KEY, carrier char(2), delay numeric(7,2),"
    " left_at timestamptz, note text, modified_at timestamptz NOT NULL DEFAULT clock_timestamp())"
)
_SEED = (
    "INSERT INTO flights SELECT n, 'UA', n / 4.0, '2013-01-01 05:00+00'::timestamptz"
    " + n * interval '1 hour', CASE WHEN n % 3 > 0 THEN 'n' || n END FROM generate_series(1, 500) n"
)
_CHANGES = (
    "UPDATE flights SET delay = delay + 1, modified_at = clock_timestamp() WHERE id % 5 = 0",
    "DELETE FROM flights WHERE id % 7 = 0",
    "INSERT INTO flights VALUES (1000, 'B6', NULL, 'infinity', E'\\n''')",
    "DELETE FROM carriers WHERE code = 'AA'",
)
_ASKED = "SELECT id, carrier, delay::text, epoch_us, note FROM"
_MOMENT = "CASE WHEN isfinite(left_at) THEN extract(epoch FROM left_at)::bigint END AS epoch_us"


def _in_duckdb(file: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(file, config={"autoinstall_known_extensions": "false"}) as outside:
        outside.execute("SET TimeZone = 'UTC'")
        rows: list[tuple[Any, ...]] = outside.execute(query).fetchall()
        return rows


def test_a_target_moves_from_postgresql_to_duckdb(line: Line, tmp_path: Path) -> None:
    """The same file, another connection: rows, changes and deletes arrive alike, and only once."""
    file = tmp_path / "warehouse.duckdb"
    line.source(
        _FLIGHTS, _SEED.replace("INTO flights", "INTO flights (id, carrier, delay, left_at, note)"),
        "CREATE TABLE carriers (code text PRIMARY KEY, name text)",
        "INSERT INTO carriers VALUES ('AA', 'American'), ('UA', 'United')",
    )  # fmt: skip
    line.declare(flights=SWEPT, carriers=DIFF)
    line.run()
    moved = replace(line, urls={**line.urls, "warehouse": f"duckdb://{file}"}, reports=[])

    for changes in ((), _CHANGES):
        line.source(*changes)
        moved.run()
        flights = f"{_ASKED} (SELECT *, {_MOMENT} FROM {{}}flights) AS f ORDER BY id"
        there = _in_duckdb(file, flights.format(f"{line.name}."))
        assert there == line.source(flights.format(""))
        codes = "SELECT code, name FROM {}carriers ORDER BY code"
        found = _in_duckdb(file, codes.format(f"{line.name}."))
        assert found == line.source(codes.format(""))

    moved.run()
    ledger = "SELECT inserted, updated, deleted, unchanged FROM naviglio.ledger WHERE target = "
    counts = _in_duckdb(file, ledger + literal(f"{line.name}.flights"))
    assert counts == [(1, 86, 71, 0)]
    assert _in_duckdb(file, "SELECT count(*) FROM naviglio.ledger") == [(2,)]
