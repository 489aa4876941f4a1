"""A pipeline moves to another vendor by its connection alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from psycopg.conninfo import make_conninfo

from naviglio import refusals
from naviglio.adapters.duckdb.sql import literal
from naviglio.adapters.mssql import fit
from naviglio.adapters.mssql import target as mssql_target
from naviglio.adapters.mssql.ddl import Spelled, target_type
from naviglio.adapters.mssql.staging import Stream
from naviglio.capture.table import Wish
from naviglio.config.pipeline import load_pipeline
from naviglio.connections.connections import Connections, variable_of
from naviglio.connections.registry import open_source, open_target
from naviglio.demo import advance, seed
from naviglio.flows.reconcile import reconcile
from naviglio.flows.replicate import replicate
from naviglio.flows.site import open_site
from naviglio.model import OP, Column, Deletes, Group, Pipeline, TableSchema
from tests.contract.target import ledger_row
from tests.integration.lines import DIFF, SWEPT, Line
from tests.unit.adapters.mssql.recorder import Answer, Recorder
from tests.unit.adapters.mssql.test_target import server
from tests.unit.adapters.mssql.tsql import COLLATION, parsed

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


FLIGHTS = Path(__file__).parents[2] / "include" / "pipelines" / "flights.yaml"
_NAMES = (
    "SELECT column_name::text FROM information_schema.columns"
    " WHERE table_schema = '{}' AND table_name = '{}' ORDER BY 1"
)


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

    assert [verdict.ok for verdict in moved.reconcile()] == [True] * 4
    moved.run()
    ledger = "SELECT inserted, updated, deleted, unchanged FROM naviglio.ledger WHERE target = "
    counts = _in_duckdb(file, ledger + literal(f"{line.name}.flights"))
    assert counts == [(1, 86, 71, 0)]
    assert _in_duckdb(file, "SELECT count(*) FROM naviglio.ledger") == [(2,)]


def test_reconcile_names_what_differs_in_a_duckdb_file(line: Line, tmp_path: Path) -> None:
    """Values that the source can't carry plainly agree; a row that someone changed is named."""
    file = tmp_path / "warehouse.duckdb"
    line.source(
        "CREATE TABLE t (id int PRIMARY KEY, d date, at timestamptz, x text, n numeric, j jsonb)",
        "INSERT INTO t VALUES (1, 'infinity', '4713-01-01 00:00+00 BC', '', 1.50, '{\"a\": 1}'),"
        " (2, '0001-01-01', '9999-12-31 23:59:59.999999+00', NULL, 'NaN', NULL)",
    )
    line.declare(t=DIFF)
    moved = replace(line, urls={**line.urls, "warehouse": f"duckdb://{file}"})
    moved.run()
    assert [verdict.ok for verdict in moved.reconcile()] == [True, True]
    _in_duckdb(file, f"UPDATE {line.name}.t SET x = 'other' WHERE id = 2")
    _, target = moved.reconcile()
    assert (target.changed.count, target.missing.count, target.extra.count) == (1, 0, 0)
    assert "2" in str(target.changed.keys)


def test_the_demo_arrives_in_duckdb_and_from_there_in_postgresql(
    line: Line, tmp_path: Path
) -> None:
    """Its pipeline unchanged but for the connection; then DuckDB is the source of another one."""
    file = f"duckdb://{tmp_path / 'warehouse.duckdb'}"
    application = make_conninfo(line.urls["operations_app"], options=f"-c search_path={line.name}")
    seed(application, date(2013, 1, 2))
    urls = {"operations": line.urls["operations"], "warehouse": file}
    flights = _in_schema(load_pipeline(FLIGHTS), line.name)
    assert _carried(line, flights, urls) == [True] * 10
    advance(application, 1)
    assert _carried(line, flights, urls) == [True] * 10

    back = replace(
        flights, name="back", source="warehouse", target="again", transforms=(),
        groups=tuple(_diffed(group, line.name) for group in flights.groups),
    )  # fmt: skip
    assert _carried(line, back, {**urls, "again": line.urls["warehouse"]}) == [True] * 10
    for table in ("flights", "weather", "planes", "airports", "airlines"):
        rows = f"SELECT count(*), sum(hashtext(t::text)::bigint) FROM (SELECT {{}} FROM {table}) t"
        listed = ", ".join(name for (name,) in line.source(_NAMES.format(line.name, table)))
        there = rows.format(listed).replace(f"FROM {table}", f"FROM {line.name}.{table}")
        assert line.source(rows.format(listed)) == line.target(there)


def _carried(line: Line, pipeline: Pipeline, urls: Mapping[str, str]) -> list[bool]:
    """Carry every group and compare; return the verdicts."""
    with open_site(pipeline, line.home, _connections(urls)) as site:
        for group in pipeline.groups:
            report = replicate(site, group, Wish())
            if report.error is not None:
                raise report.error
        return [v.ok for group in pipeline.groups for v in reconcile(site, group)]


