"""The words of the project as frozen data: schema, position, manifest, pipeline, ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

BEYOND = "_beyond"  # JSON text {column: source literal} of the values their carrier can't hold
OP = "_op"  # in stream parts and feeds: what happened to the key
UPSERT, DELETE = "upsert", "delete"
KEY_HASH, ROW_HASH = "_key_hash", "_row_hash"  # int64, computed by the source's database
_OF_DELTA = ("_change_type", "_commit_version", "_commit_timestamp")  # what its feed adds to rows
RESERVED = (BEYOND, OP, KEY_HASH, ROW_HASH, *_OF_DELTA)

Kind = Literal[
    "int16", "int32", "int64", "bool", "float32", "float64", "decimal", "number", "text", "date",
    "time", "timestamp", "timestamptz", "interval", "uuid", "bytes", "json", "jsonb", "literal",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TableName:
    """A table in a database; `schema` may be empty where the database has a default."""

    schema: str
    table: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}" if self.schema else self.table


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its logical type, the source's own spelling of it, and its carrier.

    `carrier` is the Arrow type (as text, e.g. `decimal128(15, 2)`) of the column in landing and
    lake. Kinds `number` (numeric without bounds), `time`, `interval`, `uuid`, `json`, `jsonb` and
    `literal` (any other type, by the source's own text form) are carried as `string`.
    """

    name: str
    kind: Kind
    carrier: str
    source_type: str
    nullable: bool = True
    length: int | None = None  # characters, of `text`
    precision: int | None = None  # digits, of `decimal`; digits of the second, of times
    scale: int | None = None
    collation: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """The logical schema of a table."""

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    key_is_unique: bool = True  # a unique index over NOT NULL columns vouches for it
    late: str = ""  # what it is, where rows come to it later than they were written

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """Return the column `name`; KeyError when there is none."""
        return {column.name: column for column in self.columns}[name]


def reserved(names: Iterable[str]) -> list[str]:
    """Return those names that are Naviglio's or Delta's own, which knows no case of letters."""
    return sorted(name for name in names if name.lower() in RESERVED)


# --- what a pipeline says -----------------------------------------------------------------------


# When readers see a load: all of it at one moment, or one key range after the other.
Visibility = Literal["at_once", "progressive"]
# What a stream goes along: the source's clock, its own count of writes, integers of the table's.
Order = Literal["time", "version", "number"]


@dataclass(frozen=True, kw_only=True)
class Deletes:
    """How deletes reach a stream: not at all, by a column that marks them, by comparing keys."""

    way: Literal["none", "column", "sweep"] = "none"
    column: str | None = None
    every_s: float = 0.0  # of `sweep`: seconds between two


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Deletes beyond both limits, or a table that turned empty, become a question."""

    fraction: float = 0.2
    rows: int = 100


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One table as the pipeline's YAML declares it."""

    name: str
    source: TableName
    target: TableName
    key: tuple[str, ...]
    way: Literal["stream", "windows", "diff", "transform"]
    modified: str = ""  # of `stream`: the modification time, or another order of changes
    zone: str = ""  # of `modified` where its type has none
    lag: int | None = None  # of a stream along integers: how far below the highest all is settled
    event_time: str = ""
    nulls: Literal["refuse", "read", "ignore"] = "refuse"  # rows without a modification time
    deletes: Deletes = Deletes()
    since: str | None = None  # of `windows`: the first partition
    adopt: bool = False  # the target table exists already and is taken over
    guard: Guard = Guard()
    run_as: str = ""  # the target's principal that merges; empty: the connection's login
    visibility: Visibility = "at_once"

    @property
    def has_partitions(self) -> bool:
        """Whether the rows of a partition can be read again: a comparison reads all or nothing."""
        return bool(self.event_time) and self.way != "diff"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tables captured together under one snapshot: the owner of numbers, position and landing."""

    name: str
    tables: tuple[TableSpec, ...]

    def table(self, name: str) -> TableSpec:
        """Return the table `name`; KeyError when there is none."""
        return {table.name: table for table in self.tables}[name]


@dataclass(frozen=True, kw_only=True)
class Input:
    """A lake table that a transform reads, and how its changes tell the days to compute again.

    `day`: the days of the changed rows' event time, in the pipeline's zone; only these are read.
    `through`: the days of the rows of input `through` that refer to the changed rows, by the pairs
    `on` (column there, column here). `all`: any change means every day.
    """

    table: str
    way: Literal["day", "through", "all"]
    event_time: str = ""  # of `day`
    through: str = ""
    on: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A lake table that Spark computes from others; its partitions are the days of column `day`."""

    name: str
    program: str  # path of the `.py` or `.sql` file
    target: TableName
    key: tuple[str, ...]
    day: str
    inputs: tuple[Input, ...]
    adopt: bool = False
    run_as: str = ""
    visibility: Visibility = "at_once"

    @property
    def group(self) -> Group:
        """Its group: a transform is captured from the lake, and lands, as a table does."""
        table = TableSpec(
            name=self.name,
            source=TableName(schema="lake", table=self.name),
            target=self.target,
            key=self.key,
            way="transform",
            event_time=self.day,
            adopt=self.adopt,
            run_as=self.run_as,
            visibility=self.visibility,
        )
        return Group(name=self.name, tables=(table,))


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What starts a run when it happens: a file appears, or a column of a table has new values."""

    file: str = ""
    connection: str = ""
    table: TableName | None = None
    column: str = ""
    every_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Runs:
    """How the pipeline's runs are scheduled and shown."""

    cron: str = ""  # in the pipeline's time zone; empty: by hand, or by another DAG
    assets: tuple[str, ...] = ()  # whose partitions start a run once all of them have it
    watch: Watch | None = None
    most_at_once: int = 1
    lanes: int = 4  # tasks a step, where there are too many groups for a task each
    pools: tuple[tuple[str, str], ...] = ()  # step, Airflow's pool
    owner: str = "naviglio"
    tags: tuple[str, ...] = ()

    def pool(self, step: str) -> str | None:
        """Return the pool of a step's tasks; None for Airflow's default one."""
        return dict(self.pools).get(step)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One YAML file."""

    name: str
    source: str  # connection id
    target: str  # connection id
    time_zone: str
    groups: tuple[Group, ...]
    fence_margin_s: float = 1.0
    safety_lag_s: float | None = None  # declared where the source can't be fenced
    description: str = ""
    runs: Runs = Runs()
    transforms: tuple[Transform, ...] = ()

    @property
    def landings(self) -> tuple[Group, ...]:
        """All groups that have a landing: those captured from the source, then the transforms'."""
        return (*self.groups, *(transform.group for transform in self.transforms))

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        """All tables of all groups, in order."""
        return tuple(table for group in self.groups for table in group.tables)


