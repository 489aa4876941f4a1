"""DuckDB as a system of record, read only: one transaction a snapshot, over the file's own session.

What opens the file keeps it from other processes until it is closed; within this process source and
target share it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import pyarrow as pa

from naviglio.adapters.duckdb.carried import column_of
from naviglio.adapters.duckdb.errors import translate
from naviglio.adapters.duckdb.fit import Found, find
from naviglio.adapters.duckdb.hashing import HASH_SPEC
from naviglio.adapters.duckdb.session import Address, address, connect
from naviglio.adapters.duckdb.session import rows as fetch
from naviglio.adapters.duckdb.sql import DEFAULT_SCHEMA, fold, quote, table
from naviglio.adapters.duckdb.statements import Query
from naviglio.carriers import arrow_schema, key_schema
from naviglio.conditions import Buckets
from naviglio.described import Described, no_table, schema_of
from naviglio.errors import ConfigError, IdentityError, RetryableError
from naviglio.model import (
    KEY_HASH,
    ROW_HASH,
    Column,
    Fence,
    Place,
    TableName,
    TableSchema,
    Window,
)
from naviglio.ports import LOWEST, Digest, Scan, SourceTraits

_BATCH_ROWS = 16_384
_WITHOUT_ORDER = ("JSON", "INTERVAL")


class DuckSource:
    """A file that is read; it belongs to one thread."""

    def __init__(self, url: str) -> None:
        self._at = address(url)
        self._open: duckdb.DuckDBPyConnection | None = None

    @property
    def traits(self) -> SourceTraits:
        """How it differs."""
        return SourceTraits(hash_spec=HASH_SPEC)

    def describe(self, table: TableName, key: Sequence[str]) -> TableSchema:
        """Return the logical schema; an empty `key` asks for the table's primary key."""
        with translated(self._at, f", table {str(table)!r}"):
            connection = self._session()
            catalogue = catalogue_of(connection)
            found = find(connection, catalogue, table)
            if found is None:
                names = fetch(
                    connection,
                    "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND"
                    " lower(schema_name) = lower(?) ORDER BY 1",
                    catalogue, table.schema or DEFAULT_SCHEMA,
                )  # fmt: skip
                raise no_table(f"file {self._at.path!r}", table, (name for (name,) in names))
        return _schema(table, found, tuple(key))

    def fence(self, margin_s: float, safety_lag_s: float | None) -> Fence:
        """Return now less the declared lag; ConfigError without one.

        DuckDB doesn't tell when open transactions began, and whoever writes sets the times.
        """
        if safety_lag_s is None:
            raise ConfigError(
                f"file {self._at.path!r}: DuckDB can't tell how far back an open transaction's "
                "times may lie. Declare `safety_lag`, the longest that a writer takes, or capture "
                "by `diff`."
            )
        with translated(self._at):
            ((now,),) = fetch(self._session(), "SELECT epoch_ns(now())")
        lag_ns = round((max(safety_lag_s, margin_s)) * 1e9)
        point = now - lag_ns
        return Fence(point=point, safety_lag_s=safety_lag_s, held_by="safety_lag", latest=point)

    def above(self, name: TableName, column: Column) -> int:
        """Return the integer above all that are committed in the column."""
        with translated(self._at, f", table {str(name)!r}"):
            connection = self._session()
            source = table(catalogue_of(connection), name)
            ((highest,),) = fetch(connection, f"SELECT max({quote(column.name)}) FROM {source}")
        return LOWEST if highest is None else int(highest) + 1

    @contextmanager
    def snapshot(self) -> Iterator[DuckSnapshot]:
        """Open one snapshot-consistent moment: a transaction, which DuckDB keeps apart."""
        connection = connect(self._at)
        try:
            with translated(self._at):
                connection.execute("BEGIN TRANSACTION")
                snapshot = DuckSnapshot(connection, self._at)
            yield snapshot
        finally:
            with suppress(duckdb.Error):
                connection.execute("ROLLBACK")
            connection.close()

    def close(self) -> None:
        """Free the file; the next question opens it again."""
        connection, self._open = self._open, None
        if connection is not None:
            connection.close()

    def _session(self) -> duckdb.DuckDBPyConnection:
        if self._open is None:
            self._open = connect(self._at)
        return self._open


