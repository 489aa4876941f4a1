"""SQL Server as a warehouse: bulk copy into staging, one MERGE, the ledger beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property

import mssql_python
import pyarrow as pa
from mssql_python import Connection

from naviglio import refusals
from naviglio.adapters.mssql import indexes, ledger, ranges, swap
from naviglio.adapters.mssql import merge as sql
from naviglio.adapters.mssql import staging as stagings
from naviglio.adapters.mssql.errors import is_lost, translate
from naviglio.adapters.mssql.fit import (
    Found,
    find,
    may_create,
    refuse_alike,
    refuse_misfit,
)
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.impersonation import (
    give_back,
    give_ledger,
    grant_staging,
    refuse_powerless,
    take,
    unseen,
)
from naviglio.adapters.mssql.session import address, connect, is_alive
from naviglio.adapters.mssql.sql import DEFAULT_SCHEMA, literal
from naviglio.adapters.mssql.transaction import MssqlTransaction, Standing
from naviglio.errors import ConfigError, RetryableError, TargetError
from naviglio.model import LedgerRow, TableName, TableSchema
from naviglio.ports import Staging

_TARGET = "for the target"


class MssqlTarget:
    """A database that is written, over one connection; it belongs to one thread.

    Its own tables (staging, ledger) are in the schema `naviglio`. The bulk copy opens a second
    connection for as long as it takes. With `run_as` that user merges and records; whatever
    happens, the session is the login's again afterwards, or closed.
    """

    def __init__(self, url: str, *, lock_wait_s: float | None = None, run_as: str = "") -> None:
        self._url = url
        self._lock_wait_s = lock_wait_s
        self._run_as = run_as
        self._open: Connection | None = None
        self._where = "target database"

    def ledger(self) -> dict[str, LedgerRow]:
        """Return all ledger rows by target name; empty when there is no ledger yet."""
        with self._session() as connection:
            return ledger.rows(connection)

    def stage(
        self, attempt: str, schema: TableSchema, batches: Iterator[pa.RecordBatch], *, whole: bool
    ) -> Staging:
        """Create and fill the staging table of an attempt; drop those of dead attempts."""
        with self._session(f", staging {attempt}") as connection:
            ledger.ensure(connection, self._standing.wait_s)
            if attempt not in self._standing.alive:
                ledger.hold(connection, stagings.lock_name(attempt), self._standing.wait_s)
                self._standing.alive.add(attempt)
            stagings.sweep(connection, self._standing.alive)
            staging = stagings.fill(connection, attempt, schema, batches, whole=whole)
            if self._run_as:
                connection.execute(grant_staging(staging.name, self._run_as)).close()
            return staging

    def rows_of(self, target: TableName) -> int | None:
        """Return a table's rows as the server estimates them; None when there is no table."""
        with self._session(f", target {str(target)!r}") as connection, self._acting(connection):
            return swap.rows(connection, target)

    def keeps(self, target: TableName, schema: TableSchema) -> tuple[str, ...]:
        """Return what a swap would lose, or why there can be none, by name; empty when nothing."""
        if self._run_as:
            return (f"the rows would be written by the login, not by {self._run_as!r}",)
        with self._session(f", target {str(target)!r}") as connection:
            return swap.keeps(connection, target, schema)

    def rebuildable(self, target: TableName) -> int:
        """Return how many indexes of a table can be off while it is merged."""
        with self._session(f", target {str(target)!r}") as connection, self._acting(connection):
            found = find(connection, target)
            if found is None or "ALTER" in found.lacking_rights:
                return 0
            return len(indexes.free(connection, target))

    def stage_beside(
        self,
        attempt: str,
        target: TableName,
        schema: TableSchema,
        batches: Iterator[pa.RecordBatch],
    ) -> Staging:
        """Fill a table that can give the target all its rows, beside the staging they come from.

        Only the staging, which a merge takes, where the server refuses the former.
        """
        staging = self.stage(attempt, schema, batches, whole=True)
        with self._session(f", target {str(target)!r}") as connection:
            made_for = swap.fill(connection, target, schema, staging)
        if made_for is None:
            return staging
        self._standing.beside[attempt] = made_for
        return replace(staging, beside=True)

    def cuts(
        self, target: TableName, schema: TableSchema, staging: Staging, parts: int
    ) -> tuple[str, ...]:
        """Return up to `parts` - 1 values of the first key column that part the staged rows."""
        with self._session(f", target {str(target)!r}") as connection:
            with self._acting(connection):
                found = find(connection, target)
            if found is None:
                return ()
            rows = fetch(connection, ranges.cuts(sql.job(target, schema, staging, found), parts))
            return tuple(str(cut) for (cut,) in rows)

    def check(self, target: TableName, schema: TableSchema, *, adopt: bool) -> None:
        """Refuse a target that can't take the rows, before anything is staged."""
        with self._session(f", target {str(target)!r}") as connection:
            refuse_alike(connection, schema)
            self._refuse_missing_right(connection, ledger.SCHEMA, "for staging and ledger")
            loaded = ledger.rows(connection)
            known = str(target) in loaded
            with self._acting(connection):
                found = find(connection, target)
                if found is None:
                    _refuse_lost(target, self._run_as, known=known)
                    schema_name = target.schema or DEFAULT_SCHEMA
                    self._refuse_missing_right(connection, schema_name, _TARGET)
                    sql.create_target(target, schema)  # raises for what can be no name
                    return
            refuse_powerless(target, found, self._run_as)
            if not (adopt or known or found.comment.startswith(refusals.MADE_BY)):
                raise refusals.not_ours(target)
            _refuse_other_name(target, found, loaded)
            refuse_misfit(target, found, schema)

    @contextmanager
    def begin(self) -> Iterator[MssqlTransaction]:
        """Open a transaction; its commit is the third of the three commits.

        With it go the staging tables that it merged.
        """
        with self._session() as connection:
            ledger.ensure(connection, self._standing.wait_s)
            if self._run_as:
                give_ledger(connection, self._run_as)
            transaction = MssqlTransaction(connection, self._standing)
            with self._acting(connection):
                connection.autocommit = False
                try:
                    yield transaction
                    if not self._run_as:
                        _drop(connection, transaction.merged)
                    connection.commit()
                except BaseException:
                    self._roll_back(connection)
                    raise
                finally:
                    self._end(connection)
            if self._open is connection:
                if self._run_as:  # only their owner may
                    _drop(connection, transaction.merged)
                for target in transaction.swapped:
                    swap.renew_statistics(connection, target)

    def close(self) -> None:
        """Drop staging tables of dead attempts, its own among them, and end the session."""
        connection, self._open = self._open, None
        alive = frozenset(self._standing.alive) if connection else frozenset()
        if connection is None:
            return
        self._clear()
        try:
            # A pooled session would live on, and its locks with it.
            for attempt in alive:
                ledger.release(connection, stagings.lock_name(attempt))
            stagings.sweep(connection)
        except mssql_python.Error as error:  # whoever closes next sweeps
            translated = translate(error, self._where, TargetError)
            if not isinstance(translated, RetryableError):
                raise translated from None
        finally:
            with suppress(mssql_python.Error):
                connection.close()

    @contextmanager
    def _session(self, doing: str = "") -> Iterator[Connection]:
        """Give the open session; a lost one is forgotten, and the locks with it."""
        if self._open is not None and not is_alive(self._open):
            self._forget()
        if self._open is None:
            self._clear()
            self._where = f"target database {address(self._url).database!r}"
            self._open = connect(self._url, lock_wait_s=self._lock_wait_s)
        try:
            yield self._open
        except mssql_python.Error as error:
            if is_lost(error):
                self._forget()
            raise translate(error, self._where + doing, TargetError) from None

    @contextmanager
    def _acting(self, connection: Connection) -> Iterator[None]:
        """Be the principal; a session that doesn't come back from it is closed."""
        if not self._run_as:
            yield
            return
        taken = take(connection, self._run_as)
        try:
            yield
        finally:
            if not give_back(connection, taken):
                self._forget()

    def _roll_back(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except mssql_python.Error:  # the session's end rolls back what it could not
            self._forget()

    def _end(self, connection: Connection) -> None:
        if self._open is not connection:
            return
        try:
            connection.autocommit = True
        except mssql_python.Error:
            self._forget()

    def _forget(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            with suppress(mssql_python.Error):
                connection.close()

    @cached_property
    def _standing(self) -> Standing:
        said = address(self._url).lock_timeout_s
        wait_s = said if self._lock_wait_s is None else self._lock_wait_s
        return Standing(wait_s=wait_s, run_as=self._run_as)

    def _clear(self) -> None:
        """Forget what went with a session."""
        one = self._standing
        for held in (one.alive, one.beside, one.plain, one.looked):
            held.clear()

    def _refuse_missing_right(self, connection: Connection, schema: str, purpose: str) -> None:
        if not may_create(connection, schema):
            acting = self._run_as and purpose == _TARGET
            kind, who = (TargetError, repr(self._run_as)) if acting else (ConfigError, "the login")
            raise kind(
                f"{self._where}: {who} may not create tables in schema {schema!r} ({purpose})."
                " Grant it CREATE TABLE on the database and ALTER on the schema, or CREATE SCHEMA "
                "on the database where the schema is absent."
            )


def _refuse_lost(target: TableName, run_as: str, *, known: bool) -> None:
    if known and run_as:
        raise unseen(target, run_as)
    if known:
        raise refusals.gone(
            target, f"DELETE FROM {ledger.LEDGER} WHERE [target] = {literal(str(target))}"
        )


def _drop(connection: Connection, merged: list[Staging]) -> None:
    for staging in merged:
        stagings.drop(connection, staging)


def _refuse_other_name(target: TableName, found: Found, loaded: Mapping[str, LedgerRow]) -> None:
    """Refuse a table that is loaded under another spelling: the ledger tells names by bytes."""

    def table(name: str) -> str:
        full = name if "." in name else f"{DEFAULT_SCHEMA}.{name}"
        return full.casefold() if found.folds else full

    for other, row in loaded.items():
        if other != str(target) and table(other) == table(str(target)):
            raise refusals.other_name(target, row.pipeline, other)
