"""A source and a target in memory, for tests that order workers by the millisecond.

They keep the promises of `naviglio.ports` (both run the contract suites) with real transactions: a
writer's modification times are those of its start, snapshots see what was committed, a load that
does not end well changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from naviglio.carriers import arrow_schema, key_schema
from naviglio.conditions import (
    Both,
    Buckets,
    Condition,
    Everything,
    IsNull,
    Keys,
    Not,
    Since,
    Within,
)
from naviglio.errors import ConfigError, IdentityError, RetryableError
from naviglio.model import (
    BEYOND,
    DELETE,
    KEY_HASH,
    OP,
    ROW_HASH,
    Column,
    Fence,
    LedgerRow,
    LoadCounts,
    Place,
    TableName,
    TableSchema,
    Window,
)
from naviglio.points import reach
from naviglio.ports import LOWEST, Digest, Scan, SourceTraits, Staging

Row = dict[str, Any]
START = datetime(2013, 1, 1, tzinfo=UTC)

ROWS = TableSchema(
    columns=(
        Column(name="id", kind="int64", carrier="int64", source_type="bigint", nullable=False),
        Column(name="day", kind="timestamptz", carrier="timestamp[us, tz=UTC]", source_type="tz"),
        Column(name="modified", kind="timestamptz", carrier="timestamp[us, tz=UTC]",
               source_type="tz", nullable=False),
        Column(name="counter", kind="int64", carrier="int64", source_type="bigint"),
    ),
    key=("id",),
)  # fmt: skip


@dataclass
class Writer:
    """An open transaction: its rows become visible at its commit, with its start as their time."""

    started: int
    changes: dict[int, Row | None] = field(default_factory=dict)


@dataclass
class FakeDatabase:
    """One table of committed rows, a clock that ticks by hand, and the open transactions."""

    clock: int = 0  # seconds after START
    counter: int = 0
    order: int = 0
    rows: dict[int, Row] = field(default_factory=dict)
    writers: list[Writer] = field(default_factory=list)

    def tick(self) -> int:
        """Let a second pass."""
        self.clock += 1
        return self.clock

    def begin(self) -> Writer:
        """Open a transaction."""
        writer = Writer(started=self.tick())
        self.writers.append(writer)
        return writer

    def put(self, writer: Writer, key: int, day: int) -> None:
        """Write a row in a transaction; its counter is above all others."""
        self.counter += 1
        writer.changes[key] = {
            "id": key,
            "day": START + timedelta(days=day),
            "modified": START + timedelta(seconds=writer.started),
            "counter": self.counter,
        }

    def delete(self, writer: Writer, key: int) -> None:
        """Delete a row in a transaction."""
        writer.changes[key] = None

    def commit(self, writer: Writer) -> None:
        """Make a transaction's changes visible."""
        self.writers.remove(writer)
        self.order += 1
        self.tick()
        for key, row in writer.changes.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row


@dataclass
class FakeSource:
    """`naviglio.ports.Source` over a FakeDatabase."""

    database: FakeDatabase
    traits: SourceTraits = field(default_factory=lambda: SourceTraits(hash_spec="fake-1"))

    def describe(self, table: TableName, key: Sequence[str]) -> TableSchema:
        """Return the one schema."""
        if key and tuple(key) != ROWS.key:
            raise ConfigError(f"{table} has no column {key}; it has {ROWS.names}.")
        return ROWS

    def fence(self, margin_s: float, safety_lag_s: float | None) -> Fence:
        """Return the start of the oldest open transaction, or now."""
        oldest = min([w.started for w in self.database.writers], default=self.database.clock)
        return Fence(point=_point(START + timedelta(seconds=oldest)))

    def above(self, name: TableName, column: Column) -> int:
        """Return the number above all that are committed in the column."""
        return max((row[column.name] + 1 for row in self.database.rows.values()), default=LOWEST)

    @contextmanager
    def snapshot(self) -> Iterator[FakeSnapshot]:
        """Copy what is committed now."""
        rows = [dict(row) for row in self.database.rows.values()]
        yield FakeSnapshot(rows, self.database.order)

    def close(self) -> None:
        """Have nothing to give back."""