# --- position -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, order=True)
class Window:
    """A span of event time [start, end), aware, UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """One window that has been read: by which batch, when, how many rows, their checksum."""

    window: Window
    batch: int
    read_at_utc: datetime
    rows: int
    checksum: int
    spec: str  # of the hash; checksums of another spec never compare


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file of an attempt; `path` is relative to the landing of its group."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class HashState:
    """The rows (or only the keys) of a table as the last comparison left them.

    The files hold the key's carriers, `_key_hash` and, unless `keys_only`, `_row_hash`. `later` are
    files of changes that came on top of them, in order: upserts with both hashes, deletes without.
    """

    spec: str
    files: tuple[DataFile, ...]
    rows: int
    batch: int  # the batch that left them: later batches of the landing come on top
    read_at_utc: datetime
    keys_only: bool = False
    later: tuple[DataFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TablePosition:
    """How far one table is."""

    way: str  # e.g. `stream modified_at`; another way starts with a snapshot
    stream: int | None = None  # all below is landed; of times, nanoseconds since 1970 UTC
    coverage: tuple[Coverage, ...] = ()
    hashes: HashState | None = None
    rows: int = 0  # that the table had at least, as far as is known; a guide for the delete guard
    schema: TableSchema | None = None  # of the last landed rows; drift is told from it
    removed: tuple[str, ...] = ()  # columns that the source lost and the lake keeps
    source: str = ""  # whose rows they are; empty in positions of before it was kept
    marked: str = ""  # the column whose marks of deletion have been looked for in all of them


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a snapshot stands in the history of its source.

    `order` grows along one `incarnation`; `witness` is an event of that history (such as a
    transaction and its commit time) that must still be found there later.
    """

    incarnation: str
    order: int
    witness: str = ""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Where a stream along numbers ends: below `point` no row is written any more.

    `lag` is the declared distance from the highest number; None where the source itself knows.
    """

    point: int
    lag: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fence:
    """No transaction that commits later can still write a modification time below `point`.

    `point` is None while no such bound exists (a prepared transaction): nothing moves then. Streams
    along numbers, of which it says nothing, have a bound each.
    """

    point: int | None
    safety_lag_s: float | None = None
    held_by: str = ""  # what holds it back, for people
    latest: int | None = None  # where it would be if nothing held it: the clock less margin or lag
    numbers: dict[str, Bound] = field(default_factory=dict)  # by table

    def of(self, table: str) -> int | None:
        """Return the point of a table's stream."""
        number = self.numbers.get(table)
        return self.point if number is None else number.point


@dataclass(frozen=True, kw_only=True)
class Position:
    """The group's position after a batch."""

    place: Place
    tables: dict[str, TablePosition] = field(default_factory=dict)


# --- batches ------------------------------------------------------------------------------------

PartKind = Literal["stream", "window", "snapshot"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One table's share of a batch.

    `stream` files hold changes (`_op` and at most one change a key), `window` and `snapshot` files
    hold all rows of `windows`, or of the table: what they don't hold is gone.
    """

    table: str
    kind: PartKind
    schema: TableSchema
    files: tuple[DataFile, ...] = ()
    upserts: int = 0
    deletes: int = 0
    event_time: str = ""
    windows: tuple[Window, ...] = ()
    drift: tuple[str, ...] = ()
    why: str = ""  # why a snapshot was taken


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Batch `number` of a group: the first of the three commits."""

    group: str
    number: int
    attempt: str
    landing: str
    previous: str  # sha256 of the previous manifest's bytes; empty for number 1
    created_at_utc: datetime
    fence: Fence
    parts: tuple[Part, ...]
    position: Position


@dataclass(frozen=True, kw_only=True)
class Question:
    """Something only a person can decide; it holds the group at `head`."""

    group: str
    table: str
    kind: Literal["mass delete", "drift", "identity"]
    head: int
    text: str
    found: str  # what an answer covers: the drift's text, identities, how many deletes by what
    asked_at_utc: datetime
    accepted_by: str = ""  # of an answer
    accepted_at_utc: datetime | None = None


# --- load ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """How far a target is; kept in the target's own database."""

    target: str
    pipeline: str
    table: str
    landing: str
    lake_table: str  # id of the Delta table
    version: int  # of the Delta table
    batch: int
    attempt: str
    loaded_at_utc: datetime
    why_whole: str = ""
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    login: str = ""  # who loaded it, as the server itself says: the session's login,
    principal: str = ""  # and as whom it merged
    ranges: str = ""  # JSON of the key ranges that hold a newer version already; empty: none
    batch_attempt: str = ""  # the batch and its attempt, which a twin landing's batch has not


@dataclass(frozen=True, kw_only=True)
class LoadCounts:
    """What a merge did to the rows of its target."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
