"""The ledger: how far each target is, in the target's own file, one row a target."""

from __future__ import annotations

from dataclasses import astuple, fields, replace
from datetime import UTC

import duckdb

from naviglio.adapters.duckdb.session import rows as fetch
from naviglio.adapters.duckdb.sql import columns, quote, table
from naviglio.model import LedgerRow, TableName

SCHEMA = "naviglio"
LEDGER = TableName(schema=SCHEMA, table="ledger")
_NAMES = [field.name for field in fields(LedgerRow)]
_TYPES = {
    "loaded_at_utc": "TIMESTAMP",
    **dict.fromkeys(
        ("version", "batch", "inserted", "updated", "deleted", "unchanged"), "BIGINT"
    ),
}  # fmt: skip
_LATER = ("batch_attempt",)  # columns that a ledger of an earlier version lacks
_EXISTS = (
    "SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND schema_name = ? AND table_name = ?"
)


def create_ledger(catalogue: str) -> str:
    """Return the statement that creates the ledger where it is absent."""
    defined = ", ".join(f"{quote(name)} {_TYPES.get(name, 'VARCHAR')} NOT NULL" for name in _NAMES)
    return (
        f"CREATE TABLE IF NOT EXISTS {table(catalogue, LEDGER)} ({defined}, PRIMARY KEY (target))"
    )


def add_column(catalogue: str, name: str) -> str:
    """Return the statement that gives a ledger of an earlier version a later column."""
    ledger = table(catalogue, LEDGER)
    return f"ALTER TABLE {ledger} ADD COLUMN IF NOT EXISTS {quote(name)} VARCHAR DEFAULT ''"


def create_schema(catalogue: str, name: str) -> str:
    """Return the statement that creates a schema where it is absent."""
    return f"CREATE SCHEMA IF NOT EXISTS {quote(catalogue)}.{quote(name)}"


def ensure(connection: duckdb.DuckDBPyConnection, catalogue: str) -> None:
    """Create schema and ledger where they are absent."""
    if not exists(connection, catalogue):
        connection.execute(create_schema(catalogue, SCHEMA))
        connection.execute(create_ledger(catalogue))


def exists(connection: duckdb.DuckDBPyConnection, catalogue: str) -> bool:
    """Tell whether there is a ledger."""
    return bool(fetch(connection, _EXISTS, catalogue, SCHEMA, LEDGER.table))


def rows(connection: duckdb.DuckDBPyConnection, catalogue: str) -> dict[str, LedgerRow]:
    """Return all rows by target; empty when there is no ledger."""
    if not exists(connection, catalogue):
        return {}
    for name in _LATER:
        connection.execute(add_column(catalogue, name))
    return {row[0]: _row(row) for row in fetch(connection, _select(catalogue))}


def row(connection: duckdb.DuckDBPyConnection, catalogue: str, target: str) -> LedgerRow | None:
    """Return the target's row."""
    found = fetch(connection, f"{_select(catalogue)} WHERE target = ?", target)
    return _row(found[0]) if found else None


def record(connection: duckdb.DuckDBPyConnection, catalogue: str, new: LedgerRow) -> None:
    """Write the target's row."""
    at = new.loaded_at_utc.astimezone(UTC).replace(tzinfo=None)
    places = ", ".join("?" for _ in _NAMES)
    connection.execute(
        f"INSERT OR REPLACE INTO {table(catalogue, LEDGER)} ({columns(_NAMES)}) VALUES ({places})",
        astuple(replace(new, loaded_at_utc=at)),
    )


def _select(catalogue: str) -> str:
    return f"SELECT {columns(_NAMES)} FROM {table(catalogue, LEDGER)}"


def _row(values: tuple[object, ...]) -> LedgerRow:
    row = LedgerRow(**dict(zip(_NAMES, values, strict=True)))  # type: ignore[arg-type]  # as stored
    return replace(row, loaded_at_utc=row.loaded_at_utc.replace(tzinfo=UTC))
