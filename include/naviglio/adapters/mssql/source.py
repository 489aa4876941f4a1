"""SQL Server as a system of record, read only: schema, fences and snapshots.

Not yet run against a server; see docs/mssql.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress

import mssql_python
from mssql_python import Connection

from naviglio import described
from naviglio.adapters.mssql.carried import ORDERS, WITHOUT_ORDER, column_of
from naviglio.adapters.mssql.errors import translated
from naviglio.adapters.mssql.fence import DECLARED, read_fence, read_version
from naviglio.adapters.mssql.fit import Found, find
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.hashing import HASH_SPEC
from naviglio.adapters.mssql.session import address, connect, readers
from naviglio.adapters.mssql.snapshot import MssqlSnapshot, open_snapshot
from naviglio.adapters.mssql.sql import DEFAULT_SCHEMA
from naviglio.adapters.mssql.statements import highest
from naviglio.described import Described, no_table
from naviglio.errors import ConfigError, SourceError
from naviglio.model import Column, Fence, TableName, TableSchema
from naviglio.ports import LOWEST, SourceTraits

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
IN_MEMORY = "SELECT is_memory_optimized FROM sys.tables WHERE object_id = ?"
# The server shows other values in their place, and no error.
HIDDEN = """
SELECT c.name, CASE WHEN c.encryption_type IS NULL THEN 'masked' ELSE 'encrypted' END
FROM sys.columns AS c
WHERE c.object_id = ? AND (c.encryption_type IS NOT NULL OR (c.is_masked = 1
  AND COALESCE(HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'UNMASK'), 0) = 0
  AND COALESCE(HAS_PERMS_BY_NAME(QUOTENAME(OBJECT_SCHEMA_NAME(c.object_id)) + N'.'
               + QUOTENAME(OBJECT_NAME(c.object_id)), N'OBJECT', N'UNMASK'), 0) = 0))
ORDER BY c.column_id
"""


class MssqlSource:
    """A database that is read; sessions of snapshots are kept as the URL says."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._reading = readers(url)
        self._where = f"database {address(url).database!r}"
        self._open: Connection | None = None
        self._fenced = False

    @property
    def traits(self) -> SourceTraits:
        """How it differs."""
        return SourceTraits(hash_spec=HASH_SPEC, orders=ORDERS)

    def describe(self, table: TableName, key: Sequence[str]) -> TableSchema:
        """Return the logical schema; an empty `key` asks for the table's primary key."""
        with translated(f"{self._where}, table {str(table)!r}", SourceError):
            connection = self._connected()
            found = find(connection, table)
            if found is None:
                names = [n for (n,) in fetch(connection, TABLES, table.schema or DEFAULT_SCHEMA)]
                raise no_table(self._where, table, names)
            if "SELECT" in found.lacking_rights:
                raise ConfigError(f"{self._where}: no right to read {table}. Grant it SELECT.")
            self._refuse_unreadable(connection, table, found.id)
            primary = tuple(name for (name,) in fetch(connection, PRIMARY, found.id))
        return schema_of(table, found, tuple(key), primary)

    def fence(self, margin_s: float, safety_lag_s: float | None) -> Fence:
        """Return the bound of modification times, read now; ConfigError where it can't be known."""
        with translated(self._where, SourceError):
            connection = self._connected()
        fence = read_fence(connection, self._where, margin_s, safety_lag_s)
        self._fenced = fence.held_by != DECLARED
        return fence

    def above(self, name: TableName, column: Column) -> int:
        """Return the number above all that are committed in the column.

        Of a rowversion, the least that an open transaction wrote, or that is written next.
        """
        with translated(self._where, SourceError):
            connection = self._connected()
        if ORDERS.get(column.source_type) == "version":
            version = read_version(connection, self._where)
            self._fenced = True
            return version
        with translated(f"{self._where}, table {str(name)!r}", SourceError):
            ((found,),) = fetch(connection, highest(name, column))
        return LOWEST if found is None else int(found) + 1

    def snapshot(self) -> AbstractContextManager[MssqlSnapshot]:
        """Open one moment: a SNAPSHOT transaction where the database allows it, else `torn`."""
        return open_snapshot(self._reading, self._where, fenced=self._fenced)

    def close(self) -> None:
        """Give back the connections; a later question opens others."""
        self._reading.close()
        connection, self._open = self._open, None
        if connection is not None:
            with suppress(mssql_python.Error):
                connection.close()

    def _refuse_unreadable(self, connection: Connection, table: TableName, number: int) -> None:
        if any(in_memory for (in_memory,) in fetch(connection, IN_MEMORY, number)):
            raise ConfigError(
                f"{self._where}: {table} is memory-optimized; neither a snapshot nor a fence holds "
                "for it. Read a copy of it on disk."
            )
        if hidden := [f"{name!r} ({how})" for name, how in fetch(connection, HIDDEN, number)]:
            raise ConfigError(
                f"{self._where}: the server shows other values in place of those of {table}'s "
                f"columns {', '.join(hidden)}. Grant UNMASK for masked ones, or read a view "
                "without them."
            )

    def _connected(self) -> Connection:
        if self._open is not None:
            try:
                fetch(self._open, "SELECT 1")
            except mssql_python.Error:
                self.close()
        if self._open is None:
            self._open = connect(self._url, owner=SourceError)
        return self._open


def schema_of(
    table: TableName, found: Found, key: tuple[str, ...], primary: tuple[str, ...]
) -> TableSchema:
    """Return the schema with its key: the declared one, or else the primary key."""
    columns = [
        Described(
            name=c.name, spelled=c.spelled, column=made,
            fits_key=made is None or made.source_type not in WITHOUT_ORDER,
        )
        for c, made in ((c, column_of(c)) for c in found.columns)
    ]  # fmt: skip
    return described.schema_of(table, columns, key, primary=primary, unique=found.unique)
