"""DuckDB as a warehouse: Arrow batches into a temporary table, one MERGE, the ledger beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from naviglio import refusals
from naviglio.adapters.duckdb import differing, ledger
from naviglio.adapters.duckdb import merge as sql
from naviglio.adapters.duckdb import staging as stagings
from naviglio.adapters.duckdb.errors import is_about_rows, said, translate
from naviglio.adapters.duckdb.fit import Found, find, misfits
from naviglio.adapters.duckdb.session import address, connect, turn
from naviglio.adapters.duckdb.session import rows as fetch
from naviglio.adapters.duckdb.sql import DEFAULT_SCHEMA, fold, literal, refuse_alike, table
from naviglio.described import RESPELLED
from naviglio.errors import DataError, TargetError
from naviglio.model import LedgerRow, LoadCounts, TableName, TableSchema
from naviglio.ports import Staging, TargetTransaction

_Counts = tuple[int, int, int]  # inserted, updated, deleted


class DuckTarget:
    """A file that is written, over one session; it belongs to one thread.

    From the first question until `close` no other process can open the file.
    """

    def __init__(self, url: str) -> None:
        self._at = address(url)
        self._open: duckdb.DuckDBPyConnection | None = None
        self._catalogue = ""
        self._alive: set[str] = set()  # attempts whose staging tables this session has

    def ledger(self) -> dict[str, LedgerRow]:
        """Return all ledger rows by target name; empty when there is no ledger yet."""
        with self._session() as connection:
            return ledger.rows(connection, self._catalogue)

    def stage(
        self, attempt: str, schema: TableSchema, batches: Iterator[pa.RecordBatch], *, whole: bool
    ) -> Staging:
        """Create and fill the staging table of an attempt."""
        with self._session(f", staging {attempt}") as connection:
            staging = stagings.fill(connection, attempt, schema, batches, whole=whole)
            self._alive.add(attempt)
            return staging

    def check(self, target: TableName, schema: TableSchema, *, adopt: bool) -> None:
        """Refuse a target that can't take the rows, before anything is staged."""
        refuse_alike(schema)
        with self._session(f", target {str(target)!r}") as connection:
            found = find(connection, self._catalogue, target)
            loaded = ledger.rows(connection, self._catalogue)
            _refuse_other_name(target, loaded)
            known = str(target) in loaded
            if found is None:
                _refuse_lost(target, known=known)
                sql.create_target(table(self._catalogue, target), schema)  # raises for no name
                return
            if not (adopt or known or found.comment.startswith(refusals.MADE_BY)):
                raise refusals.not_ours(target)
            _refuse_misfit(target, found, schema)

    @contextmanager
    def begin(self) -> Iterator[TargetTransaction]:
        """Open a transaction; its commit is the third of the three commits.

        With it go the staging tables that it merged. Transactions of one process take turns.
        """
        with self._session() as connection, turn(self._at):
            connection.execute("BEGIN TRANSACTION")
            try:
                ledger.ensure(connection, self._catalogue)
                transaction = DuckTransaction(connection, self._catalogue, frozenset(self._alive))
                yield transaction
                for merged in transaction.merged:
                    connection.execute(stagings.drop_staging(merged.name))
                connection.execute("COMMIT")
            except BaseException:
                with suppress(duckdb.Error):  # there is none left after a failed commit
                    connection.execute("ROLLBACK")
                raise
            self._alive -= {merged.attempt for merged in transaction.merged}

    def close(self) -> None:
        """End the session, and its staging tables with it; the file is free for others."""
        connection, self._open = self._open, None
        self._alive.clear()
        if connection is not None:
            connection.close()

    @contextmanager
    def _session(self, doing: str = "") -> Iterator[duckdb.DuckDBPyConnection]:
        if self._open is None:
            self._open = connect(self._at)
            self._catalogue = str(fetch(self._open, "SELECT current_database()")[0][0])
        try:
            yield self._open
        except duckdb.Error as error:
            raise translate(error, f"file {self._at.path!r}{doing}") from None


