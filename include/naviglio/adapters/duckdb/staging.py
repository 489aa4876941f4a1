"""Staging tables: temporary ones, so they end with the session and no crash leaves one behind."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from naviglio.adapters.duckdb.sql import quote, refuse_alike
from naviglio.adapters.duckdb.types import TEXT, staged_type
from naviglio.carriers import arrow_schema
from naviglio.model import BEYOND, OP, TableSchema
from naviglio.ports import Staging


def staging_table(attempt: str) -> str:
    """Return the quoted name of an attempt's staging table."""
    return f"{quote('temp')}.{quote('main')}.{quote(f's_{attempt}')}"


def create_staging(name: str, schema: TableSchema, *, whole: bool) -> str:
    """Return the statement that creates a staging table (`name` is quoted)."""
    defined = [f"{quote(c.name)} {staged_type(c)}" for c in schema.columns]
    defined.append(f"{quote(BEYOND)} {TEXT}")
    if not whole:
        defined.append(f"{quote(OP)} {TEXT} NOT NULL")
    return f"CREATE OR REPLACE TEMP TABLE {name} ({', '.join(defined)})"


def drop_staging(name: str) -> str:
    """Return the statement that drops a staging table (`name` is quoted)."""
    return f"DROP TABLE IF EXISTS {name}"


def fill(
    connection: duckdb.DuckDBPyConnection,
    attempt: str,
    schema: TableSchema,
    batches: Iterator[pa.RecordBatch],
    *,
    whole: bool,
) -> Staging:
    """Create and fill the staging table of an attempt: all of it or nothing.

    DuckDB pulls the batches as it goes, and reads their memory where it is.
    """
    refuse_alike(schema)
    name, view = staging_table(attempt), f"feed_{uuid.uuid4().hex}"
    connection.execute(create_staging(name, schema, whole=whole))
    stream = _Stream(batches, arrow_schema(schema, changes=not whole))
    try:
        connection.register(view, pa.RecordBatchReader.from_batches(stream.schema, stream.read()))
        try:
            connection.execute(f"INSERT INTO {name} SELECT * FROM {quote(view)}")
        finally:
            connection.unregister(view)
    except BaseException:
        connection.execute(drop_staging(name))
        if stream.error is not None:
            raise stream.error from None
        raise
    return Staging(
        name=name, attempt=attempt, rows=stream.rows, whole=whole, has_beyond=stream.has_beyond
    )


class _Stream:
    """Batches in the order and types of the staging table, counted as they pass."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        self._batches = batches
        self.schema = schema
        self.rows = 0
        self.has_beyond = False
        self.error: BaseException | None = None  # what the feed itself raised

    def read(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                staged = batch.select(self.schema.names).cast(self.schema)
                self.rows += staged.num_rows
                beyond = staged.column(BEYOND)
                self.has_beyond |= beyond.null_count < len(beyond)
                yield staged
        except BaseException as error:
            self.error = error
            raise
