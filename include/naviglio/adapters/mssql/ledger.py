"""The ledger: how far each target is, in the target's own database, one row a target."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields, replace
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
_AUDIT = {"login": "ORIGINAL_LOGIN()", "principal": "USER_NAME()"}  # the server says who it was
_BOUND = [name for name in _NAMES if name not in _AUDIT]
_LATER = (*_AUDIT, "ranges", "batch_attempt")  # columns that a ledger of an earlier version lacks
SELECT = f"SELECT {columns(_NAMES)} FROM {LEDGER}"
SELECT_EARLIER = f"SELECT {columns(n for n in _NAMES if n not in _LATER)} FROM {LEDGER}"
SELECT_ONE = f"{SELECT} WITH (UPDLOCK) WHERE [target] = ?"
UPDATE = (
    f"UPDATE {LEDGER} SET "
    + ", ".join(f"{quote(name)} = {_AUDIT.get(name, '?')}" for name in _NAMES[1:])
    + " WHERE [target] = ?"
)
INSERT = (
    f"INSERT INTO {LEDGER} ({columns(_NAMES)})"
    f" VALUES ({', '.join(_AUDIT.get(name, '?') for name in _NAMES)})"
)
IS_LATER = "SELECT " + ", ".join(f"COL_LENGTH(?, N'{name}')" for name in _LATER)
EXISTS = "SELECT OBJECT_ID(?, N'U')"
SCHEMA_EXISTS = "SELECT SCHEMA_ID(?)"
# Resource names are compared by their bytes. A lock of the transaction goes with it, one of the
# session is given back by `release`.
RELEASE = (
    "SET NOCOUNT ON; IF APPLOCK_MODE(N'public', ?, N'Session') = N'Exclusive'"
    " EXEC sys.sp_releaseapplock @Resource = ?, @LockOwner = N'Session'; SELECT 0;"
)


def lock_statement(owner: str, wait_ms: int) -> str:
    """Return the batch that locks a name for the `Transaction` or the `Session`.

    Below zero: no lock (-1 timeout, -3 deadlock, -999 without a transaction). ODBC's manual commit
    is SET IMPLICIT_TRANSACTIONS ON: the first query of a table begins a transaction, EXEC doesn't.
    """
    begin = " SELECT @got = COUNT(*) FROM sys.schemas;" if owner == "Transaction" else ""
    return (
        f"SET NOCOUNT ON; DECLARE @got int;{begin} EXEC @got = sys.sp_getapplock @Resource = ?,"
        f" @LockMode = N'Exclusive', @LockOwner = N'{owner}', @LockTimeout = {wait_ms};"
        " SELECT @got;"
    )


def create_ledger() -> str:
    """Return the statement that creates the ledger."""
    defined = ", ".join(
        f"{quote(name)} {_TYPES.get(name, 'nvarchar(max)')} NOT NULL" for name in _NAMES
    )
    return f"CREATE TABLE {LEDGER} ({defined}, PRIMARY KEY ([target]))"


def add_columns() -> str:
    """Return the statement that gives a ledger of an earlier version its later columns."""
    added = ", ".join(f"{quote(name)} nvarchar(max) NOT NULL DEFAULT N''" for name in _LATER)
    return f"ALTER TABLE {LEDGER} ADD {added}"


def create_schema(name: str) -> str:
    """Return the statement, which must be a batch of its own, that creates a schema."""
    return f"CREATE SCHEMA {quote(name)}"


def exists(connection: Connection) -> bool:
    """Tell whether there is a ledger."""
    return fetch(connection, EXISTS, LEDGER) != [(None,)]


def ensure(connection: Connection, wait_s: float) -> None:
    """Create schema and ledger where they are absent, or the ledger's later columns.

    Two processes may do so at once; rows of an earlier version stay.
    """
    if exists(connection) and _is_later(connection):
        return
    name = "ledger"
    hold(connection, name, wait_s)
    try:
        if not exists(connection):
            if not schema_exists(connection, SCHEMA):
                connection.execute(create_schema(SCHEMA)).close()
            connection.execute(create_ledger()).close()
        elif not _is_later(connection):
            connection.execute(add_columns()).close()
    finally:
        release(connection, name)


def _is_later(connection: Connection) -> bool:
    """Tell whether the ledger has the columns of this version."""
    return None not in fetch(connection, IS_LATER, *[LEDGER] * len(_LATER))[0]


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
    query = SELECT if _is_later(connection) else SELECT_EARLIER
    return {row[0]: _row(row) for row in fetch(connection, query)}


def lock(connection: Connection, target: str, wait_s: float) -> LedgerRow | None:
    """Lock the target until the end of the transaction, with or without a row; return the row.

    The lock has the target's name: a lock on the range where an absent row would stand would hold
    up the loads of other targets, and two of them could wait for each other.
    """
    take(connection, f"target {target}", owner="Transaction", wait_s=wait_s)
    found = fetch(connection, SELECT_ONE, target)
    return _row(found[0]) if found else None


def record(connection: Connection, row: LedgerRow) -> None:
    """Write the target's row; the server adds who it was."""
    at = row.loaded_at_utc.astimezone(UTC).replace(tzinfo=None)
    told = asdict(replace(row, loaded_at_utc=at))
    target, *values = (told[name] for name in _BOUND)
    with connection.execute(UPDATE, *values, target) as updated:
        there = updated.rowcount
    if not there:
        connection.execute(INSERT, target, *values).close()


def hold(connection: Connection, name: str, wait_s: float) -> None:
    """Hold a lock on a name until it is released, or the session ends."""
    take(connection, name, owner="Session", wait_s=wait_s)


def try_hold(connection: Connection, name: str) -> bool:
    """Take the lock on a name if nobody has it, and hold it; False when another session does."""
    return _taken(connection, name, owner="Session", wait_ms=0) >= 0


def release(connection: Connection, name: str) -> None:
    """Give a lock of the session back; nothing when it has none."""
    fetch(connection, RELEASE, resource(name), resource(name))


def take(connection: Connection, name: str, *, owner: str, wait_s: float) -> None:
    """Take a lock on a name; ContentionError when others keep it. A `wait_s` of 0 has no end."""
    wait_ms = round(wait_s * 1000) or -1
    if (got := _taken(connection, name, owner=owner, wait_ms=wait_ms)) < 0:
        raise ContentionError(
            f"{name}: no lock within {wait_s:g} s (sp_getapplock: {got}); another load is at work. "
            "Trying again is enough."
        )


def resource(name: str) -> str:
    """Return the name of a lock: the server cuts names at 255 characters, and so compares them."""
    return f"naviglio {hashlib.sha256(name.encode()).hexdigest()[:32]} {name}"[:120]


def _taken(connection: Connection, name: str, *, owner: str, wait_ms: int) -> int:
    return int(fetch(connection, lock_statement(owner, wait_ms), resource(name))[0][0])


def _row(values: tuple[object, ...]) -> LedgerRow:
    row = LedgerRow(**dict(zip(_NAMES, values, strict=False)))  # type: ignore[arg-type]  # as stored
    return replace(row, loaded_at_utc=row.loaded_at_utc.replace(tzinfo=UTC))
