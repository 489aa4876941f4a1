"""One REPEATABLE READ, READ ONLY moment of a PostgreSQL database, read through ADBC."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa

from naviglio.adapters.postgres import catalogue, statements
from naviglio.adapters.postgres.ahead import ahead
from naviglio.adapters.postgres.decoding import Decoder
from naviglio.adapters.postgres.places import (
    HERE,
    check_follows,
    check_reached,
    place_from,
    witness_now,
)
from naviglio.adapters.postgres.session import (
    SNAPSHOT_NAME,
    conninfo,
    parted,
    pin,
    pins_of_texts,
    place_of,
    translated_adbc,
)
from naviglio.adapters.postgres.sql import table
from naviglio.conditions import Buckets, split
from naviglio.errors import RetryableError
from naviglio.model import Place, TableName, TableSchema, Window
from naviglio.pool import Pool, Terms, Way, pool_of
from naviglio.ports import Digest, Scan

BATCH_BYTES = 8 << 20  # of what travels; what ADBC decodes to is of the same order
_LOCKABLE = ("r", "p")


def readers(url: str) -> Pool[adbc.Connection]:
    """Return the sessions of snapshots; one that rests has no transaction open."""

    def opened() -> adbc.Connection:
        with translated_adbc(where):
            connection = adbc.connect(conninfo(url, SNAPSHOT_NAME))
            connection.adbc_connection.set_autocommit(True)
        return connection

    where, (_, terms) = place_of(url), parted(url)
    return pool_of("snapshot", url, Way(open=opened, wake=_wake, rest=_rest), terms, where)


def _wake(connection: adbc.Connection) -> bool:
    """Ask the server, then begin a transaction: it stands from its first statement."""
    try:
        with closing(connection.cursor()) as cursor:
            cursor.execute("RESET ROLE")  # whatever was done in it, it is its login's again
        connection.adbc_connection.set_autocommit(False)
    except adbc_driver_manager.Error:
        return False
    return True


def _rest(connection: adbc.Connection) -> bool:
    try:
        connection.rollback()
        connection.adbc_connection.set_autocommit(True)
    except adbc_driver_manager.Error:
        return False
    return True


@contextmanager
def open_snapshot(
    sessions: Pool[adbc.Connection], url: str, fenced_at: int = 0
) -> Iterator[PostgresSnapshot]:
    """Take the snapshot now, in a session of its own.

    `fenced_at` is the position in the log where the fence was read. Raises RetryableError where the
    connection leads to a server that is not there yet: its rows would be missed for ever.
    """
    where, (_, terms) = place_of(url), parted(url)
    with sessions.session() as connection:
        snapshot = PostgresSnapshot(connection, where, terms, fenced_at)
        try:
            yield snapshot
        finally:
            with translated_adbc(where):
                snapshot.leave()


class PostgresSnapshot:
    """One consistent moment; one read at a time.

    A read that its consumer leaves early is cancelled, which ends the snapshot: PostgreSQL aborts
    the transaction. Reading on then raises RetryableError.
    """

    torn = ""

    def __init__(
        self, connection: adbc.Connection, where: str, terms: Terms, fenced_at: int
    ) -> None:
        self._connection = connection
        self._where = where
        self._left_early = False
        self._reading: Generator[pa.RecordBatch, None, None] | None = None
        self._checked: set[tuple[TableName, TableSchema]] = set()
        self._execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for statement in pins_of_texts():
            self._execute(statement)
        [here] = self._rows(HERE)  # takes the snapshot
        check_reached(fenced_at, here["reached"], where)
        self._place = place_from(here)
        self._rows(pin(terms, local=True))

    def place(self, since: Place | None) -> Place:
        """Return where this moment stands; IdentityError unless it follows `since`."""
        if since is not None:
            statement = witness_now(since)
            committed_at = self._rows(statement)[0]["committed_at"] if statement else None
            check_follows(since, self._place, committed_at, self._where)
        return self._place

    def read(self, scan: Scan) -> Iterator[pa.RecordBatch]:
        """Stream rows; a thread decodes a few batches ahead of the consumer."""
        self._check(scan)
        decoder = Decoder(scan)
        picky = isinstance(scan.where, Buckets) and scan.where.numbers is not None
        cost = "0" if picky else "DEFAULT"
        self._execute(f"SET LOCAL parallel_tuple_cost TO {cost}")  # few rows pass, no index knows
        for condition in split(scan.where):
            statement = statements.select_rows(replace(scan, where=condition))
            self._reading = self._stream(statement, decoder)
            yield from self._reading

    def leave(self) -> None:
        """End a read whose consumer failed: closing a connection that is read from crashes.

        Where one was cancelled, the session ends: the cancel may hit whatever comes next in it.
        """
        if self._reading is not None:
            self._reading.close()
        if self._left_early:
            self._connection.close()

    def digest(
        self, scan: Scan, by: Buckets | Sequence[Window], event_time: str = ""
    ) -> list[Digest]:
        """Count and sum rows in the database by bucket of the key hash, or by window."""
        self._check(scan)
        if isinstance(by, Buckets):
            return self._digest_buckets(scan, by)
        if not by:
            return []
        bounds, index = statements.bounds_of(by)
        found = self._columns(statements.digest_windows(scan, bounds, event_time))
        return sorted(
            (
                Digest(index=index[span], rows=rows, checksum=checksum)
                for span, rows, checksum in zip(*found, strict=True)
                if span in index
            ),
            key=lambda digest: digest.index,
        )

    def count(self, scan: Scan) -> int:
        """Count the rows of a scan."""
        self._check(scan)
        parts = [replace(scan, where=condition) for condition in split(scan.where)]
        return sum(int(self._columns(statements.count_rows(part))[0][0]) for part in parts)

    def bad_keys(self, scan: Scan) -> list[str]:
        """Return up to five keys (as text) that are NULL or stand on more than one row."""
        self._check(scan)
        return [str(key) for key in self._columns(statements.bad_keys(scan))[0]]

    def _digest_buckets(self, scan: Scan, by: Buckets) -> list[Digest]:
        found = list(map(Digest, *self._columns(statements.digest_buckets(scan, by.bits))))
        if by.numbers is None:
            return found
        wanted = set(by.numbers)
        return [digest for digest in found if digest.index in wanted]

    def _check(self, scan: Scan) -> None:
        """Hold the table's shape until the end, and see that it is the one that was described."""
        known = (scan.table, scan.schema)
        if known in self._checked:
            return
        with translated_adbc(f"{self._where}, table {scan.table}"):
            found = self._rows(catalogue.relation(scan.table))
            if found and found[0]["kind"] in _LOCKABLE:
                self._execute(f"LOCK TABLE {table(scan.table)} IN ACCESS SHARE MODE")
                stored = self._columns(statements.unchanged_storage(scan.table))[0][0]
            else:
                stored = bool(found)
        columns = self._rows(catalogue.columns(found[0]["oid"])) if stored else []
        spelled = {row["name"]: row["spelled"] for row in columns}
        if any(spelled.get(c.name) != c.source_type for c in scan.schema.columns):
            raise RetryableError(
                f"{scan.table} was altered, truncated or dropped just as the snapshot was taken. "
                "Trying again reads it as it is then."
            )
        self._checked.add(known)

    def _stream(self, statement: str, decoder: Decoder) -> Generator[pa.RecordBatch, None, None]:
        self._refuse_after_cancel()
        with translated_adbc(self._where), closing(self._connection.cursor()) as cursor:
            cursor.adbc_statement.set_options(
                **{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
            )
            cursor.execute(statement)
            with closing(cursor.fetch_record_batch()) as reader:

                def cancel() -> None:
                    self._left_early = True
                    cursor.adbc_cancel()

                batches = ahead(map(decoder.decode, reader), cancel)
                with closing(batches):
                    yield from batches

    def _execute(self, statement: str) -> None:
        self._refuse_after_cancel()
        with translated_adbc(self._where), closing(self._connection.cursor()) as cursor:
            cursor.execute(statement)

    def _table(self, statement: str) -> pa.Table:
        self._refuse_after_cancel()
        with translated_adbc(self._where), closing(self._connection.cursor()) as cursor:
            cursor.execute(statement)
            return cursor.fetch_arrow_table()

    def _rows(self, statement: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._table(statement).to_pylist()
        return rows

    def _columns(self, statement: str) -> list[list[Any]]:
        return [column.to_pylist() for column in self._table(statement).columns]

    def _refuse_after_cancel(self) -> None:
        if self._left_early:
            raise RetryableError(
                f"{self._where}: a read of this snapshot was left early, which ended it."
            )
