"""PostgreSQL as a warehouse: binary COPY into staging, one sorted upsert, the ledger beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict

from naviglio.adapters.postgres import ledger
from naviglio.adapters.postgres import merge as sql
from naviglio.adapters.postgres import staging as stagings
from naviglio.adapters.postgres.blame import Refusal, blame
from naviglio.adapters.postgres.errors import is_about_rows, translate, translated
from naviglio.adapters.postgres.fit import MADE_BY, Found, find, may_create, misfits
from naviglio.adapters.postgres.sql import DEFAULT_SCHEMA, literal, table
from naviglio.errors import ConfigError, RetryableError, TargetError
from naviglio.model import LedgerRow, LoadCounts, TableName, TableSchema
from naviglio.ports import Staging, Target, TargetTransaction

_CONNECT_S = 15
_LOCK_WAIT_S = 60.0
_CLIENT_GONE = "10s"  # a killed worker's statement ends, and its locks with it, after this
_MEMORY_KB = 256 * 1024  # of a sort or a hash, and of building the key's index
_SESSION = {  # in these forms, the same everywhere, text carries values
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "row_security": "off",  # a hidden row raises instead of looking absent
}


def open_target(url: str) -> Target:
    """Return the target of a connection URL; it connects when it is first asked."""
    return PostgresTarget(url)


class PostgresTarget:
    """A database that is written, over one connection; it belongs to one thread.

    Its own tables (staging, ledger) are in the schema `naviglio`.
    """

    def __init__(self, url: str, *, lock_wait_s: float = _LOCK_WAIT_S) -> None:
        self._url = url
        self._lock_wait_s = lock_wait_s
        self._open: psycopg.Connection | None = None
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
        with translated(f"{self._where}, staging {attempt}", TargetError):
            connection = self._connection()
            ledger.ensure(connection)
            stagings.hold(connection, attempt)
            self._alive.add(attempt)
            stagings.sweep(connection, self._alive)
            return stagings.fill(connection, attempt, schema, batches, whole=whole)

    def check(self, target: TableName, schema: TableSchema, *, adopt: bool) -> None:
        """Refuse a target that can't take the rows, before anything is staged."""
        with translated(f"target {str(target)!r}", TargetError):
            connection = self._connection()
            _refuse_missing_right(connection, ledger.SCHEMA, "for staging and ledger")
            found = find(connection, target)
            known = ledger.knows(connection, str(target))
            if found is None:
                _refuse_lost(target, known=known)
                _refuse_missing_right(connection, target.schema or DEFAULT_SCHEMA, "for the target")
                return
            if not (adopt or known or found.comment.startswith(MADE_BY)):
                raise ConfigError(
                    f"target {str(target)!r} is a table that Naviglio did not make. Set `adopt: "
                    "true` to take it over, rows and all, or choose another `target`."
                )
            _refuse_misfit(target, found, schema)

    @contextmanager
    def begin(self) -> Iterator[TargetTransaction]:
        """Open a transaction; its commit is the third of the three commits.

        With it go the staging tables that it merged.
        """
        with translated(self._where, TargetError):
            connection = self._connection()
            ledger.ensure(connection)
            with connection.transaction():
                _give_memory(connection)
                transaction = PostgresTransaction(connection, frozenset(self._alive))
                yield transaction
                for merged in transaction.merged:
                    connection.execute(f"DROP TABLE IF EXISTS {merged.name}")

    def close(self) -> None:
        """Drop staging tables of dead attempts, its own among them, and end the session."""
        connection, self._open = self._open, None
        self._alive.clear()
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
        if self._open is None or self._open.closed:
            self._alive.clear()  # the locks went with the session
            connection = _connect(self._url, self._lock_wait_s)
            self._where = f"target database {connection.info.dbname!r}"
            self._open = connection
        return self._open


def _connect(url: str, lock_wait_s: float) -> psycopg.Connection:
    said = conninfo_to_dict(url)
    connection = psycopg.connect(
        url, autocommit=True, prepare_threshold=None, client_encoding="utf8",
        connect_timeout=said.get("connect_timeout") or _CONNECT_S,
        application_name=said.get("application_name") or "naviglio",
    )  # fmt: skip
    try:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        for name, setting in _SESSION.items():
            _set(connection, name, setting)
        patience = f"{lock_wait_s * 1000:.0f}ms"
        _set(connection, "lock_timeout", patience)
        # A frozen client keeps no lock for longer than others wait for it.
        _set(connection, "idle_in_transaction_session_timeout", patience)
        with suppress(psycopg.errors.InvalidParameterValue):  # where the server can't tell
            _set(connection, "client_connection_check_interval", _CLIENT_GONE)
    except BaseException:
        connection.close()
        raise
    return connection


