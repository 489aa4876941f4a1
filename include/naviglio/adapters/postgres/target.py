"""PostgreSQL as a warehouse: binary COPY into staging, one sorted upsert, the ledger beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg
import pyarrow as pa

from naviglio import refusals
from naviglio.adapters.postgres import ledger, login, swap
from naviglio.adapters.postgres import merge as sql
from naviglio.adapters.postgres import staging as stagings
from naviglio.adapters.postgres.blame import Refusal, blame, blame_twins
from naviglio.adapters.postgres.errors import is_about_rows, translate, translated
from naviglio.adapters.postgres.fit import Found, find, may_create, misfits
from naviglio.adapters.postgres.sql import DEFAULT_SCHEMA, literal, quote, table
from naviglio.errors import ConfigError, RetryableError, TargetError
from naviglio.model import LedgerRow, LoadCounts, TableName, TableSchema
from naviglio.ports import Staging

log = logging.getLogger("naviglio.load")
_MEMORY_KB = 256 * 1024  # of a sort or a hash, and of building the key's index


class PostgresTarget:
    """A database that is written, over one connection; it belongs to one thread.

    Its own tables (staging, ledger) are in the schema `naviglio`. With `run_as` a second connection
    merges and records as that role; the first one, the login's, stages and is never that role.
    """

    def __init__(self, url: str, *, lock_wait_s: float | None = None, run_as: str = "") -> None:
        self._url = url
        self._lock_wait_s = lock_wait_s
        self._run_as = run_as
        self._open: psycopg.Connection | None = None
        self._role: psycopg.Connection | None = None
        self._alive: set[str] = set()  # attempts whose locks this session holds
        self._where = "target database"

    def ledger(self) -> dict[str, LedgerRow]:
        """Return all ledger rows by target name; empty when there is no ledger yet."""
        with translated(self._where, TargetError):
            return ledger.rows(self._connection())

    def stage(
        self, attempt: str, schema: TableSchema, batches: Iterator[pa.RecordBatch], *, whole: bool
    ) -> Staging:
        """Create and fill the staging table of an attempt; drop those of dead attempts."""
        return self._staged(
            attempt, lambda own: stagings.fill(own, attempt, schema, batches, whole=whole)
        )

    def _staged(self, attempt: str, fill: Callable[[psycopg.Connection], Staging]) -> Staging:
        with translated(f"{self._where}, staging {attempt}", TargetError):
            connection = self._connection()
            ledger.ensure(connection)
            stagings.hold(connection, attempt)
            self._alive.add(attempt)
            stagings.sweep(connection, self._alive)
            staging = fill(connection)
            if self._run_as:
                login.give_staging(connection, staging.name, self._run_as)
            return staging

    def rows_of(self, target: TableName) -> int | None:
        """Return a table's rows as the server estimates them; None when there is no table."""
        with translated(f"target {str(target)!r}", TargetError):
            return swap.rows(self._connection(), target)

    def keeps(self, target: TableName, schema: TableSchema) -> tuple[str, ...]:
        """Return what a swap would lose, or why there can be none, by name; empty when nothing."""
        if self._run_as:
            return (f"the rows would be written by the login, not by {self._run_as!r}",)
        with translated(f"target {str(target)!r}", TargetError):
            return tuple(swap.keeps(self._connection(), target, schema))

    def stage_beside(
        self,
        attempt: str,
        target: TableName,
        schema: TableSchema,
        batches: Iterator[pa.RecordBatch],
    ) -> Staging:
        """Fill a table that can become the target with all rows."""
        return self._staged(attempt, lambda own: swap.fill(own, attempt, target, schema, batches))

    def cuts(
        self, target: TableName, schema: TableSchema, staging: Staging, parts: int
    ) -> tuple[str, ...]:
        """Return up to `parts` - 1 values of the first key column that part the staged rows."""
        with translated(f"target {str(target)!r}", TargetError):
            found = find(self._connection(), target)
            if found is None:
                return ()
            job = _job(target, schema, staging, found)
            rows = self._connection().execute(sql.cuts(job, parts).encode())
            return tuple(cut for (cut,) in rows)

    def check(self, target: TableName, schema: TableSchema, *, adopt: bool) -> None:
        """Refuse a target that can't take the rows, before anything is staged."""
        with translated(f"target {str(target)!r}", TargetError):
            connection = self._connection()
            _refuse_missing_right(connection, ledger.SCHEMA, "for staging and ledger")
            known = ledger.knows(connection, str(target))
            connection = self._merging()
            found = find(connection, target)
            if found is None:
                _refuse_lost(target, known=known)
                schema_name = target.schema or DEFAULT_SCHEMA
                _refuse_missing_right(connection, schema_name, "for the target", self._run_as)
                return
            _refuse_powerless(target, found, self._run_as)
            if not (adopt or known or found.comment.startswith(refusals.MADE_BY)):
                raise refusals.not_ours(target)
            _refuse_misfit(target, found, schema)

    @contextmanager
    def begin(self) -> Iterator[PostgresTransaction]:
        """Open a transaction; its commit is the third of the three commits.

        With it go the staging tables that it merged.
        """
        with translated(self._where, TargetError):
            own = self._connection()
            ledger.ensure(own)
            connection = self._merging()
            if self._run_as:
                login.give_ledger(own, self._run_as)
            with connection.transaction():
                _give_memory(connection)
                transaction = PostgresTransaction(connection, frozenset(self._alive), self._run_as)
                yield transaction
                if connection is own:
                    _drop(own, transaction.merged)
                else:
                    login.refuse_changed(connection, self._run_as)
            if connection is not own:  # only their owner may
                _drop(own, transaction.merged)

    def close(self) -> None:
        """Drop staging tables of dead attempts, its own among them, and end the session."""
        connection, self._open = self._open, None
        role, self._role = self._role, None
        self._alive.clear()
        if role is not None:
            role.close()
        if connection is None or connection.closed:
            return
        try:
            with translated(self._where, TargetError):
                connection.execute("SELECT pg_advisory_unlock_all()")
                stagings.sweep(connection)
        except RetryableError:
            pass  # a server that is away: the next close of anybody sweeps
        finally:
            connection.close()

    def _connection(self) -> psycopg.Connection:
        """Return the login's session, a new one where a restarted server dropped the last."""
        if not login.is_alive(self._open):
            self._alive.clear()  # the locks went with the session
            connection = login.connect(self._url, self._lock_wait_s)
            self._where = f"target database {connection.info.dbname!r}"
            self._open = connection
        return self._open

    def _merging(self) -> psycopg.Connection:
        """Return the session that merges and records: the role's where there is one."""
        own = self._connection()
        if not self._run_as:
            return own
        if not login.is_alive(self._role):
            login.refuse_stranger(own, self._run_as)
            self._role = login.connect(self._url, self._lock_wait_s, self._run_as)
        return self._role


