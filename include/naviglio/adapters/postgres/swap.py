"""A table filled beside its target, which takes the target's place: the rows are written once.

It is filled outside of the transaction, in the target's own types; in the transaction it only gets
its name. What belongs to a target that is there already goes along, or keeps it from being swapped.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pyarrow as pa

from naviglio.adapters.postgres import belongings, ledger
from naviglio.adapters.postgres import merge as sql
from naviglio.adapters.postgres import staging as stagings
from naviglio.adapters.postgres.errors import is_about_rows, said
from naviglio.adapters.postgres.fit import Found, find
from naviglio.adapters.postgres.sql import DEFAULT_SCHEMA, literal, quote, table
from naviglio.carriers import arrow_schema
from naviglio.errors import SwapRefusedError
from naviglio.model import BEYOND, Column, LoadCounts, TableName, TableSchema
from naviglio.ports import Staging
from naviglio.refusals import MADE_BY

_CAST_KINDS = frozenset({"number", "time", "interval", "uuid", "jsonb"})  # carried as other texts
_TEXTS = ("text", "character varying", "bpchar", "json")  # whose binary form is the text
_READERS_WAIT = "2s"  # at most, for a swap that waits for other readers
_TABLE = """
SELECT c.oid, greatest(c.reltuples, 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind = 'r'
"""
# What ALTER DEFAULT PRIVILEGES gives to tables that are made in a schema: not to those moved there.
_DEFAULT_GRANTS = """
SELECT a.privilege_type, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END,
       a.is_grantable
FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL aclexplode(d.defaclacl) a
LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE d.defaclobjtype = 'r' AND d.defaclrole = current_user::regrole AND n.nspname = %s
"""


def rows(connection: psycopg.Connection, target: TableName) -> int | None:
    """Return a table's rows as the server estimates them; None when there is no table."""
    return _there(connection, target)[1]


def keeps(connection: psycopg.Connection, target: TableName, schema: TableSchema) -> list[str]:
    """Return what a swap would lose, or why there can be none; empty when nothing."""
    found = [
        f"column {column.name!r} is carried as text and cast to its type by a merge"
        for column in schema.columns
        if column.kind in _CAST_KINDS
    ]
    if connection.execute(_DEFAULT_GRANTS, (ledger.SCHEMA,)).fetchone() is not None:
        found.append(f"tables of schema {ledger.SCHEMA!r} have default privileges")
    oid, _ = _there(connection, target)
    there = find(connection, target) if oid else None
    if there is not None:
        found += [*_columns_that_keep(there, schema), *belongings.lost(connection, oid)]
    return found


def fill(
    connection: psycopg.Connection,
    attempt: str,
    target: TableName,
    schema: TableSchema,
    batches: Iterator[pa.RecordBatch],
) -> Staging:
    """Create and fill the table of an attempt; SwapRefusedError for rows that need a merge."""
    name = stagings.staging_table(attempt)
    try:
        with connection.transaction():
            connection.execute(f"DROP TABLE IF EXISTS {name}")
            oid = _create(connection, name, target, schema)
            wanted = arrow_schema(schema)
            wanted = wanted.remove(wanted.get_field_index(BEYOND))
            counted = stagings.Counted(_plain(batches), wanted)
            # Frozen rows are written once, and seen also by whoever began to read before the swap.
            copied = stagings.copy(connection, name, counted, options="FORMAT binary, FREEZE")
            if oid:
                _finish(connection, name, attempt, oid)
    except psycopg.Error as error:
        if is_about_rows(error):  # a merge finds out which
            raise SwapRefusedError(f"the server refused a row: {said(error)}") from None
        raise
    return Staging(
        name=name, attempt=attempt, rows=copied, whole=True, has_beyond=False, beside=True
    )


def into_place(
    connection: psycopg.Connection, target: TableName, schema: TableSchema, staging: Staging
) -> LoadCounts | None:
    """Make the filled table the target; the rows of the one before count as deleted.

    None: it was not made for the table that is there now, or that would lose something, or readers
    hold it.
    """
    oid, _ = _there(connection, target)
    if oid == 0:
        _move(connection, target, staging)
        _dress(connection, target, schema)
        return LoadCounts(inserted=staging.rows)
    old = table(target)
    connection.execute(f"LOCK TABLE {old} IN SHARE ROW EXCLUSIVE MODE")  # readers go on
    (gone,) = connection.execute(f"SELECT count(*) FROM {old}").fetchone() or (0,)
    if not _locked(connection, old):
        return None
    mark = "SELECT obj_description(%s::regclass, 'pg_class')"
    made_for = connection.execute(mark, (staging.name,)).fetchone()
    if made_for != (_mark(connection, oid),) or keeps(connection, target, schema):
        return None
    schema_name = target.schema or DEFAULT_SCHEMA
    carried = [
        belongings.name_index(index, _temporary(staging.attempt, n), schema_name, old)
        for n, index in enumerate(belongings.indexes(connection, oid))
    ]
    carried += belongings.grants(connection, oid, old)
    connection.execute(f"DROP TABLE {old}")
    _move(connection, target, staging)
    for statement in carried:
        connection.execute(statement.encode())
    return LoadCounts(inserted=staging.rows, deleted=int(gone))


def _locked(connection: psycopg.Connection, name: str) -> bool:
    """Lock a table against all; False where readers keep it: new ones would wait behind this."""
    (patience,) = connection.execute("SHOW lock_timeout").fetchone() or ("0",)
    setting = "SELECT set_config('lock_timeout', %s, true)"
    try:
        with connection.transaction():
            connection.execute(setting, (_READERS_WAIT,))
            connection.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
    except psycopg.errors.LockNotAvailable:
        return False
    connection.execute(setting, (patience,))
    return True


def _there(connection: psycopg.Connection, target: TableName) -> tuple[int, int | None]:
    """Return a table's number and its rows as the server estimates them; 0, None when absent."""
    name = (target.schema or DEFAULT_SCHEMA, target.table)
    return connection.execute(_TABLE, name).fetchone() or (0, None)


def _create(
    connection: psycopg.Connection, name: str, target: TableName, schema: TableSchema
) -> int:
    """Create the table, like the target where that is there; return the target's number."""
    oid, _ = _there(connection, target)
    found = find(connection, target) if oid else None
    if found is None:
        connection.execute(sql.create_target(name, schema))
        return 0
    connection.execute(f"CREATE TABLE {name} (LIKE {table(target)} {belongings.LIKE})")
    if lacking := found.lacks(schema):
        connection.execute(sql.add_columns(name, lacking))
    return oid


def _finish(connection: psycopg.Connection, name: str, attempt: str, oid: int) -> None:
    """Build the indexes of the target, and note what the table was made for."""
    for n, index in enumerate(belongings.indexes(connection, oid)):
        statement = belongings.create_index(index, _temporary(attempt, n), name)
        connection.execute(statement.encode())
    connection.execute(f"ANALYZE {name}")  # readers of the target plan by what it held
    connection.execute(f"COMMENT ON TABLE {name} IS {literal(_mark(connection, oid))}".encode())


def _mark(connection: psycopg.Connection, oid: int) -> str:
    return f"for {oid} {belongings.shape(connection, oid)}"


def _temporary(attempt: str, number: int) -> str:
    return f"{stagings.PREFIX}{attempt}_{number}"


def _move(connection: psycopg.Connection, target: TableName, staging: Staging) -> None:
    schema_name, name = target.schema or DEFAULT_SCHEMA, staging.name.rpartition(".")[2]
    ledger.ensure_schema(connection, schema_name)
    connection.execute(f"ALTER TABLE {staging.name} SET SCHEMA {quote(schema_name)}")
    moved = f"{quote(schema_name)}.{name}"
    connection.execute(f"ALTER TABLE {moved} RENAME TO {quote(target.table)}")


def _dress(connection: psycopg.Connection, target: TableName, schema: TableSchema) -> None:
    """Give a new target what a table made in its place would have."""
    name = table(target)
    connection.execute(f"COMMENT ON TABLE {name} IS '{MADE_BY}.'")
    found = connection.execute(_DEFAULT_GRANTS, (target.schema or DEFAULT_SCHEMA,)).fetchall()
    for right, grantee, more in found:
        option = " WITH GRANT OPTION" if more else ""
        connection.execute(f"GRANT {right} ON {name} TO {grantee}{option}".encode())
    connection.execute(sql.add_key(target, schema.key))


def _columns_that_keep(found: Found, schema: TableSchema) -> Iterator[str]:
    """Yield columns whose values only the target has, or that COPY can't fill from the lake."""
    wanted = {column.name: column for column in schema.columns}
    for column in found.columns:
        source = wanted.get(column.name)
        if source is None and not column.computed:
            yield f"the values of column {column.name!r}, which the lake does not have"
        elif source is not None and not _is_direct(source, column.base):
            yield f"column {column.name!r} is {column.base}, to which a merge casts"


def _is_direct(column: Column, base: str) -> bool:
    if column.carrier == "string":
        return base in _TEXTS
    return base == sql.staged_type(column)


def _plain(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Pass batches on; SwapRefusedError for values that no carrier holds."""
    for batch in batches:
        beyond = batch.column(BEYOND)
        if beyond.null_count < len(beyond):
            raise SwapRefusedError("some values are beyond what their carrier holds")
        yield batch
