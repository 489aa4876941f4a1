"""What the rooms need from the outside world, as Protocols of at most five methods.

Every implementation runs the contract suite in `tests/contract/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, Protocol, runtime_checkable

import msgspec
import pyarrow as pa

from naviglio.conditions import Buckets, Condition, Everything
from naviglio.model import (
    Column,
    Fence,
    LedgerRow,
    LoadCounts,
    Order,
    Place,
    TableName,
    TableSchema,
    Window,
)

# --- storage ------------------------------------------------------------------------------------


class Store(Protocol):
    """Files below one root (its one attribute). Paths are relative, with `/`.

    Raises StorageError for what its owner must mend (a full disk, a missing right).
    """

    @property
    def root(self) -> str:
        """The path or URI below which readers of Parquet find the files."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Make the file durably, whole and only if absent; False when it was there already.

        Raises LostRaceError when its folder, made if need be, is taken away meanwhile.
        """
        ...

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a file, or None when it is absent."""
        ...

    def write(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a new file below an existing folder; it is durable when the context ends well.

        Raises LostRaceError when the folder is gone (another attempt took the number).
        """
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; empty when it is absent."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all it holds; nothing when it is absent."""
        ...


# --- source -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What to read of a table.

    The batches hold the carriers of `schema`'s columns (or only of its key, with `rows=False`)
    and `_beyond` (with rows), then `_key_hash` and `_row_hash` where `hashes` asks for them.
    """

    table: TableName
    schema: TableSchema
    where: Condition = field(default_factory=Everything)
    rows: bool = True
    hashes: Literal["none", "key", "row", "both"] = "none"


class Digest(msgspec.Struct, frozen=True, order=True, gc=False):  # there are 100,000 at once
    """Rows of one bucket or window: how many, and the xor of their mixed row hashes."""

    index: int
    rows: int
    checksum: int


@dataclass(frozen=True, kw_only=True)
class SourceTraits:
    """How sources differ, as data."""

    hash_spec: str  # algorithm and version of `_row_hash` and digests
    # What a stream goes along by the column's own type, where its kind doesn't tell; None: nothing
    orders: Mapping[str, Order | None] = field(default_factory=dict)


class Snapshot(Protocol):
    """One consistent moment of the source, unless `torn`; every read of a capture happens in it."""

    @property
    def torn(self) -> str:
        """Why reads are of different moments, and what to do about it; empty where of one.

        Then a row that is absent need not be gone. Each read still shows committed rows only, and
        every row once that nobody changes meanwhile.
        """
        ...

    def place(self, since: Place | None) -> Place:
        """Return where this moment stands; IdentityError unless it follows `since`."""
        ...

    def read(self, scan: Scan) -> Iterator[pa.RecordBatch]:
        """Stream rows; memory is bounded by the batch."""
        ...

    def digest(
        self, scan: Scan, by: Buckets | Sequence[Window], event_time: str = ""
    ) -> list[Digest]:
        """Count and sum rows in the database by bucket of the key hash, or by window.

        Sums row hashes, or key hashes where `scan.hashes` is `key`. Windows are sorted and don't
        overlap; `index` is the window's place in them. Buckets and windows without rows are absent.
        """
        ...

    def count(self, scan: Scan) -> int:
        """Count the rows of a scan."""
        ...

    def bad_keys(self, scan: Scan) -> list[str]:
        """Return up to five keys (as text) that are NULL or stand on more than one row."""
        ...


class Source(Protocol):
    """A system of record, read only."""

    @property
    def traits(self) -> SourceTraits:
        """How it differs."""
        ...

    def describe(self, table: TableName, key: Sequence[str]) -> TableSchema:
        """Return the logical schema; an empty `key` asks for the table's primary key.

        Raises ConfigError: no such table or column, known values named; a type with no faithful
        carrier; no right to read.
        """
        ...

    def fence(self, margin_s: float, safety_lag_s: float | None) -> Fence:
        """Return the bound of modification times, read now; ConfigError where it can't be known.

        A declared `safety_lag_s` takes the place of what can't be known.
        """
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open one snapshot-consistent, read-only moment."""
        ...

    def close(self) -> None:
        """Give back every connection."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A source that tells where streams along numbers end."""

    def above(self, name: TableName, column: Column) -> int:
        """Return the number above all that are committed in the column, read now.

        Of the source's own count of writes: the least that an open transaction wrote, or that is
        written next. `LOWEST` of a table without rows.
        """
        ...


LOWEST = -(2**63)


# --- lake to target -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What a target lacks of a lake table, as of one version of it.

    The batches hold the carriers of `schema` and `_beyond`; changes also `_op`. With `why_whole`
    they hold all rows of the lake table, and say why changes would not do.
    """

    lake_table: str
    landing: str
    version: int
    batch: int
    schema: TableSchema
    why_whole: str
    batches: Iterator[pa.RecordBatch]
    rows: int | None = None  # of the lake table
    changed_rows: int | None = None  # that these changes touch at most; None: not known before
    gained: int | None = None  # rows that these changes add to a target, less those they delete
    evolved: bool = False  # columns came that the target may lack, also where no row changed
    batch_attempt: str = ""  # the batch and the attempt that landed it


# --- target -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Staging:
    """A filled staging table; its name carries the attempt."""

    name: str
    attempt: str
    rows: int
    whole: bool  # all rows of the lake table, or changes with `_op`
    has_beyond: bool  # some row holds values beyond their carrier
    beside: bool = False  # its rows are in a table that can take the target's place, or give them
    rebuild: bool = False  # indexes of the target are off while it is merged, then built again


class TargetTransaction(Protocol):
    """One transaction of the target: all or nothing, committed when its context ends well."""

    def lock(self, target: TableName) -> LedgerRow | None:
        """Lock the target's ledger row (also when absent) until the end; return it."""
        ...

    def merge(self, target: TableName, schema: TableSchema, staging: Staging) -> LoadCounts:
        """Make the target equal to the staged rows (`whole`), or apply the staged changes.

        Creates the table when it is absent, adds columns it lacks. Rows that don't differ byte for
        byte stay untouched. Raises DataError (a constraint; the key is named), TargetError,
        ConfigError (a column is missing or narrower in an adopted table).
        """
        ...

    def record(self, row: LedgerRow) -> None:
        """Write the target's ledger row."""
        ...


class Target(Protocol):
    """A warehouse that is written."""

    def ledger(self) -> dict[str, LedgerRow]:
        """Return all ledger rows by target name; empty when there is no ledger yet."""
        ...

    def stage(
        self, attempt: str, schema: TableSchema, batches: Iterator[pa.RecordBatch], *, whole: bool
    ) -> Staging:
        """Create and fill a staging table by bulk copy; memory is bounded by the batch.

        Batches hold the carriers of `schema`, `_beyond` and, unless `whole`, `_op`; of a delete
        only the key counts.
        """
        ...

    def check(self, target: TableName, schema: TableSchema, *, adopt: bool) -> None:
        """Refuse a target that can't take the rows, before anything is staged.

        ConfigError: a table that Naviglio did not make and that is not adopted, a column that is
        missing or narrower, a key without a unique index, a right that is missing.
        """
        ...

    def begin(self) -> AbstractContextManager[TargetTransaction]:
        """Open a transaction; its commit is the third of the three commits."""
        ...

    def close(self) -> None:
        """Drop staging tables of dead attempts and give back every connection."""
        ...


class RangedTransaction(TargetTransaction, Protocol):
    """A transaction that can merge one key range of a staging, which stays until the last one."""

    def merge_range(
        self,
        target: TableName,
        schema: TableSchema,
        staging: Staging,
        low: str | None,
        high: str | None,
    ) -> LoadCounts:
        """Merge the keys whose first column is in [low, high), as `cuts` tells; None is open."""
        ...


@runtime_checkable
class Ranging(Protocol):
    """A target that can be loaded one key range after the other, each in its own transaction."""

    def cuts(
        self, target: TableName, schema: TableSchema, staging: Staging, parts: int
    ) -> tuple[str, ...]:
        """Return up to `parts` - 1 values, in order, that part the staged keys evenly."""
        ...

    def begin(self) -> AbstractContextManager[RangedTransaction]:
        """Open a transaction."""
        ...


@runtime_checkable
class Swapping(Protocol):
    """A target whose tables can be filled beside their place, and take it in the transaction.

    `TargetTransaction.merge` does so with such a staging, or merges it where the table has come to
    hold what a swap would lose, or readers keep it.
    """

    def rows_of(self, target: TableName) -> int | None:
        """Return a table's rows as the server estimates them; None when there is no table."""
        ...

    def keeps(self, target: TableName, schema: TableSchema) -> tuple[str, ...]:
        """Return what a swap would lose, or why there can be none, by name; empty when nothing."""
        ...

    def stage_beside(
        self,
        attempt: str,
        target: TableName,
        schema: TableSchema,
        batches: Iterator[pa.RecordBatch],
    ) -> Staging:
        """Fill a table that can become the target, or give it its rows, with all rows.

        Raises SwapRefusedError for rows that it can't take as they come, or returns a staging that
        is not `beside`: a merge takes them, or tells which row is wrong.
        """
        ...


@runtime_checkable
class Rebuilding(Protocol):
    """A target that can turn indexes off for a merge and build them again, in its transaction.

    `TargetTransaction.merge` does so for a staging with `rebuild`, where readers let it.
    """

    def rebuildable(self, target: TableName) -> int:
        """Return how many indexes of a table can be off meanwhile; none that a check needs."""
        ...
