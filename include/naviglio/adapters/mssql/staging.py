"""Staging tables: filled by the driver's bulk copy, living as long as the session that made them.

Bulk copy has a connection of its own, so the table is created and committed first; a transaction
that is rolled back doesn't undo the copy. The session that stages holds an application lock on its
attempt: a staging table whose attempt's lock is free belongs to the dead, and anybody may drop it.

Columns are called c1, c2 ...: a name that a user wrote never goes through the bulk copy.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress

import mssql_python
import pyarrow as pa
import pyarrow.compute as pc
from mssql_python import Connection

from naviglio.adapters.mssql import ledger
from naviglio.adapters.mssql.ddl import OWN_TEXT, staged_type
from naviglio.adapters.mssql.errors import number_of, said, translate
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.ledger import SCHEMA
from naviglio.adapters.mssql.sql import MOST_CHARACTERS, quote
from naviglio.adapters.mssql.tally import Tally, differences, figures_query
from naviglio.carriers import arrow_schema
from naviglio.errors import DataError, RetryableError, TargetError
from naviglio.model import BEYOND, OP, Column, TableSchema
from naviglio.ports import Staging

_PREFIX, BESIDE = "s_", "b_"  # of what is merged, and of what takes a target's place
# In the words of the core that copies, which is not the ODBC driver.
_LOST = re.compile(
    r"connection (is |was |has been )?(closed|broken|aborted)|unexpected (end of file|EOF)"
    r"|not connected|Failed to (receive|send)",
    re.IGNORECASE,
)
STAGINGS = (
    "SELECT o.name FROM sys.objects AS o JOIN sys.schemas AS n ON n.schema_id = o.schema_id"
    " WHERE n.name = ? AND o.type = N'U' AND LEFT(o.name, 2) IN (N's_', N'b_')"
)


def staging_table(attempt: str) -> str:
    """Return the quoted name of an attempt's staging table; ValueError when it is too long."""
    name = _PREFIX + attempt
    if len(name) > MOST_CHARACTERS:
        raise ValueError(f"Attempt {attempt!r} is too long for a name of {MOST_CHARACTERS}.")
    return f"{quote(SCHEMA)}.{quote(name)}"


def staged_names(schema: TableSchema) -> dict[str, str]:
    """Return the staging table's name of each column."""
    return {column.name: f"c{place}" for place, column in enumerate(schema.columns, 1)}


def create_staging(name: str, schema: TableSchema, *, whole: bool) -> str:
    """Return the statement that creates a staging table (`name` is quoted)."""
    names = staged_names(schema)
    defined = [f"{quote(names[c.name])} {_staged(c)} NULL" for c in schema.columns]
    defined.append(f"{quote(BEYOND)} {OWN_TEXT} NULL")
    if not whole:
        defined.append(f"{quote(OP)} nvarchar(6) NOT NULL")
    return f"CREATE TABLE {name} ({', '.join(defined)})"


def drop_staging(name: str) -> str:
    """Return the statement that drops a staging table (`name` is quoted)."""
    return f"DROP TABLE IF EXISTS {name}"


def fill(
    connection: Connection,
    attempt: str,
    schema: TableSchema,
    batches: Iterator[pa.RecordBatch],
    *,
    whole: bool,
) -> Staging:
    """Create and fill the staging table of an attempt: all of it, proven, or nothing."""
    name = staging_table(attempt)
    _run(connection, drop_staging(name))
    _run(connection, create_staging(name, schema, whole=whole))
    try:
        stream = Stream(batches, schema, whole=whole)
        _copy(connection, name, stream)
        _prove(connection, name, stream)
    except BaseException:
        with suppress(mssql_python.Error):
            _run(connection, drop_staging(name))
        raise
    return Staging(
        name=name, attempt=attempt, rows=stream.tally.rows, whole=whole,
        has_beyond=stream.has_beyond,
    )  # fmt: skip


def sweep(connection: Connection, mine: Collection[str] = ()) -> None:
    """Drop the staging tables of dead attempts; `mine` are alive in this very session."""
    for (table,) in fetch(connection, STAGINGS, SCHEMA):
        attempt = table[len(_PREFIX) :]
        if attempt in mine or not ledger.try_hold(connection, lock_name(attempt)):
            continue
        try:
            _run(connection, drop_staging(f"{quote(SCHEMA)}.{quote(table)}"))
        finally:
            ledger.release(connection, lock_name(attempt))


