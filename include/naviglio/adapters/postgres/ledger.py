"""The ledger: how far each target is, in the target's own database, one row a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

import psycopg
from psycopg.rows import class_row

from naviglio.adapters.postgres.sql import columns, quote
from naviglio.model import LedgerRow

SCHEMA = "naviglio"
LEDGER = f"{quote(SCHEMA)}.{quote('ledger')}"
_NAMES = [field.name for field in fields(LedgerRow)]
_AUDIT = {"login": "session_user", "principal": "current_user"}  # nobody else tells who it was
_PLACES = ", ".join(_AUDIT.get(name, f"%({name})s") for name in _NAMES)
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


def add_columns(names: Sequence[str]) -> str:
    """Return the statement that gives a ledger of an earlier version its later columns."""
    added = (f"ADD COLUMN IF NOT EXISTS {quote(name)} text NOT NULL DEFAULT ''" for name in names)
    return f"ALTER TABLE {LEDGER} {', '.join(added)}"


def ensure(connection: psycopg.Connection) -> None:
    """Create schema and ledger where they are absent, or the ledger's later columns.

    Two processes may do so at once; rows of an earlier version stay.
    """
    if _has(connection) == _NAMES:
        return
    with connection.transaction():
        ensure_schema(connection, SCHEMA)
        connection.execute(create_ledger())
        has = _has(connection)
        if lacking := [name for name in _NAMES if name not in has]:
            connection.execute(add_columns(lacking))


def ensure_schema(connection: psycopg.Connection, schema: str) -> None:
    """Create a schema where it is absent; others who would create it wait for the end of this."""
    there = "SELECT FROM pg_namespace WHERE nspname = %s"
    if connection.execute(there, (schema,)).fetchone() is None or schema == SCHEMA:
        lock_name(connection, f"naviglio schema {schema}")
        if connection.execute(there, (schema,)).fetchone() is None:
            connection.execute(f"CREATE SCHEMA {quote(schema)}")


def rows(connection: psycopg.Connection) -> dict[str, LedgerRow]:
    """Return all rows by target; empty when there is no ledger."""
    has = _has(connection)
    if not has:
        return {}
    with connection.cursor(row_factory=class_row(LedgerRow)) as cursor:
        found = cursor.execute(f"SELECT {columns(has)} FROM {LEDGER}".encode())
        return {row.target: row for row in found}


def knows(connection: psycopg.Connection, target: str) -> bool:
    """Tell whether the ledger has a row for the target."""
    if not exists(connection):
        return False
    found = connection.execute(f"SELECT FROM {LEDGER} WHERE target = %s", (target,))
    return found.fetchone() is not None


def lock(connection: psycopg.Connection, target: str) -> LedgerRow | None:
    """Lock the target until the end of the transaction, with or without a row; return the row."""
    lock_name(connection, f"naviglio target {target}")
    with connection.cursor(row_factory=class_row(LedgerRow)) as cursor:
        return cursor.execute(f"{_ROWS} WHERE target = %s FOR UPDATE", (target,)).fetchone()


def record(connection: psycopg.Connection, row: LedgerRow) -> None:
    """Write the target's row."""
    connection.execute(_RECORD, asdict(row))


def _has(connection: psycopg.Connection) -> list[str]:
    """Return the columns of the ledger that this version knows; none when it is absent."""
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0"
        " AND NOT attisdropped",
        (LEDGER,),
    )
    there = {name for (name,) in found}
    return [name for name in _NAMES if name in there]


def lock_name(connection: psycopg.Connection, name: str) -> None:
    """Hold a lock on a name until the end of the transaction."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