@dataclass(frozen=True)
class DuckTransaction:
    """One transaction of the target; an error ends all of it."""

    connection: duckdb.DuckDBPyConnection
    catalogue: str
    alive: frozenset[str]
    merged: list[Staging] = field(default_factory=list)

    def lock(self, target: TableName) -> LedgerRow | None:
        """Return the target's ledger row, which the file's one writer keeps until the end."""
        return ledger.row(self.connection, self.catalogue, str(target))

    def record(self, row: LedgerRow) -> None:
        """Write the target's ledger row."""
        ledger.record(self.connection, self.catalogue, row)

    def merge(self, target: TableName, schema: TableSchema, staging: Staging) -> LoadCounts:
        """Make the target equal to the staged rows, or apply the staged changes.

        Rows that can't be stored as they are have been refused before anything is written.
        """
        if staging.attempt not in self.alive:
            raise refusals.stale(staging.name)
        found = self._find(target)
        if found is not None:
            _refuse_misfit(target, found, schema)
        found = self._add_columns(target, found or self._create(target, schema), schema)
        job = sql.Merge(
            target=table(self.catalogue, target), schema=schema, staging=staging.name,
            found={n: column for n in schema.names if (column := found.column(n)) is not None},
            whole=staging.whole, has_beyond=staging.has_beyond,
        )  # fmt: skip
        try:
            counts = self._fill(target, job, found)
        except duckdb.Error as error:
            if not is_about_rows(error):
                raise
            raise self._blame(target, job, found, error) from None
        self.merged.append(staging)
        return counts

    def _find(self, target: TableName) -> Found | None:
        return find(self.connection, self.catalogue, target)

    def _create(self, target: TableName, schema: TableSchema) -> Found:
        schema_name = target.schema or DEFAULT_SCHEMA
        self.connection.execute(ledger.create_schema(self.catalogue, schema_name))
        name = table(self.catalogue, target)
        self.connection.execute(sql.create_target(name, schema))
        self.connection.execute(f"COMMENT ON TABLE {name} IS {literal(f'{refusals.MADE_BY}.')}")
        return self._found(target)

    def _add_columns(self, target: TableName, found: Found, schema: TableSchema) -> Found:
        lacking = found.lacks(schema)
        for column in lacking:
            self.connection.execute(sql.add_column(table(self.catalogue, target), column))
        return self._found(target) if lacking else found

    def _found(self, target: TableName) -> Found:
        found = self._find(target)
        if found is None:
            raise refusals.not_made(target)
        return found

    def _fill(self, target: TableName, job: sql.Merge, found: Found) -> LoadCounts:
        living = self._refuse_flaws(target, job)
        if not fetch(self.connection, f"SELECT 1 FROM {job.target} LIMIT 1"):
            self.connection.execute(sql.insert(job))  # whose key's index refuses twins
            return LoadCounts(inserted=living)
        fold = self._refuse_twins(target, job)
        (inserted, updated, deleted), done = self._change(job, fold=fold)
        if done != (inserted, updated, deleted):
            raise TargetError(
                f"target {str(target)!r}: the load touched other rows than the {inserted} to be "
                f"inserted, {updated} updated and {deleted} deleted. Nothing was loaded."
            )
        return LoadCounts(
            inserted=inserted, updated=updated, deleted=deleted,
            unchanged=living - inserted - updated,
        )  # fmt: skip

    def _change(self, job: sql.Merge, *, fold: bool) -> tuple[_Counts, _Counts]:
        """Change what differs; return how many rows that is, and how many the server changed."""
        self.connection.execute(differing.find_work(job, fold=fold))
        inserted, updated, deleted, *flags = fetch(self.connection, differing.count_work(job))[0]
        changed = [name for name, flag in zip(sql.changing(job), flags, strict=True) if flag]
        # What goes makes room for what comes.
        gone = self._done(differing.delete_gone(job)) if deleted else 0
        new = self._done(differing.update_changed(job, changed)) if updated else 0
        come = self._done(differing.insert_new(job)) if inserted else 0
        self.connection.execute(differing.drop_work())
        return (inserted, updated, deleted), (come, new, gone)

    def _done(self, statement: str) -> int:
        return int(fetch(self.connection, statement)[0][0])

    def _refuse_flaws(self, target: TableName, job: sql.Merge) -> int:
        """Refuse rows that don't fit; count the living."""
        suspected = sql.flaws(job)
        living, *flawed = fetch(self.connection, sql.survey(job, suspected))[0]
        for flaw, rows in zip(suspected, flawed, strict=True):
            if rows:
                told = self._told(job, sql.flawed_key(job, flaw))
                raise refusals.unfit(target, flaw.column, flaw.why, told, rows)
        return int(living)

    def _refuse_twins(self, target: TableName, job: sql.Merge) -> bool:
        """Refuse two living rows of one key; tell whether some key has more than one change."""
        living, most = fetch(self.connection, sql.keys(job))[0]
        if living > 1:
            raise DataError(
                f"target {str(target)!r}: two rows have one key{self._told(job, sql.twin(job))}. "
                f"Nothing was loaded. {RESPELLED}"
            )
        return bool(most > 1)

    def _blame(
        self, target: TableName, job: sql.Merge, found: Found, error: duckdb.Error
    ) -> DataError:
        """Return the error that names the key of a row that a constraint refused, where it can."""
        told = ""
        with suppress(duckdb.Error):
            self.connection.execute("ROLLBACK")
            told = self._told(job, sql.twin(job))
            for check in found.checks:
                told = told or self._told(job, sql.breaking(job, check))
        return DataError(
            f"target {str(target)!r}: {said(error)}{told}. Nothing was loaded. Correct the row at "
            "its source, or the target's constraint."
        )

    def _told(self, job: sql.Merge, query: str) -> str:
        """Return the key that a query finds, for people; empty for none."""
        return refusals.keyed(job.schema.key, *fetch(self.connection, query)[:1])


def _refuse_lost(target: TableName, *, known: bool) -> None:
    if known:
        raise refusals.gone(
            target, f"DELETE FROM {ledger.LEDGER} WHERE target = {literal(str(target))}"
        )


def _refuse_other_name(target: TableName, loaded: Mapping[str, LedgerRow]) -> None:
    """Refuse a table that is loaded under another spelling: the ledger tells names by bytes."""

    def full(name: str) -> str:
        return fold(name if "." in name else f"{DEFAULT_SCHEMA}.{name}")

    for other, row in loaded.items():
        if other != str(target) and full(other) == full(str(target)):
            raise refusals.other_name(target, row.pipeline, other)


def _refuse_misfit(target: TableName, found: Found, schema: TableSchema) -> None:
    if problems := misfits(found, schema):
        raise refusals.misfit(target, problems)
