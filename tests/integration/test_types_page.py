"""What each type of each source becomes in each target, value by value, and read from there again.

docs/types.md is made from it: NAVIGLIO_WRITE_DOCS=1 writes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from naviglio.adapters.duckdb.source import DuckSource
from naviglio.adapters.duckdb.target import DuckTarget
from naviglio.adapters.duckdb.types import target_type as in_duckdb
from naviglio.adapters.mssql.carried import beside
from naviglio.adapters.mssql.ddl import target_type as in_sql_server
from naviglio.adapters.mssql.staging import Stream
from naviglio.adapters.postgres.source import PostgresSource
from naviglio.adapters.postgres.target import PostgresTarget
from naviglio.adapters.postgres.types import target_type as in_postgresql
from naviglio.errors import DataError
from naviglio.model import Column, TableSchema
from tests.integration.lines import Line
from tests.integration.test_types_line import sql
from tests.sides import Carried, Side, delivered, meanings, there_and_back, without_offsets
from tests.values import (
    DUCKDB,
    MSSQL,
    NOT_IN_SQL_SERVER,
    POSTGRES,
    meant,
    spelled,
)

PAGE = Path(__file__).parents[2] / "docs" / "types.md"
LONG = 40  # characters of a value that the page shows
HEAD = (
    "| {} | logical type, carrier | PostgreSQL | DuckDB | SQL Server | without an image |\n"
    "|---|---|---|---|---|---|\n"
)


@pytest.fixture
def sides(line: Line, tmp_path: Path) -> Iterator[dict[str, Side]]:
    """The targets that run here."""
    file = f"duckdb://{tmp_path / 'types.duckdb'}"
    url = line.urls["warehouse"]
    made = {
        "PostgreSQL": Side(PostgresTarget(url), PostgresSource(url), line.name),
        "DuckDB": Side(DuckTarget(file), DuckSource(file), "made"),
    }
    yield made
    for side in made.values():
        side.close()


def test_from_postgresql_and_back(line: Line, sides: dict[str, Side]) -> None:
    """Each value arrives whole in each target, and means the same read from there; or is refused.

    What DuckDB holds goes on to PostgreSQL, and means the same there too.
    """
    line.source(
        "CREATE TYPE mood AS ENUM ('sad', 'happy 😀', '')",
        "CREATE DOMAIN positive AS numeric(9,2) CHECK (VALUE > 0)",
    )
    here = Side(sides["PostgreSQL"].target, PostgresSource(line.urls["operations"]), line.name)
    rows = []
    for number, (kind, values) in enumerate(POSTGRES.items()):
        name = f"p{number}"
        line.source(
            f"CREATE TABLE {name} (id int PRIMARY KEY, v {kind})",
            *(f"INSERT INTO {name} VALUES ({n}, {sql(v)})" for n, v in enumerate(values)),
            f"INSERT INTO {name} VALUES ({len(values)}, NULL)",
        )
        schema, found = here.read(name)
        arrived = _to_all(sides, name, schema, found)
        assert arrived["PostgreSQL"].refused == {}
        lost = {"DuckDB": _told(values, arrived["DuckDB"].refused)}
        _send_to_sql_server(schema, found, values, NOT_IN_SQL_SERVER.get(kind, []))
        lost["SQL Server"] = ", ".join(f"`{_short(v)}`" for v in NOT_IN_SQL_SERVER.get(kind, ()))
        rows.append(_row(kind, schema.column("v"), arrived, lost))
    here.source.close()
    _compare_page("PostgreSQL", rows)


def test_from_duckdb_and_back(sides: dict[str, Side]) -> None:
    """DuckDB's own types to PostgreSQL, and to another table of DuckDB; both read again."""
    rows = []
    for number, (kind, values) in enumerate(DUCKDB.items()):
        name = f"d{number}"
        _in_duckdb(sides["DuckDB"], name, kind, values)
        schema, found = sides["DuckDB"].read(name)
        assert [spelled(schema.column("v"), row) is None for row in found.to_pylist()] == (
            [False] * len(values) + [True]
        )
        arrived = _to_all(sides, f"{name} again", schema, found)
        assert arrived["DuckDB"].refused == {}
        lost = {"PostgreSQL": _told(values, arrived["PostgreSQL"].refused)}
        rows.append(_row(kind, schema.column("v"), arrived, lost))
    _compare_page("DuckDB", rows)


