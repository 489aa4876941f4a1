"""One transaction of a target: lock, merge or swap, record; all of it or nothing."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace

import mssql_python
from mssql_python import Connection

from naviglio import refusals
from naviglio.adapters.mssql import indexes, ledger, ranges, swap
from naviglio.adapters.mssql import merge as sql
from naviglio.adapters.mssql.belongings import Belongings
from naviglio.adapters.mssql.blame import blame
from naviglio.adapters.mssql.errors import is_about_rows, is_lost, said
from naviglio.adapters.mssql.fit import Found, find, made, refuse_misfit
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.flaws import Looked, refuse_flaws
from naviglio.adapters.mssql.impersonation import refuse_powerless
from naviglio.adapters.mssql.sql import DEFAULT_SCHEMA
from naviglio.errors import ContentionError, NaviglioError
from naviglio.model import LedgerRow, LoadCounts, TableName, TableSchema
from naviglio.ports import Staging

log = logging.getLogger("naviglio.load")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the session that staged still holds; it outlives a transaction that is repeated."""

    wait_s: float  # for locks; 0 is without end
    run_as: str = ""
    alive: set[str] = field(default_factory=set)  # attempts whose locks it has
    beside: dict[str, Belongings] = field(default_factory=dict)  # what their tables were made for
    plain: set[str] = field(default_factory=set)  # attempts that are merged without further ado
    looked: dict[tuple[object, ...], Looked] = field(default_factory=dict)  # at whose rows


@dataclass(frozen=True)
class MssqlTransaction:
    """One transaction of the target; the session's XACT_ABORT ends all of it at any error."""

    connection: Connection
    standing: Standing
    merged: list[Staging] = field(default_factory=list)
    swapped: list[TableName] = field(default_factory=list)

    def lock(self, target: TableName) -> LedgerRow | None:
        """Lock the target's ledger row (also when absent) until the end; return it."""
        return ledger.lock(self.connection, str(target), self.standing.wait_s)

    def record(self, row: LedgerRow) -> None:
        """Write the target's ledger row."""
        ledger.record(self.connection, row)

    def merge(self, target: TableName, schema: TableSchema, staging: Staging) -> LoadCounts:
        """Make the target equal to the staged rows, or apply the staged changes."""
        before = self._fitting(target, schema, staging)
        counts = self._swap(target, schema, staging, before) if staging.beside else None
        if counts is None:
            counts = self._merge(target, schema, staging, before)
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
        before = self._fitting(target, schema, staging)
        counts = self._merge(target, schema, staging, before, low, high)
        if high is None:
            self.merged.append(staging)
        return counts

    def _fitting(self, target: TableName, schema: TableSchema, staging: Staging) -> Found | None:
        """Return the target, None when absent; refuse a misfit, and a staging that is lost."""
        if staging.attempt not in self.standing.alive:
            raise refusals.stale(staging.name)
        before = find(self.connection, target)
        if before is not None:
            refuse_powerless(target, before, self.standing.run_as)
            refuse_misfit(target, before, schema)
        return before

    # --- rows that were filled in beside ----------------------------------------------------------

    def _swap(
        self, target: TableName, schema: TableSchema, staging: Staging, before: Found | None
    ) -> LoadCounts | None:
        """Give the target the rows beside; None: they must be merged."""
        made_for = self.standing.beside.get(staging.attempt, swap.ABSENT)
        if staging.attempt in self.standing.plain:
            return None
        gone = None
        if (before.id if before else 0) == made_for.id:
            try:
                if before is None:
                    self._create(target, schema)
                gone = swap.into_place(
                    self.connection, target, schema, staging, made_for=made_for,
                    wait_s=self.standing.wait_s,
                )  # fmt: skip
            except mssql_python.Error as error:
                raise self._plainly(target, staging, error) from None
        if gone is None:
            log.info("target %s changed meanwhile: merged, not swapped", target)
            return None
        self.swapped.append(target)
        return LoadCounts(inserted=staging.rows, deleted=gone)

    def _plainly(
        self, target: TableName, staging: Staging, error: mssql_python.Error
    ) -> NaviglioError | mssql_python.Error:
        """Return the error after which the transaction is tried again, as a merge and no more."""
        if is_lost(error):
            return error
        self.standing.plain.add(staging.attempt)
        return ContentionError(
            f"target {str(target)!r}: {said(error)}. Readers hold it, or the server refuses to "
            "change it so: the staged rows are merged instead."
        )

    # --- rows that are merged ---------------------------------------------------------------------

    def _merge(
        self,
        target: TableName,
        schema: TableSchema,
        staging: Staging,
        before: Found | None,
        low: str | None = None,
        high: str | None = None,
    ) -> LoadCounts:
        """Merge, all or one range.

        Rows that can't be stored as they are have been refused before anything is written.
        """
        job = None
        try:
            found = before or self._create(target, schema)
            found = self._add_columns(target, found, schema)
            job = replace(sql.job(target, schema, staging, found), low=low, high=high)
            return self._fill(job, staging)
        except mssql_python.Error as error:
            if job is None or not is_about_rows(error):
                raise
            with suppress(mssql_python.Error):
                self.connection.rollback()
            raise blame(self.connection, job, error) from None

    def _create(self, target: TableName, schema: TableSchema) -> Found:
        wait_s = self.standing.wait_s
        ledger.ensure_schema(self.connection, target.schema or DEFAULT_SCHEMA, wait_s)
        self._run(sql.create_target(target, schema))
        self._run(sql.mark_target(target))
        return made(self.connection, target)

    def _add_columns(self, target: TableName, found: Found, schema: TableSchema) -> Found:
        lacking = found.lacks(schema)
        if not lacking:
            return found
        self._run(sql.add_columns(target, lacking))
        return made(self.connection, target)

    def _fill(self, job: sql.Merge, staging: Staging) -> LoadCounts:
        part = job.low is not None or job.high is not None
        looked = self._look(job, staging)
        job, living = replace(job, fold=looked.fold), looked.living
        if job.whole and living != staging.rows:
            raise refusals.short(staging.name)
        if part:
            living = int(fetch(self.connection, ranges.count_range(job))[0][0])
        elif not fetch(self.connection, sql.is_empty(job.target)):
            self._run(sql.insert(job))
            return LoadCounts(inserted=living)
        off = self._turn_off(job.target, staging) if staging.rebuild else []
        done = self._actions(job)
        for index in off:
            self._run(indexes.rebuild(job.target, index))
        inserted, updated = done.get("INSERT", 0), done.get("UPDATE", 0)
        return LoadCounts(
            inserted=inserted, updated=updated, deleted=done.get("DELETE", 0),
            unchanged=living - inserted - updated,
        )  # fmt: skip

    def _look(self, job: sql.Merge, staging: Staging) -> Looked:
        """Look for rows that don't fit: once for a staging and the target's columns as they are."""
        seen = (staging.attempt, job.target, *job.found.values())
        if seen not in self.standing.looked:
            self.standing.looked[seen] = refuse_flaws(self.connection, job)
        return self.standing.looked[seen]

    def _turn_off(self, target: TableName, staging: Staging) -> list[indexes.Free]:
        """Turn the indexes off that can be, unless readers hold the table."""
        if staging.attempt in self.standing.plain:
            return []
        free = indexes.free(self.connection, target)
        try:
            with swap.impatient(self.connection, self.standing.wait_s):
                for index in free:
                    self._run(indexes.disable(target, index))
        except mssql_python.Error as error:
            raise self._plainly(target, staging, error) from None
        return free

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
