"""What a capture reads in: one SNAPSHOT transaction, or committed rows of different moments.

A transaction under SNAPSHOT isolation needs the database owner's leave. Without it every read sees
what is committed as it goes, which is enough for what never takes an absent row for a deleted one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from mssql_python import Connection

from naviglio.adapters.mssql.carried import beside
from naviglio.adapters.mssql.errors import translated
from naviglio.adapters.mssql.fence import SNAPSHOT_MARK, WRITABLE
from naviglio.adapters.mssql.fit import find
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.hashing import joined
from naviglio.adapters.mssql.sql import table
from naviglio.adapters.mssql.statements import Query
from naviglio.carriers import arrow_schema, key_schema
from naviglio.conditions import Buckets, split
from naviglio.errors import IdentityError, RetryableError, SourceError
from naviglio.model import (
    BEYOND,
    KEY_HASH,
    ROW_HASH,
    Column,
    Place,
    TableName,
    Window,
)
from naviglio.pool import Pool
from naviglio.ports import Digest, Scan

BATCH_ROWS = 16_384
HERE = """
SELECT d.snapshot_isolation_state, COALESCE(CAST(d.service_broker_guid AS char(36)), ''),
       CAST(@@DBTS AS bigint), OBJECT_ID(N'sys.database_recovery_status'),
       CAST(DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS nvarchar(60))
FROM sys.databases AS d
WHERE d.database_id = DB_ID()
"""
# Azure SQL Database has no such view.
FORK = """
SELECT COALESCE(CAST(r.family_guid AS char(36)), ''),
       COALESCE(CAST(r.recovery_fork_guid AS char(36)), '')
FROM sys.database_recovery_status AS r
WHERE r.database_id = DB_ID()
"""
# A SNAPSHOT transaction stands from its first read of a user's table, not from its begin. Tables in
# memory refuse it, and external ones are not of this database.
FIRST_TABLE = """
SELECT TOP (1) n.name, o.name
FROM sys.tables AS o JOIN sys.schemas AS n ON n.schema_id = o.schema_id
WHERE o.is_ms_shipped = 0 AND o.is_memory_optimized = 0 AND o.is_external = 0
  AND HAS_PERMS_BY_NAME(QUOTENAME(n.name) + N'.' + QUOTENAME(o.name), N'OBJECT', N'SELECT') = 1