@dataclass
class FakeSnapshot:
    """`naviglio.ports.Snapshot` over a copy of the rows."""

    rows: list[Row]
    order: int
    torn: str = ""

    def place(self, since: Place | None) -> Place:
        """Return the number of commits seen."""
        if since and self.order < since.order:
            raise IdentityError(f"the source stands at {self.order}, behind {since.order}.")
        return Place(incarnation="fake", order=self.order)

    def read(self, scan: Scan) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches of two."""
        meets = condition(scan.where)
        found = [row for row in self.rows if meets(row)]
        schema = arrow_schema(scan.schema) if scan.rows else key_schema(scan.schema)
        asked = {KEY_HASH: ("key", "both"), ROW_HASH: ("row", "both")}
        for name in (name for name, hashes in asked.items() if scan.hashes in hashes):
            schema = schema.append(pa.field(name, pa.int64()))
        for start in range(0, len(found), 2):
            yield pa.RecordBatch.from_pylist([_full(r) for r in found[start : start + 2]], schema)

    def digest(
        self, scan: Scan, by: Buckets | Sequence[Window], event_time: str = ""
    ) -> list[Digest]:
        """Count and xor."""
        column = KEY_HASH if scan.hashes == "key" else ROW_HASH
        sums: dict[int, list[int]] = {}
        for row in map(_full, self.rows):
            for index in _places(row, by, event_time):
                found = sums.setdefault(index, [0, 0])
                found[0] += 1
                found[1] ^= row[column]
        return [Digest(index=i, rows=n, checksum=x) for i, (n, x) in sorted(sums.items())]

    def count(self, scan: Scan) -> int:
        """Count the rows of a scan."""
        return sum(map(condition(scan.where), self.rows))

    def bad_keys(self, scan: Scan) -> list[str]:
        """Have none: rows are kept by key."""
        return []


@dataclass
class FakeTarget:
    """`naviglio.ports.Target` with rows and ledger in memory."""

    rows: dict[int, Row] = field(default_factory=dict)
    rows_ledger: dict[str, LedgerRow] = field(default_factory=dict)
    staged: dict[str, list[Row]] = field(default_factory=dict)
    owner: object | None = None  # the transaction that holds the lock

    def ledger(self) -> dict[str, LedgerRow]:
        """Return a copy of the ledger."""
        return dict(self.rows_ledger)

    def stage(
        self, attempt: str, schema: TableSchema, batches: Iterator[pa.RecordBatch], *, whole: bool
    ) -> Staging:
        """Keep the rows under the attempt's name."""
        rows = [row for batch in batches for row in batch.to_pylist()]
        self.staged[attempt] = rows
        return Staging(name=attempt, attempt=attempt, rows=len(rows), whole=whole, has_beyond=False)

    def check(self, target: TableName, schema: TableSchema, *, adopt: bool) -> None:
        """Take everything."""

    @contextmanager
    def begin(self) -> Iterator[FakeTransaction]:
        """Change copies; put them in place when the context ends well."""
        transaction = FakeTransaction(self, dict(self.rows), dict(self.rows_ledger))
        try:
            yield transaction
            transaction.put_in_place()
        finally:
            if self.owner is transaction:
                self.owner = None

    def end_session(self, thread: int | None) -> None:
        """Free the lock of a worker that died, as a server does for a client that is gone."""
        if isinstance(self.owner, FakeTransaction) and self.owner.thread == thread:
            self.owner = None

    def close(self) -> None:
        """Have nothing to give back."""