def _set(connection: psycopg.Connection, name: str, setting: str) -> None:
    connection.execute("SELECT set_config(%s, %s, false)", (name, setting))


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
    merged: list[Staging] = field(default_factory=list)

    def lock(self, target: TableName) -> LedgerRow | None:
        """Lock the target's ledger row (also when absent) until the end; return it."""
        return ledger.lock(self.connection, str(target))

    def record(self, row: LedgerRow) -> None:
        """Write the target's ledger row."""
        ledger.record(self.connection, row)

    def merge(self, target: TableName, schema: TableSchema, staging: Staging) -> LoadCounts:
        """Make the target equal to the staged rows, or apply the staged changes.

        It works in a savepoint: when rows are refused, the first one can still be looked for.
        """
        if staging.attempt not in self.alive:
            raise RetryableError(
                f"staging {staging.name} was made over a connection that is gone; stage again."
            )
        before = find(self.connection, target)
        if before is not None:
            _refuse_misfit(target, before, schema)
        job = None
        try:
            with self.connection.transaction():
                found = before or self._create(target, schema)
                found = self._add_columns(target, found, schema)
                job = sql.Merge(
                    target=target, schema=schema, staging=staging.name, types=found.types,
                    whole=staging.whole, has_beyond=staging.has_beyond,
                )  # fmt: skip
                counts = self._fill(job, staging, key=before is None)
        except psycopg.Error as error:
            if job is None or not is_about_rows(error):
                raise translate(error, f"target {str(target)!r}", TargetError) from None
            raise blame(self.connection, Refusal(merge=job, before=before, error=error)) from None
        self.merged.append(staging)
        return counts

    def _create(self, target: TableName, schema: TableSchema) -> Found:
        ledger.ensure_schema(self.connection, target.schema or DEFAULT_SCHEMA)
        self.connection.execute(sql.create_target(table(target), schema))
        self.connection.execute(f"COMMENT ON TABLE {table(target)} IS '{MADE_BY}.'")
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
            raise TargetError(f"target {str(target)!r} was created and is not in the catalogue.")
        return found

    def _fill(self, job: sql.Merge, staging: Staging, *, key: bool) -> LoadCounts:
        """Bring the rows in; `key`: the target is new and gets its key after its rows."""
        if key or self._is_empty(job):
            statement = sql.insert(job, ordered=not key)
            counts = LoadCounts(inserted=self.connection.execute(statement).rowcount)
            if key:
                self.connection.execute(sql.add_key(job.target, job.schema.key))
        else:
            counts = self._compare(job)
        if job.whole and counts.inserted + counts.updated + counts.unchanged != staging.rows:
            raise RetryableError(f"staging {staging.name} has lost rows; stage again.")
        return counts

    def _compare(self, job: sql.Merge) -> LoadCounts:
        delete = sql.delete_absent if job.whole else sql.delete_staged
        deleted = self.connection.execute(delete(job)).rowcount
        inserted, updated, staged = self.connection.execute(sql.upsert(job)).fetchone() or (0, 0, 0)
        unchanged = staged - inserted - updated
        return LoadCounts(inserted=inserted, updated=updated, deleted=deleted, unchanged=unchanged)

    def _is_empty(self, job: sql.Merge) -> bool:
        found = self.connection.execute(f"SELECT FROM {table(job.target)} LIMIT 1")
        return found.fetchone() is None


def _refuse_lost(target: TableName, *, known: bool) -> None:
    if known:
        raise ConfigError(
            f"target {str(target)!r} is in the ledger, but the table is gone. To load it again "
            f"whole, delete its row: DELETE FROM {ledger.LEDGER}"
            f" WHERE target = {literal(str(target))}"
        )


def _refuse_missing_right(connection: psycopg.Connection, schema: str, purpose: str) -> None:
    if not may_create(connection, schema):
        raise ConfigError(
            f"database {connection.info.dbname!r}: role {connection.info.user!r} may not create "
            f"tables in schema {schema!r} ({purpose}). Grant USAGE and CREATE on the schema, or "
            "CREATE on the database where the schema is absent."
        )


def _refuse_misfit(target: TableName, found: Found, schema: TableSchema) -> None:
    if problems := misfits(found, schema):
        raise ConfigError(f"target {str(target)!r} can't take the rows: {'; '.join(problems)}.")
