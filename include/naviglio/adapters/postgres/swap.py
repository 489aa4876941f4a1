"""A table filled beside its target, which takes the target's place: the rows are written once.

It is filled outside of the transaction, in the target's own types; in the transaction it only gets
its name and its key.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pyarrow as pa

from naviglio.adapters.postgres import ledger
from naviglio.adapters.postgres import merge as sql
from naviglio.adapters.postgres import staging as stagings
from naviglio.adapters.postgres.errors import is_about_rows, said
from naviglio.adapters.postgres.fit import MADE_BY
from naviglio.adapters.postgres.sql import DEFAULT_SCHEMA, quote, table
from naviglio.carriers import arrow_schema
from naviglio.errors import SwapRefusedError
from naviglio.model import BEYOND, TableName, TableSchema
from naviglio.ports import Staging, TargetFigures

# Their carrier is a text, which COPY can't read as the type.
_CAST_KINDS = frozenset({"number", "time", "interval", "uuid", "jsonb"})
_TABLE = """
SELECT greatest(c.reltuples, 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
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


def figures(
    connection: psycopg.Connection, target: TableName, schema: TableSchema
) -> TargetFigures:
    """Return the target's rows as the server estimates them, and what a swap would lose."""
    found = connection.execute(_TABLE, (target.schema or DEFAULT_SCHEMA, target.table)).fetchone()
    keeps = [
        f"column {column.name!r} is carried as text and cast to its type by a merge"
        for column in schema.columns
        if column.kind in _CAST_KINDS
    ]
    if connection.execute(_DEFAULT_GRANTS, (ledger.SCHEMA,)).fetchone() is not None:
        keeps.append(f"tables of schema {ledger.SCHEMA!r} have default privileges")
    if found is not None:
        keeps.append("the table itself, with whatever belongs to it")
    return TargetFigures(rows=None if found is None else found[0], keeps=tuple(keeps))


def fill(
    connection: psycopg.Connection,
    attempt: str,
    schema: TableSchema,
    batches: Iterator[pa.RecordBatch],
) -> Staging:
    """Create and fill the table of an attempt; SwapRefusedError for rows that need a merge."""
    name = stagings.staging_table(attempt)
    try:
        with connection.transaction():
            connection.execute(f"DROP TABLE IF EXISTS {name}")
            connection.execute(sql.create_target(name, schema))
            wanted = arrow_schema(schema)
            wanted = wanted.remove(wanted.get_field_index(BEYOND))
            counted = stagings.Counted(_plain(batches), wanted)
            # Frozen rows are written once, also for whoever began to read before the commit.
            copied = stagings.copy(connection, name, counted, options="FORMAT binary, FREEZE")
    except psycopg.Error as error:
        if is_about_rows(error):  # a merge finds out which
            raise SwapRefusedError(f"the server refused a row: {said(error)}") from None
        raise
    return Staging(
        name=name, attempt=attempt, rows=copied, whole=True, has_beyond=False, beside=True
    )


def into_place(
    connection: psycopg.Connection, target: TableName, schema: TableSchema, staging: Staging
) -> None:
    """Make the filled table the target, which is absent, and give it its key."""
    schema_name = target.schema or DEFAULT_SCHEMA
    ledger.ensure_schema(connection, schema_name)
    name = staging.name.rpartition(".")[2]
    connection.execute(f"ALTER TABLE {staging.name} SET SCHEMA {quote(schema_name)}")
    moved = f"{quote(schema_name)}.{name}"
    connection.execute(f"ALTER TABLE {moved} RENAME TO {quote(target.table)}")
    connection.execute(f"COMMENT ON TABLE {table(target)} IS '{MADE_BY}.'")
    for right, grantee, more in connection.execute(_DEFAULT_GRANTS, (schema_name,)).fetchall():
        option = " WITH GRANT OPTION" if more else ""
        connection.execute(f"GRANT {right} ON {table(target)} TO {grantee}{option}".encode())
    connection.execute(sql.add_key(target, schema.key))


def _plain(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Pass batches on; SwapRefusedError for values that no carrier holds."""
    for batch in batches:
        beyond = batch.column(BEYOND)
        if beyond.null_count < len(beyond):
            raise SwapRefusedError("some values are beyond what their carrier holds")
        yield batch
