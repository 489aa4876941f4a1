"""A landing in a folder, for tests of the lake: parts as Parquet files, and what they add up to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from naviglio.carriers import arrow_schema
from naviglio.lake.table import LakeTable
from naviglio.model import (
    BEYOND,
    DELETE,
    OP,
    Column,
    DataFile,
    Fence,
    Kind,
    LedgerRow,
    Manifest,
    Part,
    PartKind,
    Place,
    Position,
    TableSchema,
    Window,
)
from naviglio.ports import Feed

Row = dict[str, Any]
Rows = dict[tuple[Any, ...], Row]
NOW = datetime(2013, 1, 5, tzinfo=UTC)
AT = "timestamp[us, tz=UTC]"


def column(name: str, carrier: str, kind: Kind = "text", **more: Any) -> Column:
    """Return a column of a carrier."""
    return Column(name=name, kind=kind, carrier=carrier, source_type=carrier, **more)


SCHEMA = TableSchema(
    columns=(
        column("id", "int64", "int64"),
        column("at", AT, "timestamptz"),
        column("x", "string"),
    ),
    key=("id",),
)


def at(day: int) -> datetime:
    """Return a day of January 2013."""
    return datetime(2013, 1, day, tzinfo=UTC)


def row(id_: int, x: str | None, day: int = 1, **more: Any) -> Row:
    """Return a row of SCHEMA."""
    return {"id": id_, "at": at(day), "x": x, **more}


def window(first: int, end: int) -> Window:
    """Return the days [first, end)."""
    return Window(start=at(first), end=at(end))


@dataclass
class Landing:
    """Batches of one table, in order."""

    root: Path
    name: str = "landing-1"
    schema: TableSchema = SCHEMA
    batches: list[tuple[Manifest, Part | None]] = field(default_factory=list)

    def add(self, kind: PartKind | None, rows: list[Row] | None = None, **more: Any) -> Manifest:
        """Land a batch; `kind` None has no share of the table."""
        number = len(self.batches) + 1
        part = None if kind is None else self._part(kind, rows or [], number, **more)
        manifest = Manifest(
            group="g",
            number=number,
            attempt=f"attempt-{number}",
            landing=self.name,
            previous="",
            created_at_utc=NOW,
            fence=Fence(point=None),
            parts=(part,) if part else (),
            position=Position(place=Place(incarnation="i", order=number)),
        )
        self.batches.append((manifest, part))
        return manifest

    def apply(self, lake: LakeTable, number: int | None = None) -> None:
        """Apply every batch after the lake's number, or only batch `number`."""
        numbers = range(lake.number() + 1, len(self.batches) + 1) if number is None else [number]
        for n in numbers:
            manifest, part = self.batches[n - 1]
            lake.apply(manifest, part, str(self.root))

    def replayed(self) -> Rows:
        """Return the rows that all batches add up to."""
        rows: Rows = {}
        for _, part in self.batches:
            if part is not None:
                self._replay(part, rows)
        return rows

    def _part(self, kind: PartKind, rows: list[Row], number: int, **more: Any) -> Part:
        schema = more.pop("schema", self.schema)
        self.schema = schema
        arrow = arrow_schema(schema, changes=kind == "stream")
        arrow = arrow.append(pa.field("_key_hash", pa.int64()))
        full = [{OP: "upsert", "_key_hash": n, **r} for n, r in enumerate(rows)]
        file = self.root / f"{number}-{len(rows)}.parquet"
        self.root.mkdir(exist_ok=True, parents=True)
        pq.write_table(pa.Table.from_pylist(full, arrow), file, row_group_size=1000)
        content = file.read_bytes()
        data = DataFile(
            path=file.name, rows=len(rows), bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )  # fmt: skip
        return Part(table="t", kind=kind, schema=schema, files=(data,) if rows else (), **more)

    def _replay(self, part: Part, rows: Rows) -> None:
        landed: list[Row] = []
        for file in part.files:
            with pq.ParquetFile(self.root / file.path) as parquet:
                landed += parquet.read().to_pylist()
        key, names, before = part.schema.key, (*part.schema.names, BEYOND), dict(rows)
        if part.kind == "snapshot":
            rows.clear()
        for k, old in list(rows.items()):
            if any(w.start <= old[part.event_time] < w.end for w in part.windows):
                del rows[k]
        for new in landed:
            k = tuple(new[n] for n in key)
            if new.get(OP) == DELETE:
                rows.pop(k, None)
            else:  # a column that the source has lost keeps its value
                rows[k] = _known({**before.get(k, {}), **{n: new[n] for n in names}})


def rows_in(lake: LakeTable) -> Rows:
    """Return the rows of a lake table by key."""
    return _by_key(lake, [r for batch in lake.scan() for r in batch.to_pylist()])


@dataclass
class Mirror:
    """A target that only believes feeds."""

    lake: LakeTable
    rows: Rows = field(default_factory=dict)
    ledger: LedgerRow | None = None

    def load(self) -> Feed | None:
        """Take one feed and apply it."""
        feed = self.lake.feed(self.ledger)
        if feed is None:
            return None
        if feed.why_whole:
            self.rows.clear()
        for batch in feed.batches:
            assert batch.schema == arrow_schema(feed.schema, changes=not feed.why_whole)
            for new in batch.to_pylist():
                k, op = tuple(new[n] for n in feed.schema.key), new.pop(OP, "upsert")
                if op == DELETE:
                    self.rows.pop(k, None)
                else:
                    self.rows[k] = _known(new)
        self.ledger = LedgerRow(
            target="t", pipeline="p", table="t", landing=feed.landing, lake_table=feed.lake_table,
            version=feed.version, batch=feed.batch, attempt="a", loaded_at_utc=NOW,
        )  # fmt: skip
        return feed


def _known(row: Row) -> Row:
    """Leave NULLs out: a column that came later is NULL, said or not."""
    return {name: value for name, value in row.items() if value is not None}


def _by_key(lake: LakeTable, rows: list[Row]) -> Rows:
    feed = lake.feed(None)
    if feed is None:
        return {}
    found = {tuple(r[n] for n in feed.schema.key): _known(r) for r in rows}
    assert len(found) == len(rows), "a key stands twice"
    return found
