"""PostgreSQL as a system of record, read only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.rows import dict_row

from naviglio.adapters.postgres import catalogue
from naviglio.adapters.postgres.errors import translated
from naviglio.adapters.postgres.fence import read_fence
from naviglio.adapters.postgres.hashing import HASH_SPEC
from naviglio.adapters.postgres.places import REACHED
from naviglio.adapters.postgres.session import conninfo, parted, pin, place_of
from naviglio.adapters.postgres.snapshot import PostgresSnapshot, open_snapshot, readers
from naviglio.adapters.postgres.statements import highest
from naviglio.adapters.postgres.types import CatalogueColumn
from naviglio.described import no_table
from naviglio.errors import ConfigError, SourceError
from naviglio.model import Column, Fence, TableName, TableSchema
from naviglio.pool import Pool, Way, pool_of
from naviglio.ports import LOWEST, SourceTraits

Row = dict[str, Any]


class PostgresSource:
    """A PostgreSQL database (14 or newer) as a source.

    Its sessions are kept between questions, and between snapshots, as the URL says.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._where = place_of(url)
        self._asking = _askers(url)
        self._reading = readers(url)
        self._fenced_at = 0  # position in the log

    @property
    def traits(self) -> SourceTraits:
        """How it differs."""
        return SourceTraits(hash_spec=HASH_SPEC)

    def describe(self, table: TableName, key: Sequence[str]) -> TableSchema:
        """Return the logical schema; an empty `key` asks for the table's primary key."""
        found = self._found(table)
        oid = int(found["oid"])
        columns = [CatalogueColumn(**row) for row in self._rows(catalogue.columns(oid))]
        indexes = [catalogue.unique_index(row) for row in self._rows(catalogue.keys(oid))]
        schema = catalogue.schema_with_key(table, columns, key, indexes)
        return replace(schema, late=catalogue.LATE.get(found["kind"], ""))

    def fence(self, margin_s: float, safety_lag_s: float | None) -> Fence:
        """Return the bound of modification times, read now; ConfigError where it can't be known."""
        with translated(self._where, SourceError), self._asking.session() as connection:
            fence = read_fence(connection, margin_s, safety_lag_s)
        self._note_place()
        return fence

    def above(self, name: TableName, column: Column) -> int:
        """Return the integer above all that are committed in the column."""
        [found] = self._rows(highest(name, column.name))
        self._note_place()
        return LOWEST if found["highest"] is None else int(found["highest"]) + 1

    def snapshot(self) -> AbstractContextManager[PostgresSnapshot]:
        """Open one snapshot-consistent, read-only moment, never before the last fence."""
        return open_snapshot(self._reading, self._url, self._fenced_at)

    def close(self) -> None:
        """Give back the sessions; a later question opens others."""
        self._asking.close()
        self._reading.close()

    def _note_place(self) -> None:
        """Remember how far the server's log is: a snapshot must not stand before it."""
        [found] = self._rows(f"SELECT {REACHED} AS reached")
        self._fenced_at = max(self._fenced_at, int(found["reached"]))

    def _found(self, table: TableName) -> Row:
        found = self._rows(catalogue.relation(table))
        if not found:
            names = [row["name"] for row in self._rows(catalogue.tables(table))]
            raise no_table(self._where, table, names)
        if not found[0]["readable"]:
            raise ConfigError(
                f"{self._where}: no right to read {table}. Grant it SELECT, and its schema USAGE."
            )
        return found[0]

    def _rows(self, statement: str) -> list[Row]:
        with translated(self._where, SourceError), self._asking.session() as connection:
            return connection.execute(statement.encode()).fetchall()


def _askers(url: str) -> Pool[psycopg.Connection[Row]]:
    """Return the sessions that ask the catalogue and the fence."""

    def opened() -> psycopg.Connection[Row]:
        with translated(where, SourceError):
            connection = psycopg.connect(
                conninfo(url, "naviglio"), autocommit=True, row_factory=dict_row
            )
            connection.execute(pin(terms, local=False).encode())
        return connection

    where, (_, terms) = place_of(url), parted(url)
    return pool_of("catalogue", url, Way(open=opened, wake=_alive, rest=_idle), terms, where)


def _alive(connection: psycopg.Connection[Row]) -> bool:
    try:
        connection.execute(b"RESET ROLE")  # whatever was done in it, it is its login's again
    except psycopg.Error:
        return False
    return True


def _idle(connection: psycopg.Connection[Row]) -> bool:
    return connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
