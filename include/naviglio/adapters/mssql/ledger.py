"""The ledger: how far each target is, in the target's own database, one row a target."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, fields, replace
from datetime import UTC

from mssql_python import Connection

from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.sql import columns, quote
from naviglio.errors import ContentionError
from naviglio.model import LedgerRow

SCHEMA = "naviglio"
LEDGER = f"{quote(SCHEMA)}.{quote('ledger')}"
_NAMES = [field.name for field in fields(LedgerRow)]
_TYPES = {
    # Names are told apart by their bytes, whatever the database's collation.
    "target": "nvarchar(257) COLLATE Latin1_General_100_BIN2",
    "loaded_at_utc": "datetime2(6)",
    **dict.fromkeys(
        ("version", "batch", "inserted", "updated", "deleted", "unchanged"), "bigint"
    ),
}  # fmt: skip
SELECT = f"SELECT {columns(_NAMES)} FROM {LEDGER}"
SELECT_ONE = f"{SELECT} WITH (UPDLOCK) WHERE [target] = ?"
UPDATE = (
    f"UPDATE {LEDGER} SET {', '.join(f'{quote(name)} = ?' for name in _NAMES[1:])}"
    " WHERE [target] = ?"
)
INSERT = f"INSERT INTO {LEDGER} ({columns(_NAMES)}) VALUES ({', '.join('?' for _ in _NAMES)})"
EXISTS = "SELECT OBJECT_ID(?, N'U')"
SCHEMA_EXISTS = "SELECT SCHEMA_ID(?)"
# Resource names are compared by their bytes. A lock of the transaction goes with it, one of the
# session is given back by `release`. Below zero: no lock (-1 timeout, -3 deadlock).
LOCK = (
    "SET NOCOUNT ON; DECLARE @got int; EXEC @got = sys.sp_getapplock @Resource = ?,"
    " @LockMode = N'Exclusive', @LockOwner = N'{owner}', @LockTimeout = {wait_ms}; SELECT @got;"
)
RELEASE = (
    "SET NOCOUNT ON; IF APPLOCK_MODE(N'public', ?, N'Session') = N'Exclusive'"
    " EXEC sys.sp_releaseapplock @Resource = ?, @LockOwner = N'Session'; SELECT 0;"
)


def create_ledger() -> str:
    """Return the statement that creates the ledger."""
    defined = ", ".join(
        f"{quote(name)} {_TYPES.get(name, 'nvarchar(max)')} NOT NULL" for name in _NAMES
    )
    return f"CREATE TABLE {LEDGER} ({defined}, PRIMARY KEY ([target]))"


def create_schema(name: str) -> str:
    """Return the statement, which must be a batch of its own, that creates a schema."""
    return f"CREATE SCHEMA {quote(name)}"


def exists(connection: Connection) -> bool:
    """Tell whether there is a ledger."""
    return fetch(connection, EXISTS, LEDGER) != [(None,)]


def ensure(connection: Connection, wait_s: float) -> None:
    """Create schema and ledger where they are absent; two processes may do so at once."""
    if exists(connection):
        return
    name = "ledger"
    hold(connection, name, wait_s)
    try:
        if not exists(connection):
            if not schema_exists(connection, SCHEMA):
                connection.execute(create_schema(SCHEMA)).close()
            connection.execute(create_ledger()).close()
    finally:
        release(connection, name)


def schema_exists(connection: Connection, schema: str) -> bool:
    """Tell whether there is a schema."""
    return fetch(connection, SCHEMA_EXISTS, schema) != [(None,)]


def ensure_schema(connection: Connection, schema: str, wait_s: float) -> None:
    """Create a schema where it is absent; others who would create it wait for the end of this."""
    if schema_exists(connection, schema):
        return
    take(connection, f"schema {schema}", owner="Transaction", wait_s=wait_s)
    if not schema_exists(connection, schema):
        connection.execute(create_schema(schema)).close()


def rows(connection: Connection) -> dict[str, LedgerRow]:
    """Return all rows by target; empty when there is no ledger."""
    if not exists(connection):
        return {}
    return {row[0]: _row(row) for row in fetch(connection, SELECT)}


def lock(connection: Connection, target: str, wait_s: float) -> LedgerRow | None:
    """Lock the target until the end of the transaction, with or without a row; return the row.

    The lock has the target's name: a lock on the range where an absent row would stand would hold
    up the loads of other targets, and two of them could wait for each other.
    """
    take(connection, f"target {target}", owner="Transaction", wait_s=wait_s)
    found = fetch(connection, SELECT_ONE, target)
    return _row(found[0]) if found else None


def record(connection: Connection, row: LedgerRow) -> None:
    """Write the target's row."""
    target, *values = astuple(replace(row, loaded_at_utc=row.loaded_at_utc.astimezone(UTC)))
    values = [
        value.replace(tzinfo=None) if name == "loaded_at_utc" else value
        for name, value in zip(_NAMES[1:], values, strict=True)
    ]
    with connection.execute(UPDATE, *values, target) as updated:
        there = updated.rowcount
    if not there:
        connection.execute(INSERT, target, *values).close()


def hold(connection: Connection, name: str, wait_s: float) -> None:
    """Hold a lock on a name until it is released, or the session ends."""
    take(connection, name, owner="Session", wait_s=wait_s)


def try_hold(connection: Connection, name: str) -> bool:
    """Take the lock on a name if nobody has it, and hold it; False when another session does."""
    return _taken(connection, name, owner="Session", wait_s=0) >= 0


def release(connection: Connection, name: str) -> None:
    """Give a lock of the session back; nothing when it has none."""
    fetch(connection, RELEASE, resource(name), resource(name))


def take(connection: Connection, name: str, *, owner: str, wait_s: float) -> None:
    """Take a lock on a name; ContentionError when others keep it."""
    if (got := _taken(connection, name, owner=owner, wait_s=wait_s)) < 0:
        raise ContentionError(
            f"{name}: no lock within {wait_s:g} s (sp_getapplock: {got}); another load is at work. "
            "Trying again is enough."
        )


def resource(name: str) -> str:
    """Return the name of a lock: the server cuts names at 255 characters, and so compares them."""
    return f"naviglio {hashlib.sha256(name.encode()).hexdigest()[:32]} {name}"[:120]


def _taken(connection: Connection, name: str, *, owner: str, wait_s: float) -> int:
    statement = LOCK.format(owner=owner, wait_ms=round(wait_s * 1000))
    return int(fetch(connection, statement, resource(name))[0][0])


def _row(values: tuple[object, ...]) -> LedgerRow:
    row = LedgerRow(**dict(zip(_NAMES, values, strict=True)))  # type: ignore[arg-type]  # as stored
    return replace(row, loaded_at_utc=row.loaded_at_utc.replace(tzinfo=UTC))