def _give_memory(connection: psycopg.Connection) -> None:
    """Let the merge sort in memory, until the end of the transaction."""
    connection.execute(
        "SELECT set_config(name, greatest(setting::bigint, %s)::text || 'kB', true)"
        " FROM pg_settings WHERE name IN ('work_mem', 'maintenance_work_mem')",
        (_MEMORY_KB,),
    )


@dataclass(frozen=True)
class PostgresTransaction:
    """One transaction of the target."""

    connection: psycopg.Connection
    alive: frozenset[str]
    run_as: str = ""
    merged: list[Staging] = field(default_factory=list)

    def lock(self, target: TableName) -> LedgerRow | None:
        """Lock the target's ledger row (also when absent) until the end; return it."""
        return ledger.lock(self.connection, str(target))

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

        A staging beside takes the target's place where that loses nothing. It works in a savepoint:
        when rows are refused, the first one can still be looked for.
        """
        if staging.attempt not in self.alive or not self._keeps(staging):
            raise refusals.stale(staging.name)
        before = find(self.connection, target)
        if before is not None:
            _refuse_powerless(target, before, self.run_as)
            _refuse_misfit(target, before, schema)
        job = None
        try:
            with self.connection.transaction():
                if staging.beside:
                    own = TableName(schema=ledger.SCHEMA, table=stagings.PREFIX + staging.attempt)
                    job = _job(target, schema, staging, self._found(own))
                    counts = swap.into_place(self.connection, target, schema, staging)
                    if counts is not None:
                        return counts
                    log.info("target %s changed meanwhile, or is read: merged, not swapped", target)
                found = self._add_columns(target, before or self._create(target, schema), schema)
                job = replace(_job(target, schema, staging, found), low=low, high=high)
                return self._fill(job, staging, key=before is None)
        except psycopg.Error as error:
            if job is None or not is_about_rows(error):
                raise translate(error, f"target {str(target)!r}", TargetError) from None
            raise blame(self.connection, Refusal(merge=job, before=before, error=error)) from None

    def _keeps(self, staging: Staging) -> bool:
        """Keep the staging table from being dropped; False when the login's session lost it."""
        if not self.run_as:
            return True  # the session that merges is the one that staged
        try:
            self.connection.execute(f"LOCK TABLE {staging.name} IN ACCESS SHARE MODE")
        except psycopg.errors.UndefinedTable:
            return False
        return True

    def _create(self, target: TableName, schema: TableSchema) -> Found:
        ledger.ensure_schema(self.connection, target.schema or DEFAULT_SCHEMA)
        self.connection.execute(sql.create_target(table(target), schema))
        self.connection.execute(f"COMMENT ON TABLE {table(target)} IS '{refusals.MADE_BY}.'")
        return self._found(target)

    def _add_columns(self, target: TableName, found: Found, schema: TableSchema) -> Found:
        lacking = found.lacks(schema)
        if not lacking:
            return found
        self.connection.execute(sql.add_columns(table(target), lacking))
        return self._found(target)

    def _found(self, target: TableName) -> Found:
        found = find(self.connection, target)
        if found is None:
            raise refusals.not_made(target)
        return found

    def _fill(self, job: sql.Merge, staging: Staging, *, key: bool) -> LoadCounts:
        """Bring the rows in; `key`: the target is new and gets its key after its rows."""
        if key or self._is_empty(job):
            statement = sql.insert(job, ordered=not key)
            counts = LoadCounts(inserted=self.connection.execute(statement).rowcount)
            if key:
                self.connection.execute(sql.add_key(job.target, job.schema.key))
        else:
            if job.whole and job.low is None:
                self._refuse_twins(job)
            counts = self._compare(job)
        part = job.low is not None or job.high is not None
        living = counts.inserted + counts.updated + counts.unchanged
        if job.whole and not part and living != staging.rows:
            raise refusals.short(staging.name)
        return counts

    def _refuse_twins(self, job: sql.Merge) -> None:
        """Refuse two rows of one key before anything is written.

        Of twins one may be stored as it is staged, and be left out of the upsert that would tell.
        """
        if not sql.may_have_twins(job):
            return
        if self.connection.execute(sql.twins(job)).fetchone() is not None:
            raise blame_twins(self.connection, job)

    def _compare(self, job: sql.Merge) -> LoadCounts:
        delete = sql.delete_absent if job.whole else sql.delete_staged
        deleted = self.connection.execute(delete(job)).rowcount
        inserted, updated, staged = self.connection.execute(sql.upsert(job)).fetchone() or (0, 0, 0)
        unchanged = staged - inserted - updated
        return LoadCounts(inserted=inserted, updated=updated, deleted=deleted, unchanged=unchanged)

    def _is_empty(self, job: sql.Merge) -> bool:
        found = self.connection.execute(f"SELECT FROM {table(job.target)} LIMIT 1")
        return found.fetchone() is None


