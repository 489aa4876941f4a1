"""SQL Server as a system of record, read only: one SNAPSHOT transaction for all reads of a capture.

Not yet run against a server; see docs/mssql.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import mssql_python
import pyarrow as pa
import pyarrow.compute as pc
from mssql_python import Connection

from naviglio.adapters.mssql.carried import WITHOUT_ORDER, beside, column_of
from naviglio.adapters.mssql.errors import translated
from naviglio.adapters.mssql.fit import Found, find
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.hashing import HASH_SPEC, joined
from naviglio.adapters.mssql.session import address, connect, readers
from naviglio.adapters.mssql.sql import DEFAULT_SCHEMA, table
from naviglio.adapters.mssql.statements import Query
from naviglio.carriers import arrow_schema, key_schema
from naviglio.errors import ConfigError, IdentityError, RetryableError, SourceError
from naviglio.model import (
    BEYOND,
    KEY_HASH,
    RESERVED,
    ROW_HASH,
    Column,
    Fence,
    Place,
    TableName,
    TableSchema,
    Window,
)
from naviglio.ports import Both, Buckets, Condition, Digest, Keys, Scan, SourceTraits

BATCH_ROWS = 16_384
KEYS_A_STATEMENT = 20_000
PRIMARY = """
SELECT c.name
FROM sys.indexes AS i
JOIN sys.index_columns AS k
  ON k.object_id = i.object_id AND k.index_id = i.index_id AND k.key_ordinal > 0
JOIN sys.columns AS c ON c.object_id = i.object_id AND c.column_id = k.column_id
WHERE i.object_id = ? AND i.is_primary_key = 1
ORDER BY k.key_ordinal
"""
TABLES = """
SELECT o.name FROM sys.objects AS o JOIN sys.schemas AS n ON n.schema_id = o.schema_id
WHERE n.name = ? AND o.type IN ('U', 'V') ORDER BY o.name
"""
HERE = """
SELECT d.snapshot_isolation_state, COALESCE(CAST(r.family_guid AS char(36)), ''),
       COALESCE(CAST(r.recovery_fork_guid AS char(36)), ''),
       COALESCE(CAST(d.service_broker_guid AS char(36)), ''), CAST(@@DBTS AS bigint)
FROM sys.databases AS d
LEFT JOIN sys.database_recovery_status AS r ON r.database_id = d.database_id
WHERE d.database_id = DB_ID()
"""
# A SNAPSHOT transaction stands from its first read of a user's table, not from its begin.
FIRST_TABLE = """
SELECT TOP (1) n.name, o.name
FROM sys.objects AS o JOIN sys.schemas AS n ON n.schema_id = o.schema_id
WHERE o.type = 'U' AND o.is_ms_shipped = 0
  AND HAS_PERMS_BY_NAME(QUOTENAME(n.name) + N'.' + QUOTENAME(o.name), N'OBJECT', N'SELECT') = 1
ORDER BY o.object_id
"""
NOW = (
    "SELECT DATEDIFF_BIG(microsecond, CAST('1970-01-01' AS datetime2(6)),"
    " CAST(SYSUTCDATETIME() AS datetime2(6)))"
)
BEGIN = ("SET TRANSACTION ISOLATION LEVEL SNAPSHOT", "BEGIN TRANSACTION")


class MssqlSource:
    """A database that is read; sessions of snapshots are kept as the URL says."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._reading = readers(url)
        self._where = f"database {address(url).database!r}"
        self._open: Connection | None = None

    @property
    def traits(self) -> SourceTraits:
        """How it differs."""
        return SourceTraits(hash_spec=HASH_SPEC)

    def describe(self, table: TableName, key: Sequence[str]) -> TableSchema:
        """Return the logical schema; an empty `key` asks for the table's primary key."""
        with translated(f"{self._where}, table {str(table)!r}", SourceError):
            connection = self._connected()
            found = find(connection, table)
            if found is None:
                names = [n for (n,) in fetch(connection, TABLES, table.schema or DEFAULT_SCHEMA)]
                raise ConfigError(
                    f"{self._where} has no table {str(table)!r}; its schema has {names}. "
                    "Correct it."
                )
            if "SELECT" in found.lacking_rights:
                raise ConfigError(f"{self._where}: no right to read {table}. Grant it SELECT.")
            primary = tuple(name for (name,) in fetch(connection, PRIMARY, found.id))
        return schema_of(table, found, tuple(key), primary)

    def fence(self, margin_s: float, safety_lag_s: float | None) -> Fence:
        """Return the server's clock less the declared lag; ConfigError without one.

        The begin of open transactions, which the server tells, is local time: an hour is missing
        from it when the clocks go back, so it bounds nothing.
        """
        if safety_lag_s is None:
            raise ConfigError(
                f"{self._where}: SQL Server tells when open transactions began only in local time, "
                "which goes back once a year. Declare `safety_lag`, the longest that a writer "
                "takes, or capture by `diff`."
            )
        with translated(self._where, SourceError):
            ((now_us,),) = fetch(self._connected(), NOW)
        lag_us = round(max(safety_lag_s, margin_s) * 1_000_000)
        point = (int(now_us) - lag_us) * 1000
        return Fence(point=point, safety_lag_s=safety_lag_s, held_by="safety_lag")

    @contextmanager
    def snapshot(self) -> Iterator[MssqlSnapshot]:
        """Open one SNAPSHOT transaction; ConfigError where the database allows none."""
        with self._reading.session() as connection:
            with translated(self._where, SourceError):
                snapshot = MssqlSnapshot(connection, self._where)
            yield snapshot

    def close(self) -> None:
        """Give back the connections; a later question opens others."""
        self._reading.close()
        connection, self._open = self._open, None
        if connection is not None:
            with suppress(mssql_python.Error):
                connection.close()

    def _connected(self) -> Connection:
        if self._open is not None:
            try:
                fetch(self._open, "SELECT 1")
            except mssql_python.Error:
                self.close()
        if self._open is None:
            self._open = connect(self._url, owner=SourceError)
        return self._open


