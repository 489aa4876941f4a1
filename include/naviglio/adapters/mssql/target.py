"""SQL Server as a warehouse: bulk copy into staging, one MERGE, the ledger beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import mssql_python
import pyarrow as pa
from mssql_python import Connection

from naviglio.adapters.mssql import ledger, ranges
from naviglio.adapters.mssql import merge as sql
from naviglio.adapters.mssql import staging as stagings
from naviglio.adapters.mssql.blame import blame, told
from naviglio.adapters.mssql.errors import is_about_rows, is_lost, translate
from naviglio.adapters.mssql.fit import MADE_BY, Found, find, may_create, misfits
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
from naviglio.errors import ConfigError, DataError, RetryableError, TargetError
from naviglio.model import LedgerRow, LoadCounts, TableName, TableSchema
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
        self._alive: set[str] = set()  # attempts whose locks this session holds
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
            ledger.ensure(connection, self._wait_s())
            if attempt not in self._alive:
                ledger.hold(connection, stagings.lock_name(attempt), self._wait_s())
                self._alive.add(attempt)
            stagings.sweep(connection, self._alive)
            staging = stagings.fill(connection, attempt, schema, batches, whole=whole)
            if self._run_as:
                connection.execute(grant_staging(staging.name, self._run_as)).close()
            return staging

    def cuts(
        self, target: TableName, schema: TableSchema, staging: Staging, parts: int
    ) -> tuple[str, ...]:
        """Return up to `parts` - 1 values of the first key column that part the staged rows."""
        with self._session(f", target {str(target)!r}") as connection:
            with self._acting(connection):
                found = find(connection, target)
            if found is None:
                return ()
            rows = fetch(connection, ranges.cuts(_job(target, schema, staging, found), parts))
            return tuple(str(cut) for (cut,) in rows)

    def check(self, target: TableName, schema: TableSchema, *, adopt: bool) -> None:
        """Refuse a target that can't take the rows, before anything is staged."""
        with self._session(f", target {str(target)!r}") as connection:
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
            if not (adopt or known or found.comment.startswith(MADE_BY)):
                raise ConfigError(
                    f"target {str(target)!r} is a table that Naviglio did not make. Set `adopt: "
                    "true` to take it over, rows and all, or choose another `target`."
                )
            _refuse_other_name(target, found, loaded)
            _refuse_misfit(target, found, schema)

    @contextmanager
    def begin(self) -> Iterator[MssqlTransaction]:
        """Open a transaction; its commit is the third of the three commits.

        With it go the staging tables that it merged.
        """
        with self._session() as connection:
            ledger.ensure(connection, self._wait_s())
            if self._run_as:
                give_ledger(connection, self._run_as)
            transaction = MssqlTransaction(
                connection, frozenset(self._alive), self._wait_s(), self._run_as
            )
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
            if self._run_as and self._open is connection:  # only their owner may
                _drop(connection, transaction.merged)

    def close(self) -> None:
        """Drop staging tables of dead attempts, its own among them, and end the session."""
        connection, self._open = self._open, None
        alive, self._alive = self._alive, set()
        if connection is None:
            return
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
            self._alive.clear()
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

    def _wait_s(self) -> float:
        said = address(self._url).lock_timeout_s
        return said if self._lock_wait_s is None else self._lock_wait_s

    def _refuse_missing_right(self, connection: Connection, schema: str, purpose: str) -> None:
        if not may_create(connection, schema):
            acting = self._run_as and purpose == _TARGET
            kind, who = (TargetError, repr(self._run_as)) if acting else (ConfigError, "the login")
            raise kind(
                f"{self._where}: {who} may not create tables in schema {schema!r} ({purpose})."
                " Grant it CREATE TABLE on the database and ALTER on the schema, or CREATE SCHEMA "
                "on the database where the schema is absent."
            )