def drop(connection: Connection, staging: Staging) -> None:
    """Drop the tables of a staging."""
    _run(connection, drop_staging(staging.name))
    if staging.beside:
        _run(connection, drop_staging(f"{quote(SCHEMA)}.{quote(BESIDE + staging.attempt)}"))


def lock_name(attempt: str) -> str:
    """Return the name that an attempt's session locks."""
    return f"staging {attempt}"


class Stream:
    """Batches in the order, names and types of the staging table, counted as they pass."""

    def __init__(
        self, batches: Iterator[pa.RecordBatch], schema: TableSchema, *, whole: bool
    ) -> None:
        self._batches = batches
        self._logical = schema
        self._carriers = arrow_schema(schema, changes=not whole)
        names = staged_names(schema)
        self.schema = pa.schema(
            [one.with_name(names.get(one.name, one.name)) for one in self._carriers]
        )
        self.tally = Tally(self.schema, names[schema.key[0]])
        self.has_beyond = False
        self.error: BaseException | None = None  # what the feed itself raised

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                if batch.num_rows:
                    yield self._staged(batch)
        except BaseException as error:
            self.error = error
            raise

    def _staged(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        carried = batch.select(self._carriers.names).cast(self._carriers)
        beyond = carried.column(BEYOND)
        self.has_beyond |= beyond.null_count < len(beyond)
        for column in self._logical.columns:
            if column.kind in ("float32", "float64"):
                _refuse_infinite(carried, column, self._logical.key)
        staged = pa.RecordBatch.from_arrays(carried.columns, schema=self.schema)
        self.tally.add(staged)
        return staged


def _refuse_infinite(batch: pa.RecordBatch, column: Column, key: tuple[str, ...]) -> None:
    """Refuse NaN and infinity, of which SQL Server's floats have no image, by name."""
    bad = pc.invert(pc.is_finite(batch.column(column.name)))
    if pc.any(bad).as_py():
        place = pc.index(bad, value=True).as_py()
        which = ", ".join(f"{name}={batch.column(name)[place].as_py()}" for name in key)
        raise DataError(
            f"column {column.name!r}: NaN or infinity, which SQL Server's {column.kind} has not; "
            f"key ({which}). Nothing was loaded. Correct the row at its source."
        )


def _copy(connection: Connection, name: str, stream: Stream) -> None:
    batches = iter(stream)
    first = next(batches, None)
    if first is None:
        return
    reader = pa.RecordBatchReader.from_batches(stream.schema, _chained(first, batches))
    cursor = connection.cursor()
    try:
        cursor.bulkcopy_arrow(
            name, reader, batch_size=0, timeout=connection.timeout, table_lock=True,
            keep_nulls=True,
        )  # fmt: skip
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of the driver's core is no Exception
        raise stream.error or _refusal(error, name) from None
    finally:
        cursor.close()


def _prove(connection: Connection, name: str, stream: Stream) -> None:
    """Compare what the server has with what was sent."""
    stored = fetch(connection, figures_query(name, stream.schema, stream.tally.key))[0]
    if differing := differences(stream.tally.figures, stored, stream.schema):
        raise RetryableError(
            f"staging {name}: {stream.tally.rows} rows were sent, the server has {stored[0]}; "
            f"the checksum differs in {', '.join(differing)}. Nothing was loaded."
        )


def _refusal(error: BaseException, name: str) -> Exception:
    """Return the project's error for one of the bulk copy's, whose text may hold a value."""
    where = f"staging {name}, bulk copy"
    if isinstance(error, mssql_python.Error) or number_of(error) is not None:
        return translate(error, where, TargetError)
    if _LOST.search(str(error)):
        return RetryableError(
            f"{where}: the connection was lost. Trying again is enough once the server is back."
        )
    told = re.split(r"['\"`\d]", said(error))[0].strip(" :,.=")  # what follows may be a value
    return TargetError(f"{where}: {type(error).__name__}: {told}.")


def _chained(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others


def _staged(column: Column) -> str:
    # A collation that no database's default changes: staged text is compared by its target's own.
    text = column.carrier == "string"
    return staged_type(column) + (" COLLATE Latin1_General_100_BIN2" if text else "")


def _run(connection: Connection, statement: str) -> None:
    connection.execute(statement).close()