class MssqlSnapshot:
    """One SNAPSHOT transaction; one read at a time."""

    def __init__(self, connection: Connection, where: str) -> None:
        self._connection, self._where = connection, where
        ((state, family, fork, broker, order),) = fetch(connection, HERE)
        if state != 1:
            raise ConfigError(
                f"{where} allows no SNAPSHOT isolation, so reads of different moments could not be "
                "told from deletes. Have its owner run: ALTER DATABASE CURRENT SET "
                "ALLOW_SNAPSHOT_ISOLATION ON"
            )
        for statement in BEGIN:
            connection.execute(statement).close()
        for schema, name in fetch(connection, FIRST_TABLE):
            fetch(
                connection, f"SELECT TOP (1) 1 FROM {table(TableName(schema=schema, table=name))}"
            )
        incarnation = f"{family}/{fork}" if family else str(broker)
        self._place = Place(incarnation=incarnation, order=int(order))

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
            found = find(self._connection, scan.table)
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


def split(condition: Condition) -> Iterator[Condition]:
    """Divide a condition over many keys into ones that together hold the same rows, each once."""
    if isinstance(condition, Keys):
        distinct = condition.keys.group_by(condition.keys.column_names).aggregate([])
        for start in range(0, max(distinct.num_rows, 1), KEYS_A_STATEMENT):
            yield Keys(keys=distinct.slice(start, KEYS_A_STATEMENT))
    elif isinstance(condition, Both):
        for one in split(condition.one):
            for other in split(condition.other):
                yield replace(condition, one=one, other=other)
    else:
        yield condition


def decoded(batch: pa.RecordBatch, scan: Scan) -> pa.RecordBatch:
    """Return a batch in its carriers, from the forms in which its values travelled."""
    wanted = arrow_schema(scan.schema) if scan.rows else key_schema(scan.schema)
    for name, asked in ((KEY_HASH, ("key", "both")), (ROW_HASH, ("both",))):
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


def schema_of(
    name: TableName, found: Found, key: tuple[str, ...], primary: tuple[str, ...]
) -> TableSchema:
    """Return the schema with its key: the declared one, or else the primary key."""
    logical = [column_of(column) for column in found.columns]
    if refused := [
        f"{c.name!r} of type {c.spelled}"
        for c, made in zip(found.columns, logical, strict=True)
        if made is None
    ]:
        raise ConfigError(
            f"{name}: no faithful carrier for {', '.join(refused)}. Read the table through a view "
            "that leaves these columns out or casts them to text."
        )
    columns = tuple(column for column in logical if column is not None)
    names = [column.name for column in columns]
    if taken := sorted(set(names) & set(RESERVED)):
        raise ConfigError(
            f"{name}: the names {taken} are reserved (all of {list(RESERVED)} are). Read the table "
            "through a view that renames them."
        )
    chosen = key or primary
    if not chosen:
        raise ConfigError(f"{name} has no primary key. Declare `key`; its columns are {names}.")
    if absent := [column for column in chosen if column not in names]:
        raise ConfigError(f"{name} has no column {absent[0]!r}; it has {names}. Correct `key`.")
    of_key = [column for column in columns if column.name in chosen]
    if unfit := [f"{c.name!r} ({c.source_type})" for c in of_key if c.source_type in WITHOUT_ORDER]:
        raise ConfigError(f"{name}: {', '.join(unfit)} can't stand in a key. Choose another.")
    vouched = any(unique <= set(chosen) for unique in found.unique)
    filled = all(not column.nullable for column in of_key)
    return TableSchema(columns=columns, key=chosen, key_is_unique=vouched and filled)