def _job(target: TableName, schema: TableSchema, staging: Staging, found: Found) -> sql.Merge:
    return sql.Merge(
        target=target, schema=schema, staging=staging.name, types=found.types, whole=staging.whole,
        has_beyond=staging.has_beyond,
    )  # fmt: skip


def _refuse_lost(target: TableName, *, known: bool) -> None:
    if known:
        raise refusals.gone(
            target, f"DELETE FROM {ledger.LEDGER} WHERE target = {literal(str(target))}"
        )


def _refuse_missing_right(
    connection: psycopg.Connection, schema: str, purpose: str, run_as: str = ""
) -> None:
    if not may_create(connection, schema):
        kind, role = (TargetError, run_as) if run_as else (ConfigError, connection.info.user)
        raise kind(
            f"database {connection.info.dbname!r}: role {role!r} may not create tables in schema "
            f"{schema!r} ({purpose}). Grant USAGE and CREATE on the schema, or CREATE on the "
            "database where the schema is absent."
        )


def _refuse_powerless(target: TableName, found: Found, run_as: str) -> None:
    """Refuse a role that the configuration names rightly, and the target's owner has not let in."""
    if run_as and found.lacking_rights:
        rights = ", ".join(found.lacking_rights)
        raise TargetError(
            f"target {str(target)!r}: role {run_as!r} lacks {rights} on it; nothing was loaded. "
            f"GRANT {rights} ON {table(target)} TO {quote(run_as)}, and USAGE on its schema."
        )


def _drop(connection: psycopg.Connection, merged: Iterable[Staging]) -> None:
    for staging in merged:
        connection.execute(f"DROP TABLE IF EXISTS {staging.name}")


def _refuse_misfit(target: TableName, found: Found, schema: TableSchema) -> None:
    if problems := misfits(found, schema):
        raise refusals.misfit(target, problems)
