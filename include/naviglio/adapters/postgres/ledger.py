"""The ledger: how far each target is, in the target's own database, one row a target."""

from __future__ import annotations

from dataclasses import asdict, fields

import psycopg
from psycopg.rows import class_row

from naviglio.adapters.postgres.sql import columns, quote
from naviglio.model import LedgerRow

SCHEMA = "naviglio"
LEDGER = f"{quote(SCHEMA)}.{quote('ledger')}"
_NAMES = [field.name for field in fields(LedgerRow)]
_PLACES = ", ".join(f"%({name})s" for name in _NAMES)
_ROWS = f"SELECT {columns(_NAMES)} FROM {LEDGER}"
_RECORD = (
    f"INSERT INTO {LEDGER} ({columns(_NAMES)}) VALUES ({_PLACES})"
    " ON CONFLICT (target) DO UPDATE SET "
    + ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in _NAMES[1:])
)


def create_ledger() -> str:
    """Return the statement that creates the ledger where it is absent."""
    types = {"version": "bigint", "batch": "bigint", "loaded_at_utc": "timestamptz"}
    types |= dict.fromkeys(("inserted", "updated", "deleted", "unchanged"), "bigint")
    defined = ", ".join(f"{quote(name)} {types.get(name, 'text')} NOT NULL" for name in _NAMES)
    return f"CREATE TABLE IF NOT EXISTS {LEDGER} ({defined}, PRIMARY KEY (target))"


def exists(connection: psycopg.Connection) -> bool:
    """Tell whether there is a ledger."""
    return connection.execute("SELECT to_regclass(%s)", (LEDGER,)).fetchone() != (None,)


def ensure(connection: psycopg.Connection) -> None:
    """Create schema and ledger where they are absent; two processes may do so at once."""
    if exists(connection):
        return
    with connection.transaction():
        ensure_schema(connection, SCHEMA)
        connection.execute(create_ledger())


def ensure_schema(connection: psycopg.Connection, schema: str) -> None:
    """Create a schema where it is absent; others who would create it wait for the end of this."""
    there = "SELECT FROM pg_namespace WHERE nspname = %s"
    if connection.execute(there, (schema,)).fetchone() is None or schema == SCHEMA:
        _lock_name(connection, f"naviglio schema {schema}")
        if connection.execute(there, (schema,)).fetchone() is None:
            connection.execute(f"CREATE SCHEMA {quote(schema)}")


def rows(connection: psycopg.Connection) -> dict[str, LedgerRow]:
    """Return all rows by target; empty when there is no ledger."""
    if not exists(connection):
        return {}
    with connection.cursor(row_factory=class_row(LedgerRow)) as cursor:
        return {row.target: row for row in cursor.execute(_ROWS)}


def knows(connection: psycopg.Connection, target: str) -> bool:
    """Tell whether the ledger has a row for the target."""
    if not exists(connection):
        return False
    found = connection.execute(f"SELECT FROM {LEDGER} WHERE target = %s", (target,))
    return found.fetchone() is not None


def lock(connection: psycopg.Connection, target: str) -> LedgerRow | None:
    """Lock the target until the end of the transaction, with or without a row; return the row."""
    _lock_name(connection, f"naviglio target {target}")
    with connection.cursor(row_factory=class_row(LedgerRow)) as cursor:
        return cursor.execute(f"{_ROWS} WHERE target = %s FOR UPDATE", (target,)).fetchone()


def record(connection: psycopg.Connection, row: LedgerRow) -> None:
    """Write the target's row."""
    connection.execute(_RECORD, asdict(row))


def _lock_name(connection: psycopg.Connection, name: str) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
