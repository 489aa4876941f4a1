"""Several workers, stopped at every point and let go in random order, lose and double nothing.

A worker that is never let go again is one that was killed; one that is let go much later is a
zombie. Writers of the source come in between, with long transactions that commit late.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from naviglio.capture.table import Wish
from naviglio.config.home import Home
from naviglio.connections.connections import Connections
from naviglio.flows.replicate import replicate
from naviglio.flows.site import Site
from naviglio.model import OP, UPSERT, Deletes, Group, Guard, Pipeline, TableName, TableSpec
from naviglio.partitions import windows_between
from tests.chaos.workers import Worker
from tests.fakes import FakeDatabase, FakeSource, FakeTarget, Row, Writer

FULL = bool(os.environ.get("NAVIGLIO_CHAOS_FULL"))
pytestmark = pytest.mark.timeout(1200 if FULL else 300)
KEYS = st.integers(min_value=1, max_value=6)
DAYS = st.integers(min_value=-3, max_value=-1)  # before the clock's start, so always final
NAME = TableName(schema="", table="rows")


class Races(RuleBasedStateMachine):
    """One table, many workers; subclasses choose the way."""

    way: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="naviglio-races-"))
        table = TableSpec(
            name="rows", source=NAME, target=NAME, key=("id",), event_time="day",
            guard=Guard(fraction=1.0, rows=10**9), **self.way,
        )  # fmt: skip
        self.group = Group(name="rows", tables=(table,))
        self.pipeline = Pipeline(
            name="races", source="fake", target="fake", time_zone="UTC", groups=(self.group,),
            fence_margin_s=0.0,
        )  # fmt: skip
        self.database, self.target = FakeDatabase(), FakeTarget()
        self.open: list[Writer] = []
        self.workers: list[Worker] = []
        self.killed: list[Worker] = []
        self.seen: dict[str, dict[int, int]] = {"lake": {}, "target": {}}
        self.seen_version: int | None = None

    # --- the source's own life ------------------------------------------------------------------

    @initialize()
    def first_row(self) -> None:
        """Keep one row for ever: a table that turns empty would be a question."""
        writer = self.database.begin()
        self.database.put(writer, 0, -1)
        self.database.commit(writer)

    @rule(key=KEYS, day=DAYS)
    def write(self, key: int, day: int) -> None:
        """Insert or update a row in a short transaction."""
        self._written(key, lambda writer: self.database.put(writer, key, day))

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        """Delete a row in a short transaction."""
        self._written(key, lambda writer: self.database.delete(writer, key))

    def _written(self, key: int, change: Any) -> None:
        if any(key in writer.changes for writer in self.open):
            return  # the row's lock is held
        writer = self.database.begin()
        change(writer)
        self.database.commit(writer)

    @precondition(lambda self: len(self.open) < 2)
    @rule(key=KEYS, day=DAYS)
    def open_long_transaction(self, key: int, day: int) -> None:
        """Begin a transaction, write, and don't commit yet."""
        if any(key in writer.changes for writer in self.open):
            return
        writer = self.database.begin()
        self.database.put(writer, key, day)
        self.open.append(writer)

    @precondition(lambda self: self.open)
    @rule()
    def commit_long_transaction(self) -> None:
        """Commit late what was written early."""
        self.database.commit(self.open.pop(0))

    # --- workers --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < 3)
    @rule(day=st.sampled_from([None, None, "2012-12-30", "2012-12-31"]), verify=st.booleans())
    def start(self, day: str | None, verify: bool) -> None:  # noqa: FBT001 - Hypothesis fills it
        """Start a run, or a run of one partition."""
        windows = windows_between(day, day, _utc()).values() if day else ()
        wish = Wish(windows=() if self._diff else tuple(windows), verify=verify)
        self.workers.append(Worker(lambda: self._run(wish)))

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(min_value=0, max_value=2), steps=st.integers(min_value=1, max_value=8))
    def let_go(self, which: int, steps: int) -> None:
        """Let one worker run over some points."""
        worker = self.workers[which % len(self.workers)]
        for _ in range(steps):
            worker.step()
        if worker.done:
            self._judge(worker)
            self.workers.remove(worker)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(min_value=0, max_value=2))
    def kill(self, which: int) -> None:
        """Never let a worker go again; the target ends the session of a dead client."""
        worker = self.workers.pop(which % len(self.workers))
        self.target.end_session(worker.thread)
        self.killed.append(worker)

    @precondition(lambda self: len(self.killed) > 1)
    @rule()
    def wake_a_zombie(self) -> None:
        """Let a worker go that everybody held for dead."""
        self.killed.pop(0).finish()

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def row_counters_never_go_down(self) -> None:
        """No observer of lake or target sees an older row after a newer one."""
        self._observe("target", self.target.rows)
        lake = self._site().lake(self.group.tables[0])
        if lake.exists() and lake.version() != self.seen_version:
            self.seen_version = lake.version()
            self._observe("lake", self._lake_rows())

    def _observe(self, side: str, rows: dict[int, Row]) -> None:
        for key, row in rows.items():
            assert row["counter"] >= self.seen[side].get(key, 0), (side, key)
            self.seen[side][key] = row["counter"]

    def teardown(self) -> None:
        """At quiescence source, lake and target are equal, and the lake replays the landing."""
        try:
            self._come_to_rest()
            self.row_counters_never_go_down()
            lake = self._lake_rows()
            assert lake == self.database.rows
            assert self.target.rows == self.database.rows
            assert lake == self._replayed()
            for zombie in self.killed:
                zombie.finish()
            assert self._lake_rows() == self.database.rows == self.target.rows
            assert self._replayed() == self.database.rows
        finally:
            for worker in self.workers + self.killed:
                worker.end()
            shutil.rmtree(self.home)

    def _come_to_rest(self) -> None:
        while self.open:
            self.commit_long_transaction()
        while self.workers:
            self.workers[0].finish()
            self._judge(self.workers.pop(0))
        self.target.owner = None
        for _ in range(2):  # the second finds what the first one's fence still held back
            self.database.tick()
            report = self._run(Wish(verify=True))
            assert report.error is None, report.error

    # --- inner ----------------------------------------------------------------------------------

    @property
    def _diff(self) -> bool:
        return bool(self.way["way"] == "diff")

    def _site(self) -> Site:
        site = Site(
            pipeline=self.pipeline,
            home=Home(root=self.home, pipelines=self.home),
            connections=Connections({}, None),
        )
        site.__dict__["source"] = FakeSource(self.database)  # in place of opening a connection
        site.__dict__["target"] = self.target
        return site

    def _run(self, wish: Wish) -> Any:
        report = replicate(self._site(), self.group, wish)
        if report.error is not None:
            raise report.error
        return report

    def _judge(self, worker: Worker) -> None:
        """A worker may lose races; any other error is a failure of the promise."""
        from naviglio.errors import RetryableError

        if worker.error is not None and not isinstance(worker.error, RetryableError):
            raise worker.error

    def _lake_rows(self) -> dict[int, Row]:
        lake = self._site().lake(self.group.tables[0])
        batches = lake.scan() if lake.exists() else iter(())
        return _by_key(row for batch in batches for row in batch.to_pylist())

    def _replayed(self) -> dict[int, Row]:
        """Replay the landing's files by the definition of the part kinds."""
        landing = self._site().landing(self.group)
        rows: dict[int, Row] = {}
        for number, manifest in enumerate(landing.after(0), start=1):
            assert manifest.number == number
            for part in manifest.parts:
                if part.kind == "snapshot":
                    rows = {}
                for window in part.windows:
                    rows = {
                        k: r for k, r in rows.items() if not window.start <= r["day"] < window.end
                    }
                for file in part.files:
                    for row in pq.read_table(Path(landing.store.root, file.path)).to_pylist():
                        if row.get(OP, UPSERT) == UPSERT:
                            rows.update(_by_key([row]))
                        else:
                            rows.pop(row["id"], None)
        return rows


def _by_key(rows: Any) -> dict[int, Row]:
    kept = ("id", "day", "modified", "counter")
    return {row["id"]: {name: row[name] for name in kept} for row in rows}


def _utc() -> Any:
    from zoneinfo import ZoneInfo

    return ZoneInfo("UTC")


class StreamRaces(Races):
    """A stream by modification time whose deletes are swept, with partitions read again."""

    way = {"way": "stream", "modified": "modified", "deletes": Deletes(way="sweep")}  # noqa: RUF012


class DiffRaces(Races):
    """A registry table compared by hashes."""

    way = {"way": "diff"}  # noqa: RUF012


class WindowRaces(Races):
    """A table by windows of event time, verified."""

    way = {"way": "windows", "since": "2012-12-29"}  # noqa: RUF012


_SETTINGS = settings(max_examples=400 if FULL else 25, stateful_step_count=40, deadline=None)
TestStreamRaces = StreamRaces.TestCase
TestStreamRaces.settings = _SETTINGS
TestDiffRaces = DiffRaces.TestCase
TestDiffRaces.settings = _SETTINGS
TestWindowRaces = WindowRaces.TestCase
TestWindowRaces.settings = _SETTINGS
