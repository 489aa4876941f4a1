"""PostgreSQL as a system of record, read only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from naviglio.adapters.postgres import catalogue
from naviglio.adapters.postgres.errors import translated
from naviglio.adapters.postgres.fence import read_fence
from naviglio.adapters.postgres.hashing import HASH_SPEC
from naviglio.adapters.postgres.places import REACHED
from naviglio.adapters.postgres.session import conninfo, pin, place_of
from naviglio.adapters.postgres.snapshot import PostgresSnapshot, open_snapshot
from naviglio.adapters.postgres.statements import highest
from naviglio.adapters.postgres.types import CatalogueColumn
from naviglio.errors import ConfigError, SourceError
from naviglio.model import Column, Fence, TableName, TableSchema
from naviglio.ports import LOWEST, Source, SourceTraits

Row = dict[str, Any]


def open_source(url: str) -> Source:
    """Return the source behind a libpq URL; nothing is connected before the first question."""
    return PostgresSource(url)


class PostgresSource:
    """A PostgreSQL database (14 or newer) as a source.

    One idle connection serves the catalogue and the fence; each snapshot has its own.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._where = place_of(url)
        self._connection: psycopg.Connection[Row] | None = None
        self._fenced_at = 0  # position in the log

    @property
    def traits(self) -> SourceTraits:
        """How it differs."""
        return SourceTraits(hash_spec=HASH_SPEC)

    def describe(self, table: TableName, key: Sequence[str]) -> TableSchema:
        """Return the logical schema; an empty `key` asks for the table's primary key."""
        oid = self._oid(table)
        columns = [CatalogueColumn(**row) for row in self._rows(catalogue.columns(oid))]
        indexes = [catalogue.unique_index(row) for row in self._rows(catalogue.keys(oid))]
        return catalogue.schema_with_key(table, columns, key, indexes)

    def fence(self, margin_s: float, safety_lag_s: float | None) -> Fence:
        """Return the bound of modification times, read now; ConfigError where it can't be known."""
        with translated(self._where, SourceError):
            fence = read_fence(self._connected(), margin_s, safety_lag_s)
        self._fenced_at = int(self._rows(f"SELECT {REACHED} AS reached")[0]["reached"])
        return fence

    def above(self, name: TableName, column: Column) -> int:
        """Return the integer above all that are committed in the column."""
        [found] = self._rows(highest(name, column.name))
        return LOWEST if found["highest"] is None else int(found["highest"]) + 1

    def snapshot(self) -> AbstractContextManager[PostgresSnapshot]:
        """Open one snapshot-consistent, read-only moment, never before the last fence."""
        return open_snapshot(self._url, self._fenced_at)

    def close(self) -> None:
        """Give back the connection; a later question opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _oid(self, table: TableName) -> int:
        found = self._rows(catalogue.relation(table))
        if not found:
            names = [row["name"] for row in self._rows(catalogue.tables(table))]
            raise ConfigError(
                f"{self._where} has no table {str(table)!r}; its schema has {names}. Correct it."
            )
        if not found[0]["readable"]:
            raise ConfigError(
                f"{self._where}: no right to read {table}. Grant it SELECT, and its schema USAGE."
            )
        return int(found[0]["oid"])

    def _rows(self, statement: str) -> list[Row]:
        with translated(self._where, SourceError):
            return self._connected().execute(statement.encode()).fetchall()

    def _connected(self) -> psycopg.Connection[Row]:
        """Return the connection, a new one when a restarted server dropped the last."""
        if self._connection is not None and self._alive(self._connection):
            return self._connection
        self.close()
        opened = psycopg.connect(
            conninfo(self._url, "naviglio"), autocommit=True, row_factory=dict_row
        )
        opened.execute(pin(local=False).encode())
        self._connection = opened
        return opened

    @staticmethod
    def _alive(connection: psycopg.Connection[Row]) -> bool:
        try:
            connection.execute(b"SELECT 1")
        except psycopg.Error:
            return False
        return True
