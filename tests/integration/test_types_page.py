"""docs/types.md says what the tests found: which types have which image, and what is refused.

NAVIGLIO_WRITE_DOCS=1 writes the page anew.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from naviglio.adapters.duckdb.target import DuckTarget, DuckTransaction
from naviglio.adapters.duckdb.types import target_type as in_duckdb
from naviglio.adapters.mssql.ddl import target_type as in_sql_server
from naviglio.adapters.postgres.types import target_type as in_postgresql
from naviglio.errors import DataError
from naviglio.model import BEYOND, Column, TableName, TableSchema
from naviglio.ports import Scan
from tests.integration.lines import DIFF, Line
from tests.integration.test_types_line import TYPES, sql

PAGE = Path(__file__).parents[2] / "docs" / "types.md"
BEGIN, END = "<!-- made by tests/integration/test_types_page.py -->\n", "<!-- to here -->"
LONG = 40  # characters of a value that the page shows


def test_the_page_of_types_says_what_happens(line: Line, tmp_path: Path) -> None:
    """Each value of each type goes to PostgreSQL and DuckDB alone: it arrives whole, or is refused.

    There is no third outcome. SQL Server's types are as its adapter declares them.
    """
    line.declare(t=DIFF)
    line.source(
        "CREATE TYPE mood AS ENUM ('sad', 'happy 😀', '')",
        "CREATE DOMAIN positive AS numeric(9,2) CHECK (VALUE > 0)",
    )
    with_duckdb = DuckTarget(f"duckdb://{tmp_path / 'types.duckdb'}")
    rows = []
    for number, (kind, values) in enumerate(TYPES.items()):
        schema, table = _read(line, f"t{number}", kind, values)
        column = schema.column("v")
        refused = [
            value
            for n, value in enumerate(values)
            if not _through_duckdb(with_duckdb, f"t{number}", schema, table.slice(n, 1))
        ]
        rows.append(_row(kind, column, refused))
    with_duckdb.close()
    made = BEGIN + "\n" + _HEAD + "".join(rows) + "\n" + END
    text = PAGE.read_text("utf-8")
    if os.environ.get("NAVIGLIO_WRITE_DOCS"):
        text = text[: text.index(BEGIN)] + made + text[text.index(END) + len(END) :]
        PAGE.write_text(text, "utf-8")
    assert text[text.index(BEGIN) : text.index(END) + len(END)] == made


_HEAD = (
    "| PostgreSQL | logical type, carrier | to PostgreSQL | to DuckDB | not in DuckDB |"
    " to SQL Server |\n|---|---|---|---|---|---|\n"
)


def _row(kind: str, column: Column, refused: list[str]) -> str:
    lost = ", ".join(f"`{_short(value)}`" for value in refused)
    cells = (
        f"`{kind}`", f"{column.kind}, `{column.carrier}`", f"`{in_postgresql(column)}`",
        f"`{in_duckdb(column)}`", lost or "-", f"`{in_sql_server(column)}`",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def _short(value: str) -> str:
    plain = value.replace("|", "\\|").replace("\n", "\\n")
    return plain if len(plain) <= LONG else plain[:LONG] + "…"


def _read(line: Line, name: str, kind: str, values: list[str]) -> tuple[TableSchema, pa.Table]:
    """Write the values into a table of the source; return them in their carriers."""
    line.source(
        f"CREATE TABLE {name} (id int PRIMARY KEY, v {kind})",
        *(f"INSERT INTO {name} VALUES ({n}, {sql(v)})" for n, v in enumerate(values)),
    )
    site = line.site()
    table = TableName(schema=line.name, table=name)
    schema = site.source.describe(table, ())
    with site.source.snapshot() as snapshot:
        found = pa.Table.from_batches(snapshot.read(Scan(table=table, schema=schema)))
    site.close()
    return schema, found.sort_by("id")


def _through_duckdb(target: DuckTarget, name: str, schema: TableSchema, row: pa.Table) -> bool:
    """Load one row; tell whether it arrived, exactly, or was refused."""
    table, batches = TableName(schema="made", table=name), iter(row.to_batches())
    staging = target.stage(name, schema, batches, whole=True)
    try:
        with target.begin() as transaction:
            transaction.merge(table, schema, staging)
            assert isinstance(transaction, DuckTransaction)
            arrived = _stored(transaction.connection, name)
    except DataError as error:
        if "column 'v'" not in str(error):
            raise
        return False
    assert arrived == _expected(schema.column("v"), row), schema.column("v").source_type
    return True


def _stored(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    ((found,),) = connection.execute(f'SELECT v::VARCHAR FROM made."{name}"').fetchall()
    return str(found)


def _expected(column: Column, row: pa.Table) -> str:
    """Return the value as DuckDB should spell it."""
    beyond = row.column(BEYOND)[0].as_py()
    if beyond is not None:
        text: str = json.loads(beyond)[column.name]
        return re.sub(r"^(\S+)(.*) BC$", r"\1 (BC)\2", text)
    value: Any = row.column("v")
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.register("sent", pa.table({"v": value}))
        return str(engine.execute("SELECT v::VARCHAR FROM sent").fetchall()[0][0])