def test_from_sql_server_as_its_driver_delivers(sides: dict[str, Side]) -> None:
    """What the driver would deliver is decoded, arrives, is read again, and means what T-SQL said.

    And what a load into SQL Server would send is the same again. The server's own part is in
    tests/contract/test_mssql_types.py.
    """
    rows = []
    for number, (kind, sent) in enumerate(MSSQL.items()):
        schema, found = delivered(kind, sent)
        column = schema.column("v")
        wanted = {n: one.means and meant(column.kind, one.means) for n, one in enumerate(sent)}
        assert meanings(column, found) == {**wanted, len(sent): None}, kind
        assert in_sql_server(column) == ("binary(8)" if kind == "timestamp" else kind)
        _send_to_sql_server(schema, found, [], [])
        moments = meanings(column, without_offsets(found))
        arrived = _to_all(sides, f"m{number}", schema, found, moments)
        assert [one.refused for one in arrived.values()] == [{}, {}], kind
        lost = {"PostgreSQL, DuckDB": "the offset; the moment stays" if beside(schema) else ""}
        rows.append(_row(kind, column, arrived, lost))
    _compare_page("SQL Server", rows)


# --- carrying -------------------------------------------------------------------------------------


def _to_all(
    sides: Mapping[str, Side],
    name: str,
    schema: TableSchema,
    rows: pa.Table,
    moments: Mapping[int, str | None] | None = None,
) -> dict[str, Carried]:
    """Carry to each target, and from there on to PostgreSQL."""
    sent = moments or meanings(schema.column("v"), rows)
    home = sides["PostgreSQL"]
    return {
        vendor: there_and_back(side, home, f"{name} by {vendor}", schema, rows, sent)
        for vendor, side in sides.items()
    }


def _send_to_sql_server(
    schema: TableSchema, rows: pa.Table, values: Sequence[str], without: Sequence[str]
) -> None:
    """See that the bulk copy would be sent the very carriers, and no float that is no number."""

    def staged(sent: pa.Table) -> pa.Table:
        stream = Stream(iter(sent.to_batches()), schema, whole=True)
        return pa.Table.from_batches(stream, stream.schema)

    told = [*values, ""] if values else [""] * rows.num_rows
    kept = rows.filter(pa.array([value not in without for value in told]))
    assert staged(kept).columns == kept.columns
    if without and schema.column("v").kind in ("float32", "float64"):
        with pytest.raises(DataError, match="column 'v': NaN or infinity"):
            staged(rows)


def _in_duckdb(side: Side, name: str, kind: str, values: list[str]) -> None:
    assert isinstance(side.target, DuckTarget)
    with side.target._session() as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS made")
        connection.execute(f'CREATE TABLE made."{name}" (id INTEGER PRIMARY KEY, v {kind})')
        for n, value in enumerate([*values, None]):
            connection.execute(f'INSERT INTO made."{name}" SELECT ?, CAST(? AS {kind})', (n, value))


# --- the page -------------------------------------------------------------------------------------


def _row(kind: str, column: Column, arrived: Mapping[str, Carried], lost: Mapping[str, str]) -> str:
    spell = {"PostgreSQL": in_postgresql, "DuckDB": in_duckdb, "SQL Server": in_sql_server}
    cells = [f"`{kind}`", f"{column.kind}, `{column.carrier}`"]
    for vendor, type_of in spell.items():
        back = arrived[vendor].back.kind if vendor in arrived else column.kind
        cells.append(f"`{type_of(column)}`" + (f", again {back}" if back != column.kind else ""))
    told = "; ".join(f"{vendor}: {values}" for vendor, values in lost.items() if values)
    return f"| {' | '.join(cells)} | {told or '-'} |\n"


def _told(values: list[str], refused: Mapping[int, str]) -> str:
    reasons: dict[str, list[str]] = {}
    for n, reason in refused.items():
        reasons.setdefault(reason, []).append(f"`{_short(values[n])}`")
    return ", ".join(f"{', '.join(named)} ({reason})" for reason, named in reasons.items())


def _short(value: str) -> str:
    plain = value.replace("|", "\\|").replace("\n", "\\n")
    return plain if len(plain) <= LONG else plain[:LONG] + "…"


def _compare_page(vendor: str, rows: list[str]) -> None:
    begin = f"<!-- {vendor}: made by tests/integration/test_types_page.py -->\n"
    end = "<!-- to here -->"
    made = begin + "\n" + HEAD.format(vendor) + "".join(rows) + "\n" + end
    text = PAGE.read_text("utf-8")
    first = text.index(begin)
    last = text.index(end, first) + len(end)
    if os.environ.get("NAVIGLIO_WRITE_DOCS"):
        PAGE.write_text(text[:first] + made + text[last:], "utf-8")
        return
    assert text[first:last] == made