@dataclass(eq=False)
class FakeTransaction:
    """`naviglio.ports.TargetTransaction` over copies."""

    target: FakeTarget
    rows: dict[int, Row]
    ledger: dict[str, LedgerRow]
    merged: list[str] = field(default_factory=list)  # stagings that go with the commit
    thread: int | None = field(default_factory=threading.get_ident)  # whose session it is in

    def lock(self, target: TableName) -> LedgerRow | None:
        """Wait for the lock at a point, so that a test's scheduler goes on with others."""
        for _ in range(20):
            if self.target.owner is None:
                break
            reach("load: waiting for the lock")
        else:
            raise RetryableError(f"{target} is locked by another load; try again.")
        self.target.owner = self
        self.rows, self.ledger = dict(self.target.rows), dict(self.target.rows_ledger)
        return self.ledger.get(str(target))

    def merge(self, target: TableName, schema: TableSchema, staging: Staging) -> LoadCounts:
        """Make the rows equal to the staged ones, or apply the staged changes."""
        staged = self.target.staged[staging.name]
        self.merged.append(staging.name)
        gone = {row["id"] for row in staged if row.get(OP) == DELETE}
        new = {row["id"]: _plain(row) for row in staged if row.get(OP) != DELETE}
        if staging.whole:
            gone = set(self.rows) - set(new)
        deleted = [key for key in gone if key in self.rows and key not in new]
        inserted = [key for key in new if key not in self.rows]
        updated = [k for k in new if k in self.rows and self.rows[k] != new[k]]
        for key in deleted:
            del self.rows[key]
        self.rows.update(new)
        return LoadCounts(
            inserted=len(inserted), updated=len(updated), deleted=len(deleted),
            unchanged=len(new) - len(inserted) - len(updated),
        )  # fmt: skip

    def record(self, row: LedgerRow) -> None:
        """Write the ledger row."""
        self.ledger[row.target] = row

    def put_in_place(self) -> None:
        """Commit, unless the lock was lost (the server ended the session of a dead worker)."""
        if self.target.owner is not self:
            raise ConnectionError("the session is gone")
        self.target.rows, self.target.rows_ledger = self.rows, self.ledger
        for name in self.merged:
            del self.target.staged[name]


def _full(row: Row) -> Row:
    return {**row, BEYOND: None, KEY_HASH: _hash([row["id"]]), ROW_HASH: _hash(list(row.values()))}


def _plain(row: Row) -> Row:
    return {name: row[name] for name in ROWS.names}


def _hash(values: list[Any]) -> int:
    digest = hashlib.blake2b(json.dumps(values, default=str).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _point(place: datetime | int) -> int:
    return place if isinstance(place, int) else round(place.timestamp()) * 1_000_000_000


def _places(row: Row, by: Buckets | Sequence[Window], event_time: str) -> list[int]:
    if isinstance(by, Buckets):
        return [row[KEY_HASH] & ((1 << by.bits) - 1)]
    return [i for i, w in enumerate(by) if w.start <= row[event_time] < w.end]


def condition(where: Condition) -> Callable[[Row], bool]:  # noqa: C901, PLR0911 - one case a kind
    """Return whether a row meets a condition."""
    match where:
        case Everything():
            return lambda row: True
        case Since(column=column, low=low, high=high):
            return lambda row: (
                (low is None or _point(row[column]) >= low)
                and (high is None or _point(row[column]) < high)
            )
        case Within(column=column, window=window):
            return lambda row: window.start <= row[column] < window.end
        case Buckets(bits=bits, numbers=numbers):
            return lambda row: (
                numbers is None or (_full(row)[KEY_HASH] & ((1 << bits) - 1)) in set(numbers)
            )
        case Keys(keys=keys):
            wanted = {key["id"] for key in keys.to_pylist()}
            return lambda row: row["id"] in wanted
        case IsNull(column=column):
            return lambda row: row[column] is None
        case Both(one=one, other=other):
            first, second = condition(one), condition(other)
            return lambda row: first(row) and second(row)
        case Not(condition=inner):
            meets = condition(inner)
            return lambda row: not meets(row)