ORDER BY o.object_id
"""
MARK = f"SET CONTEXT_INFO 0x{SNAPSHOT_MARK.hex()}"
COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
BEGIN = ("SET TRANSACTION ISOLATION LEVEL SNAPSHOT", "BEGIN TRANSACTION")
STANDS = "SELECT @@TRANCOUNT"
ALLOW = "ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON"
_ON = 1  # of snapshot_isolation_state; others are off or on their way


@contextmanager
def open_snapshot(
    sessions: Pool[Connection], where: str, *, fenced: bool
) -> Iterator[MssqlSnapshot]:
    """Open a moment over a session of its own; what is kept of it has no transaction open.

    Where a fence was read of the server's own transactions (`fenced`), RetryableError for a
    connection that leads to a replica: what was committed at the fence may not be there yet.
    """
    with sessions.session() as connection:
        with translated(where, SourceError):
            snapshot = MssqlSnapshot(connection, where)
        if fenced and not snapshot.writable:
            raise RetryableError(
                f"{where}: the fence was read of a primary, and the snapshot would be of a replica "
                "that may lag behind it. Trying again is enough; an address of the primary alone "
                "needs no second try."
            )
        yield snapshot


class MssqlSnapshot:
    """One SNAPSHOT transaction, unless `torn`; one read at a time.

    A read that its consumer leaves early is cancelled, which ends the transaction, as XACT_ABORT
    has it. Reading on then raises RetryableError.
    """

    def __init__(self, connection: Connection, where: str) -> None:
        self._connection, self._where = connection, where
        ((state, broker, order, has_fork, updateability),) = fetch(connection, HERE)
        self.writable = updateability == WRITABLE
        forks = fetch(connection, FORK) if has_fork is not None else []
        incarnation = "/".join(forks[0]) if forks and forks[0][0] else str(broker)
        self._place = Place(incarnation=incarnation, order=int(order))
        self.torn = ""
        connection.execute(MARK).close()
        if state != _ON:
            self.torn = f"{where} allows no SNAPSHOT isolation: have its owner run {ALLOW}"
            connection.execute(COMMITTED).close()
            return
        for statement in BEGIN:
            connection.execute(statement).close()
        for schema, name in fetch(connection, FIRST_TABLE):
            fetch(
                connection, f"SELECT TOP (1) 1 FROM {table(TableName(schema=schema, table=name))}"
            )

    def place(self, since: Place | None) -> Place:
        """Return where this moment stands; IdentityError unless it follows `since`."""
        if since is not None and (
            since.incarnation != self._place.incarnation or since.order > self._place.order
        ):
            raise IdentityError(
                f"{self._where} is not the one that was captured before: it is "
                f"{self._place.incarnation} (family/recovery fork) at {self._place.order}, and the "
                f"last batch came from {since.incarnation} at {since.order}. If it is meant to be, "
                "`naviglio resnapshot` takes the source as it is now."
            )
        return self._place

    def read(self, scan: Scan) -> Iterator[pa.RecordBatch]:
        """Stream rows in their carriers; memory is bounded by the batch."""
        self._check(scan)
        for condition in split(scan.where):
            query = Query(scan=replace(scan, where=condition))
            statement = query.rows()
            with self._translated(scan), closing(self._connection.cursor()) as cursor:
                cursor.execute(statement, *([tuple(query.bound)] if query.bound else []))
                with closing(cursor.arrow_reader(BATCH_ROWS)) as reader:
                    for batch in reader:
                        yield decoded(batch, scan)

    def digest(
        self, scan: Scan, by: Buckets | Sequence[Window], event_time: str = ""
    ) -> list[Digest]:
        """Count and sum rows in the database by bucket of the key hash, or by window."""
        query = Query(scan=scan)
        if isinstance(by, Buckets):
            statement = query.digest_buckets(by)
        elif by:
            statement = query.digest_windows(by, event_time)
        else:
            return []
        return sorted(
            Digest(index=int(index), rows=int(rows), checksum=joined(int(upper), int(lower)))
            for index, rows, upper, lower in self._rows(query, statement)
        )

    def count(self, scan: Scan) -> int:
        """Count the rows of a scan."""
        total = 0
        for condition in split(scan.where):
            query = Query(scan=replace(scan, where=condition))
            total += int(self._rows(query, query.count())[0][0])
        return total

    def bad_keys(self, scan: Scan) -> list[str]:
        """Return up to five keys (as text) that are NULL or stand on more than one row."""
        query = Query(scan=scan)
        return [str(key) for (key, *_) in self._rows(query, query.bad_keys())]

    def _rows(self, query: Query, statement: str) -> list[tuple[Any, ...]]:
        self._check(query.scan)
        with self._translated(query.scan):
            return fetch(self._connection, statement, *query.bound)

    def _check(self, scan: Scan) -> None:
        with self._translated(scan):
            ((open_transactions,),) = fetch(self._connection, STANDS)
            found = find(self._connection, scan.table)
        if not self.torn and not open_transactions:
            raise RetryableError(
                f"{self._where}: the snapshot has ended, since a read of it was left early or "
                "failed. Trying again opens another."
            )
        spelled = {c.name: c.spelled for c in found.columns} if found else {}
        if any(spelled.get(c.name) != c.source_type for c in scan.schema.columns):
            raise RetryableError(
                f"{scan.table} was altered or dropped just as the snapshot was taken. Trying again "
                "reads it as it is then."
            )

    @contextmanager
    def _translated(self, scan: Scan) -> Iterator[None]:
        with translated(f"{self._where}, table {str(scan.table)!r}", SourceError):
            yield


def decoded(batch: pa.RecordBatch, scan: Scan) -> pa.RecordBatch:
    """Return a batch in its carriers, from the forms in which its values travelled."""
    wanted = arrow_schema(scan.schema) if scan.rows else key_schema(scan.schema)
    for name, asked in ((KEY_HASH, ("key", "both")), (ROW_HASH, ("row", "both"))):
        if scan.hashes in asked:
            wanted = wanted.append(pa.field(name, pa.int64()))
    known = {column.name: column for column in scan.schema.columns}
    literals = list(beside(scan.schema)) if scan.rows else []
    first = len(known)
    told = dict(zip(literals, batch.columns[first : first + len(literals)], strict=True))
    travelled = dict(zip(_without(wanted), _others(batch, first, len(literals)), strict=True))
    arrays = [
        _beyond(told, batch.num_rows)
        if name == BEYOND
        else _decoded(travelled[name], known.get(name), wanted.field(name).type)
        for name in wanted.names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def _without(wanted: pa.Schema) -> list[str]:
    return [name for name in wanted.names if name != BEYOND]


def _others(batch: pa.RecordBatch, first: int, count: int) -> list[pa.Array]:
    """Return the columns of a batch without those of the literals beside them."""
    return [*batch.columns[:first], *batch.columns[first + count :]] if count else batch.columns


def _beyond(told: Mapping[str, pa.Array], rows: int) -> pa.Array:
    """Return the `_beyond` column: the literals of each row as JSON, NULL where there are none."""
    if all(array.null_count == rows for array in told.values()):
        return pa.nulls(rows, pa.string())
    spelled = []
    for row in zip(*(array.to_pylist() for array in told.values()), strict=True):
        said = {name: text for name, text in zip(told, row, strict=True) if text is not None}
        spelled.append(
            json.dumps(said, ensure_ascii=False, separators=(",", ":")) if said else None
        )
    return pa.array(spelled, pa.string())


def _decoded(array: pa.Array, column: Column | None, carrier: pa.DataType) -> pa.Array:
    if column is not None and column.kind == "time":  # as the source's text has no blank digits
        short = pc.replace_substring_regex(array.cast(pa.string()), r"(\.\d*?)0+$", r"\1")
        return pc.replace_substring_regex(short, r"\.$", "")
    if pa.types.is_date32(carrier):
        return array.cast(pa.int32()).cast(carrier)
    if pa.types.is_timestamp(carrier):
        return array.cast(pa.int64()).cast(carrier)
    return array.cast(carrier)
