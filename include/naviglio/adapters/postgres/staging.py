"""Staging tables: filled by binary COPY, living as long as the session that filled them.

The session that stages holds an advisory lock on its attempt. So a staging table whose attempt's
lock is free belongs to the dead, and anybody may drop it; nobody ever needs to guess by age.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import closing

import psycopg
import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder

from naviglio.adapters.postgres.ahead import ahead
from naviglio.adapters.postgres.ledger import SCHEMA
from naviglio.adapters.postgres.merge import create_staging
from naviglio.adapters.postgres.sql import columns, quote
from naviglio.carriers import arrow_schema
from naviglio.errors import DataError, TargetError
from naviglio.model import BEYOND, OP, TableSchema
from naviglio.ports import Staging

PREFIX = "s_"
_NAME_BYTES = 63
_ROWS_AT_ONCE = 8_192  # encoded in memory; more at once is not faster
_LOCK = "hashtextextended('naviglio staging ' || %s, 0)"


def staging_table(attempt: str) -> str:
    """Return the quoted name of an attempt's staging table; ValueError when it is too long."""
    name = PREFIX + attempt
    if len(name.encode()) > _NAME_BYTES:
        raise ValueError(f"Attempt {attempt!r} is too long for a name of {_NAME_BYTES} bytes.")
    return f"{quote(SCHEMA)}.{quote(name)}"


def hold(connection: psycopg.Connection, attempt: str) -> None:
    """Hold the attempt's lock until the session ends."""
    connection.execute(f"SELECT pg_advisory_lock({_LOCK})", (attempt,))


def fill(
    connection: psycopg.Connection,
    attempt: str,
    schema: TableSchema,
    batches: Iterator[pa.RecordBatch],
    *,
    whole: bool,
) -> Staging:
    """Create and fill the staging table of an attempt in one transaction: all of it or nothing."""
    name = staging_table(attempt)
    with connection.transaction():
        connection.execute(f"DROP TABLE IF EXISTS {name}")
        connection.execute(create_staging(name, schema, whole=whole))
        counted = Counted(batches, arrow_schema(schema, changes=not whole))
        copied = copy(connection, name, counted)
        # Without statistics a delete's anti-join may be planned as a loop over the whole staging.
        # A sample of 3,000 rows is enough for that; 30,000 cost a seventh of the COPY.
        connection.execute("SET LOCAL default_statistics_target = 10")
        analysed = [*schema.key] if whole else [*schema.key, OP]
        connection.execute(f"ANALYZE {name} ({columns(analysed)})")
    return Staging(
        name=name, attempt=attempt, rows=copied, whole=whole, has_beyond=counted.has_beyond
    )


def sweep(connection: psycopg.Connection, mine: Collection[str] = ()) -> None:
    """Drop the staging tables of dead attempts; `mine` are alive in this very session."""
    tables = connection.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind = 'r' AND starts_with(c.relname, %s)"
        " AND pg_has_role(c.relowner, 'USAGE')",
        (SCHEMA, PREFIX),
    ).fetchall()
    for (table,) in tables:
        attempt = table.removeprefix(PREFIX)
        if attempt not in mine:
            _drop_if_dead(connection, attempt)


def _drop_if_dead(connection: psycopg.Connection, attempt: str) -> None:
    with connection.transaction():
        free = connection.execute(f"SELECT pg_try_advisory_xact_lock({_LOCK})", (attempt,))
        if free.fetchone() == (True,):
            connection.execute(f"DROP TABLE IF EXISTS {staging_table(attempt)}")


def copy(
    connection: psycopg.Connection, name: str, batches: Counted, options: str = "FORMAT binary"
) -> int:
    """Send batches by COPY; return the rows that the server counts.

    Raises TargetError where it counts others than were sent.
    """
    encoder = ArrowToPostgresBinaryEncoder(batches.schema)
    statement = f"COPY {name} ({columns(batches.schema.names)}) FROM STDIN ({options})"
    with connection.cursor() as cursor:
        try:
            # A thread encodes while the server takes what was sent; nothing of it needs cancelling.
            with (
                closing(ahead(map(encoder.write_batch, batches), lambda: None)) as encoded,
                cursor.copy(statement) as sent,
            ):
                sent.write(encoder.write_header())
                for data in encoded:
                    sent.write(data)
                sent.write(encoder.finish())
        except psycopg.errors.CharacterNotInRepertoire as error:
            raise DataError(
                f"staging {name}: {_column(error)} holds a text with a NUL, which PostgreSQL can't "
                "store. Nothing was loaded. Correct the text at its source."
            ) from None
        if cursor.rowcount != batches.rows:
            raise TargetError(
                f"staging {name}: {batches.rows} rows were sent, the server counts "
                f"{cursor.rowcount}."
            )
        return cursor.rowcount


def _column(error: psycopg.Error) -> str:
    found = re.search(r", column (.*)\Z", error.diag.context or "", re.DOTALL)
    return f"column {found[1]!r}" if found else "a column"


class Counted:
    """Batches in the order and types of the staging table, cut small, counted as they pass."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        self._batches = batches
        self.schema = schema
        self.rows = 0
        self.has_beyond = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            staged = batch.select(self.schema.names).cast(self.schema)
            self.rows += staged.num_rows
            beyond = batch.column(BEYOND)
            self.has_beyond |= beyond.null_count < len(beyond)
            for start in range(0, staged.num_rows, _ROWS_AT_ONCE):
                yield staged.slice(start, _ROWS_AT_ONCE)