class DuckSnapshot:
    """One transaction over the file; one read at a time."""

    torn = ""

    def __init__(self, connection: duckdb.DuckDBPyConnection, at: Address) -> None:
        self._connection, self._at = connection, at
        self._catalogue = catalogue_of(connection)  # the first query is where the moment stands
        fetch(connection, "SELECT count(*) FROM duckdb_tables()")
        self._place = _place_of(Path(at.path))

    def place(self, since: Place | None) -> Place:
        """Return which file it is and when it was last written; IdentityError unless it follows."""
        if since is not None and (
            since.incarnation != self._place.incarnation or since.order > self._place.order
        ):
            raise IdentityError(
                f"file {self._at.path!r} is not the one that was captured before: it is "
                f"{self._place.incarnation}, last written at {self._place.order}, and the last "
                f"batch came from {since.incarnation} at {since.order}. If it is meant to be, "
                "`naviglio resnapshot` takes the source as it is now."
            )
        return self._place

    def read(self, scan: Scan) -> Iterator[pa.RecordBatch]:
        """Stream rows in their carriers; memory is bounded by the batch."""
        wanted = arrow_schema(scan.schema) if scan.rows else key_schema(scan.schema)
        for name, asked in ((KEY_HASH, ("key", "both")), (ROW_HASH, ("row", "both"))):
            if scan.hashes in asked:
                wanted = wanted.append(pa.field(name, pa.int64()))
        query = self._query(scan)
        statement = query.rows()
        with self._beside(query) as connection:
            reader = connection.sql(statement).to_arrow_reader(_BATCH_ROWS)
            for batch in reader:
                yield batch.cast(wanted)

    def digest(
        self, scan: Scan, by: Buckets | Sequence[Window], event_time: str = ""
    ) -> list[Digest]:
        """Count and sum rows in the file by bucket of the key hash, or by window."""
        query = self._query(scan)
        if isinstance(by, Buckets):
            statement = query.digest_buckets(by)
        elif by:
            statement = query.digest_windows(by, event_time)
        else:
            return []
        return [Digest(*found) for found in self._rows(query, statement)]

    def count(self, scan: Scan) -> int:
        """Count the rows of a scan."""
        query = self._query(scan)
        ((found,),) = self._rows(query, query.count())
        return found

    def bad_keys(self, scan: Scan) -> list[str]:
        """Return up to five keys (as text) that are NULL or stand on more than one row."""
        query = self._query(scan)
        return [str(key) for (key, *_) in self._rows(query, query.bad_keys())]

    def _query(self, scan: Scan) -> Query:
        with translated(self._at, f", table {str(scan.table)!r}"):
            found = find(self._connection, self._catalogue, scan.table)
        spelled = {c.name: c.spelled for c in found.columns} if found else {}
        if any(spelled.get(c.name) != c.source_type for c in scan.schema.columns):
            raise RetryableError(
                f"{scan.table} was altered or dropped just as the snapshot was taken. Trying again "
                "reads it as it is then."
            )
        return Query(table=table(self._catalogue, scan.table), scan=scan)

    def _rows(self, query: Query, statement: str) -> list[tuple[int, ...]]:
        with self._beside(query) as connection:
            return connection.execute(statement).fetchall()

    @contextmanager
    def _beside(self, query: Query) -> Iterator[duckdb.DuckDBPyConnection]:
        with translated(self._at, f", table {str(query.scan.table)!r}"):
            for name, held in query.beside.items():
                self._connection.register(name, held)
            try:
                yield self._connection
            finally:
                for name in query.beside:
                    self._connection.unregister(name)


@contextmanager
def translated(at: Address, doing: str = "") -> Iterator[None]:
    """Raise DuckDB's errors as the project's."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, f"file {at.path!r}{doing}") from None


def catalogue_of(connection: duckdb.DuckDBPyConnection) -> str:
    """Return what DuckDB calls the file."""
    return str(fetch(connection, "SELECT current_database()")[0][0])


def _place_of(path: Path) -> Place:
    """The file's place is its inode, and when it or its log was last written."""
    stat, log = path.stat(), path.with_name(f"{path.name}.wal")
    written = max(stat.st_mtime_ns, log.stat().st_mtime_ns if log.exists() else 0)
    incarnation = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{stat.st_dev}/{stat.st_ino}"))
    return Place(incarnation=incarnation, order=written)


def _schema(table: TableName, found: Found, key: tuple[str, ...]) -> TableSchema:
    columns = [
        Described(
            name=c.name,
            spelled=c.spelled,
            column=column_of(c.name, c.spelled, nullable=c.nullable),
            fits_key=c.spelled not in _WITHOUT_ORDER,
        )
        for c in found.columns
    ]
    primary, *unique = (
        [c.name for c in columns if fold(c.name) in names]
        for names in (found.primary, *found.unique)
    )
    return schema_of(table, columns, key, primary=primary, unique=unique)