@dataclass(frozen=True)
class MssqlTransaction:
    """One transaction of the target; the session's XACT_ABORT ends all of it at any error."""

    connection: Connection
    alive: frozenset[str]
    wait_s: float
    run_as: str = ""
    merged: list[Staging] = field(default_factory=list)

    def lock(self, target: TableName) -> LedgerRow | None:
        """Lock the target's ledger row (also when absent) until the end; return it."""
        return ledger.lock(self.connection, str(target), self.wait_s)

    def record(self, row: LedgerRow) -> None:
        """Write the target's ledger row."""
        ledger.record(self.connection, row)

    def merge(self, target: TableName, schema: TableSchema, staging: Staging) -> LoadCounts:
        """Make the target equal to the staged rows, or apply the staged changes."""
        counts = self._merge(target, schema, staging)
        self.merged.append(staging)
        return counts

    def merge_range(
        self,
        target: TableName,
        schema: TableSchema,
        staging: Staging,
        low: str | None,
        high: str | None,
    ) -> LoadCounts:
        """Merge the keys whose first column is in [low, high); None is open."""
        counts = self._merge(target, schema, staging, low, high)
        if high is None:
            self.merged.append(staging)
        return counts

    def _merge(
        self,
        target: TableName,
        schema: TableSchema,
        staging: Staging,
        low: str | None = None,
        high: str | None = None,
    ) -> LoadCounts:
        """Merge, all or one range.

        Rows that can't be stored as they are have been refused before anything is written.
        """
        if staging.attempt not in self.alive:
            raise RetryableError(
                f"staging {staging.name} was made over a connection that is gone; stage again."
            )
        before = find(self.connection, target)
        if before is not None:
            refuse_powerless(target, before, self.run_as)
            _refuse_misfit(target, before, schema)
        job = None
        try:
            found = before or self._create(target, schema)
            found = self._add_columns(target, found, schema)
            job = replace(_job(target, schema, staging, found), low=low, high=high)
            return self._fill(job, staging)
        except mssql_python.Error as error:
            if job is None or not is_about_rows(error):
                raise
            with suppress(mssql_python.Error):
                self.connection.rollback()
            raise blame(self.connection, job, error) from None

    def _create(self, target: TableName, schema: TableSchema) -> Found:
        ledger.ensure_schema(self.connection, target.schema or DEFAULT_SCHEMA, self.wait_s)
        self._run(sql.create_target(target, schema))
        self._run(sql.mark_target(target))
        return self._found(target)

    def _add_columns(self, target: TableName, found: Found, schema: TableSchema) -> Found:
        lacking = found.lacks(schema)
        if not lacking:
            return found
        self._run(sql.add_columns(target, lacking))
        return self._found(target)

    def _found(self, target: TableName) -> Found:
        found = find(self.connection, target)
        if found is None:
            raise TargetError(f"target {str(target)!r} was created and is not in the catalogue.")
        return found

    def _fill(self, job: sql.Merge, staging: Staging) -> LoadCounts:
        part = job.low is not None or job.high is not None
        living = self._refuse_flaws(job)
        if job.whole and living != staging.rows:
            raise RetryableError(f"staging {staging.name} has lost rows; stage again.")
        if part:
            living = int(fetch(self.connection, ranges.count_range(job))[0][0])
        elif not fetch(self.connection, sql.is_empty(job.target)):
            self._run(sql.insert(job))
            return LoadCounts(inserted=living)
        done = self._actions(job)
        inserted, updated = done.get("INSERT", 0), done.get("UPDATE", 0)
        return LoadCounts(
            inserted=inserted, updated=updated, deleted=done.get("DELETE", 0),
            unchanged=living - inserted - updated,
        )  # fmt: skip

    def _refuse_flaws(self, job: sql.Merge) -> int:
        """Refuse rows that don't fit, and keys that are one to the target; count the living."""
        suspected = sql.flaws(job)
        living, *flawed = fetch(self.connection, sql.survey(job, suspected))[0]
        for flaw, rows in zip(suspected, flawed, strict=True):
            if rows:
                key = fetch(self.connection, sql.flawed_key(job, flaw))[0]
                raise DataError(
                    f"target {str(job.target)!r}, column {flaw.column!r}: a value {flaw.why}"
                    f"{told(job, key)}; rows like it: {rows}. Nothing was loaded. Correct the "
                    "row at its source, or the target's column."
                )
        if twins := fetch(self.connection, sql.twins(job)):
            raise DataError(
                f"target {str(job.target)!r}: two rows are one to the key's collation"
                f"{told(job, *twins)}. Nothing was loaded. Correct the rows at their source, or "
                "give the target's key a collation that tells them apart."
            )
        return int(living)

    def _actions(self, job: sql.Merge) -> dict[str, int]:
        cursor = self.connection.cursor()
        try:
            cursor.execute(sql.merge_batch(job))
            while cursor.description is None and cursor.nextset():
                pass
            return {action: int(n) for action, n in cursor.fetchall()}
        finally:
            cursor.close()

    def _run(self, statement: str) -> None:
        self.connection.execute(statement).close()


def _job(target: TableName, schema: TableSchema, staging: Staging, found: Found) -> sql.Merge:
    has = {name: found.column(name) for name in schema.names}
    return sql.Merge(
        target=target, schema=schema, staging=staging.name,
        found={name: column for name, column in has.items() if column is not None},
        whole=staging.whole, has_beyond=staging.has_beyond,
    )  # fmt: skip


def _refuse_lost(target: TableName, run_as: str, *, known: bool) -> None:
    if known and run_as:
        raise unseen(target, run_as)
    if known:
        raise ConfigError(
            f"target {str(target)!r} is in the ledger, but the table is gone. To load it again "
            f"whole, delete its row: DELETE FROM {ledger.LEDGER}"
            f" WHERE [target] = {literal(str(target))}"
        )


def _drop(connection: Connection, merged: Iterable[Staging]) -> None:
    for staging in merged:
        connection.execute(stagings.drop_staging(staging.name)).close()


def _refuse_other_name(target: TableName, found: Found, loaded: Mapping[str, LedgerRow]) -> None:
    """Refuse a table that is loaded under another spelling: the ledger tells names by bytes."""

    def table(name: str) -> str:
        full = name if "." in name else f"{DEFAULT_SCHEMA}.{name}"
        return full.casefold() if found.folds else full

    for other, row in loaded.items():
        if other != str(target) and table(other) == table(str(target)):
            raise ConfigError(
                f"target {str(target)!r} is the table that pipeline {row.pipeline!r} loads as "
                f"{other!r}. Write it in the same way, or choose another `target`."
            )


def _refuse_misfit(target: TableName, found: Found, schema: TableSchema) -> None:
    if problems := misfits(found, schema):
        raise ConfigError(f"target {str(target)!r} can't take the rows: {'; '.join(problems)}.")
