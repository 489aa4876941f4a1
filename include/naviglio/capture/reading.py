"""What one table's capture reads with, and what comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Protocol

import pyarrow as pa

from naviglio.carriers import arrow_schema, key_schema
from naviglio.errors import ConfigError
from naviglio.model import (
    KEY_HASH,
    OP,
    ROW_HASH,
    UPSERT,
    DataFile,
    Fence,
    Part,
    TablePosition,
    TableSchema,
    TableSpec,
    Window,
)
from naviglio.ports import Scan, Snapshot

_HASHES = {"none": (), "key": (KEY_HASH,), "both": (KEY_HASH, ROW_HASH)}


class Sink(Protocol):
    """Where files of the attempt are written; `landing.Attempt` is one."""

    def write(
        self,
        name: str,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        bounded: Sequence[str] = (),
    ) -> tuple[DataFile, ...]:
        """Write batches as files, which tell the bounds of some columns; none without rows."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One table inside one snapshot of its group."""

    spec: TableSpec
    schema: TableSchema
    last: TablePosition | None
    snapshot: Snapshot
    fence: Fence
    sink: Sink
    number: int
    at_utc: datetime
    hash_spec: str
    landed_since: Callable[[int], list[str]]  # batch -> files of the table's later parts
    locate: Callable[[str], str]  # path in the landing -> what readers of Parquet open
    held: Callable[[Window | None], int]  # rows of the lake table with their event time in it; all
    behind: Callable[[], bool]  # whether the lake table lacks a batch, or is away
    # Files of changes -> rows of the lake table that they delete; None while it lacks a batch.
    deleted_by: Callable[[list[str]], int | None]
    kept: Callable[[], TableSchema | None]  # of the lake table, with columns that the source lost

    @property
    def way(self) -> str:
        """The way as the position records it."""
        return way_of(self.spec)

    @property
    def hashes(self) -> Literal["none", "key", "both"]:
        """The hashes that its rows carry, because a later capture compares by them."""
        if self.spec.way == "diff":
            return "both"
        return "key" if self.spec.deletes.way == "sweep" else "none"

    @property
    def bound(self) -> int | None:
        """The point below which the stream's rows are settled; None while there is none.

        A column of fewer digits than the clock may hold a time cut or rounded down, below the fence
        by up to a unit of its last digit.
        """
        point = self.fence.of(self.spec.name)
        digits = self.schema.column(self.spec.modified).precision
        if point is None or digits is None or self.spec.name in self.fence.numbers:
            return point
        return point - int(10 ** (9 - digits))

    @property
    def fingerprint(self) -> str:
        """The hash's specification: algorithm, columns and key; hashes of another never compare."""
        columns = [(c.name, c.source_type) for c in self.schema.columns]
        digest = hashlib.sha256(repr((columns, self.schema.key)).encode()).hexdigest()
        return f"{self.hash_spec}:{digest[:16]}"

    def known(self, told: int, window: Window | None = None) -> int:
        """Return how many rows there are, as the guard knows.

        Those of the lake; while it lacks a batch, or is away, what captures have `told` if more.
        """
        held = self.held(window)
        return max(held, told) if self.behind() else held

    def scan(self, **kwargs: object) -> Scan:
        """Return a scan of the table."""
        return replace(Scan(table=self.spec.source, schema=self.schema), **kwargs)  # type: ignore[arg-type]  # dataclasses.replace types no mapping

    def land(
        self,
        name: str,
        batches: Iterable[pa.RecordBatch],
        *,
        hashes: Literal["none", "key", "both"] = "none",
        changes: bool = False,
    ) -> tuple[DataFile, ...]:
        """Write rows of the table (with `_op` where they are changes) and their hashes."""
        schema = arrow_schema(self.schema, changes=changes)
        for column in _HASHES[hashes]:
            schema = schema.append(pa.field(column, pa.int64()))
        first = self.schema.key[:1]  # a MERGE passes over what lies outside of its bounds
        return self.sink.write(f"{self.spec.name}-{name}", schema, batches, first)

    def part(self, **kwargs: object) -> Part:
        """Return a part of this table."""
        basics = {
            "table": self.spec.name,
            "schema": self.schema,
            "event_time": self.spec.event_time,
        }
        return Part(**{**basics, **kwargs})  # type: ignore[arg-type]  # keyword arguments of Part


@dataclass(frozen=True, kw_only=True)
class Captured:
    """What a way found: the next position and a part, or None where nothing has to land.

    `deletes` are the rows that would vanish, `of` those known before: what the guard looks at.
    `compared`: all that was known was looked for, so that no deletes means that none are gone.
    """

    position: TablePosition
    part: Part | None = None
    deletes: int = 0
    of: int = 0
    compared: bool = False
    lost: tuple[Window, ...] = ()  # the windows in which rows would vanish


def need_one_moment(snapshot: Snapshot, of: object, what: str) -> None:
    """Raise ConfigError where the snapshot's reads may be of different moments."""
    if snapshot.torn:
        raise ConfigError(f"{of}: {what} needs one moment of the source. {snapshot.torn}")


def refuse_torn(spec: TableSpec, snapshot: Snapshot) -> None:
    """Raise ConfigError where the table's declaration needs one moment, and there is none.

    What does not is a stream along times or row versions: a row that changes while it is read may
    be missed or come as it was, but its change is above the fence and comes later. An integer may
    stay as it is when its row moves.
    """
    if spec.way != "stream":
        what = f"`{spec.way}`, which takes an absent row for a deleted one,"
    elif spec.deletes.way == "sweep":
        what = "`deletes: sweep`, which takes an absent key for a deleted one,"
    elif spec.nulls == "read":
        what = "`nulls: read`, whose rows have no order,"
    elif spec.lag is not None:
        what = "a stream along integers, which need not grow when a row moves,"
    else:
        return
    need_one_moment(snapshot, spec.source, what)


def way_of(spec: TableSpec) -> str:
    """Return a table's way as its position records it."""
    column = spec.event_time if spec.way == "windows" else spec.modified
    return f"{spec.way} {column}".strip()


def rows_of(files: Iterable[DataFile]) -> int:
    """Count the rows of files."""
    return sum(file.rows for file in files)


def with_op(batch: pa.RecordBatch, schema: pa.Schema, op: str = UPSERT) -> pa.RecordBatch:
    """Return the batch as changes of one operation, with NULL in columns it does not hold."""
    present = set(batch.schema.names)
    columns = [
        pa.repeat(pa.scalar(op), batch.num_rows)
        if field.name == OP
        else batch.column(field.name)
        if field.name in present
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def hash_schema(schema: TableSchema, *, keys_only: bool) -> pa.Schema:
    """Return the Arrow schema of a hash state's files."""
    hashes = _HASHES["key" if keys_only else "both"]
    return pa.schema([*key_schema(schema), *(pa.field(name, pa.int64()) for name in hashes)])