def _in_schema(pipeline: Pipeline, schema: str) -> Pipeline:
    """Read the demo's tables from the test's own schema."""
    groups = tuple(
        replace(
            group,
            tables=tuple(replace(t, source=replace(t.source, schema=schema)) for t in group.tables),
        )
        for group in pipeline.groups
    )
    return replace(pipeline, groups=groups, fence_margin_s=0.0)


def _diffed(group: Group, schema: str) -> Group:
    """Compare what the first pipeline loaded, and load it into the test's own schema."""
    return replace(
        group,
        tables=tuple(
            replace(
                t, way="diff", source=t.target, target=replace(t.target, schema=schema),
                deletes=Deletes(),
            )
            for t in group.tables
        ),
    )  # fmt: skip


# --- SQL Server, as far as it goes without one ----------------------------------------------------

_PLAIN_CALLS = ("AUTOCOMMIT ON", "AUTOCOMMIT OFF", "COMMIT")


class Catalogue:
    """Answers as a server would that has what was created before, without rows at first."""

    def __init__(self, schema: TableSchema) -> None:
        self._schema, self._made = schema, False
        self._otherwise = server(empty=())

    def __call__(self, text: str) -> Answer:
        """Return the rows of a statement's result."""
        self._made |= text.startswith("CREATE TABLE [flights].")
        if text.startswith("INSERT INTO [flights]."):
            self._otherwise = server()
        if text == fit.TABLE:
            return [(5, "U", refusals.MADE_BY, *[1] * 6)] if self._made else []
        if text == fit.COLUMNS:
            return [self._column(column) for column in self._schema.columns]
        if text == fit.UNIQUE:
            return [(1, name) for name in self._schema.key]
        if text.startswith("SELECT COUNT_BIG(*), COUNT_BIG(CASE"):
            return [(0,) * (1 + text.count("COUNT_BIG(CASE"))]
        if text.startswith("SELECT COUNT_BIG(*), COUNT_BIG(s."):  # what was staged: nothing
            stream = Stream(iter(()), self._schema, whole=f"[{OP}]" not in text)
            return [tuple(stream.tally.figures)]
        return self._otherwise(text)

    def _column(self, column: Column) -> tuple[Any, ...]:
        key = column.name in self._schema.key
        type_ = Spelled.of(target_type(column, key=key))
        length = -1 if type_.first == -1 else 2 * (type_.first or 0)
        scale = type_.second if type_.name == "decimal" else type_.first or 0
        collation = COLLATION if column.kind == "text" else None
        return (column.name, type_.name, length, type_.first or 0, scale, collation, not key, 0, 0)


def test_the_demo_for_sql_server_is_all_t_sql(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement that loads of the pipeline's tables send: the first, changes, the end."""
    application = make_conninfo(line.urls["operations_app"], options=f"-c search_path={line.name}")
    seed(application, date(2013, 1, 1))
    flights = _in_schema(load_pipeline(FLIGHTS), line.name)
    sent: list[str] = []
    for table in (table for group in flights.groups for table in group.tables):
        source = open_source(flights.source, _connections(line.urls))
        schema = source.describe(table.source, table.key)
        source.close()
        recorder = Recorder(Catalogue(schema))
        monkeypatch.setattr(mssql_target, "connect", lambda *_, r=recorder, **__: r)
        warehouse = {"warehouse": "mssql://u:p@h/d"}
        target = open_target(flights.target, _connections(warehouse))
        for whole in (True, False):
            target.ledger()
            target.check(table.target, schema, adopt=False)
            staging = target.stage(f"a{whole:d}", schema, iter(()), whole=whole)
            with target.begin() as transaction:
                transaction.lock(table.target)
                transaction.merge(table.target, schema, staging)
                transaction.record(ledger_row(table.target))
        target.close()
        made = [call for call in recorder.calls if call.startswith("CREATE TABLE [flights]")]
        filled = [call for call in recorder.calls if call.startswith("INSERT INTO [flights]")]
        merged = [call for call in recorder.calls if "MERGE" in call]
        assert (len(made), len(filled), len(merged)) == (1, 1, 1)
        sent += [call for call in recorder.calls if call not in _PLAIN_CALLS]
    assert len(sent) > 100
    for statement in dict.fromkeys(sent):
        # The one hint that sqlglot doesn't read where T-SQL has it.
        parsed(statement.replace("] WITH (TABLOCK) (", "] ("))


def _connections(urls: Mapping[str, str]) -> Connections:
    return Connections({variable_of(name): url for name, url in urls.items()}, None)
