"""A source that gives no one moment to read in: streams lose nothing, the rest is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naviglio.capture.table import Wish
from naviglio.carriers import arrow_schema
from naviglio.config.home import Home
from naviglio.connections.connections import Connections
from naviglio.errors import ConfigError
from naviglio.flows.plan import plan
from naviglio.flows.reconcile import reconcile
from naviglio.flows.replicate import Report, replicate
from naviglio.flows.site import Site
from naviglio.model import Deletes, Group, Pipeline, TableName, TableSpec
from naviglio.partitions import windows_between
from naviglio.ports import Scan
from tests.fakes import FakeDatabase, FakeSnapshot, FakeSource, FakeTarget, Writer, condition

NAME = TableName(schema="", table="rows")
STREAM = TableSpec(
    name="rows", source=NAME, target=NAME, key=("id",), way="stream", modified="modified",
    event_time="day",
)  # fmt: skip
PLACES = 6  # a scan goes through them in order; a row moves when it changes
TORN = "Have the owner allow it."


@dataclass
class Pages:
    """Where rows lie, and what happens while a scan is at a place."""

    database: FakeDatabase = field(default_factory=FakeDatabase)
    place: dict[int, int] = field(default_factory=dict)
    meanwhile: dict[int, list[tuple[Writer, int, int]]] = field(default_factory=dict)

    def commit(self, writer: Writer, key: int, place: int) -> None:
        """Commit a writer; its row lies elsewhere from now on."""
        self.database.commit(writer)
        self.place[key] = place

    def put(self, key: int, place: int) -> None:
        """Write a row and commit."""
        writer = self.database.begin()
        self.database.put(writer, key, -1)
        self.commit(writer, key, place)

    def pass_through(self, place: int) -> list[dict[str, Any]]:
        """Let happen what does at this place, then return its committed rows."""
        for writer, key, to in self.meanwhile.pop(place, []):
            self.commit(writer, key, to)
        rows = self.database.rows
        return [dict(rows[key]) for key, at in self.place.items() if at == place]


class TornSnapshot(FakeSnapshot):
    """Reads committed rows as it goes, place by place."""

    pages: Pages

    def read(self, scan: Scan) -> Iterator[pa.RecordBatch]:
        """Yield what each place holds when the scan comes there."""
        meets = condition(scan.where)
        for place in range(PLACES):
            found = [{**row, "_beyond": None} for row in self.pages.pass_through(place)]
            yield pa.RecordBatch.from_pylist(list(filter(meets, found)), arrow_schema(scan.schema))


@dataclass
class TornSource(FakeSource):
    """A source whose snapshots are no moments."""

    pages: Pages = field(default_factory=Pages)

    @contextmanager
    def snapshot(self) -> Iterator[FakeSnapshot]:
        """Open one."""
        rows = list(self.database.rows.values())
        opened = TornSnapshot(rows, self.database.order, TORN)
        opened.pages = self.pages
        yield opened


class Line:
    """One table over a torn source, real landing and lake."""

    def __init__(self, home: Path, table: TableSpec = STREAM, *others: TableSpec) -> None:
        self.home, self.pages = home, Pages()
        self.group = Group(name="rows", tables=(table, *others))
        self.target = FakeTarget()

    def site(self) -> Site:
        """Return the line's site, its connections in place of opened ones."""
        pipeline = Pipeline(
            name="fake", source="f", target="f", time_zone="UTC", groups=(self.group,),
            fence_margin_s=0.0,
        )  # fmt: skip
        home = Home(root=self.home, pipelines=self.home)
        site = Site(pipeline=pipeline, home=home, connections=Connections({}, None))
        site.__dict__["source"] = TornSource(self.pages.database, pages=self.pages)
        site.__dict__["target"] = self.target
        return site

    def run(self, wish: Wish | None = None) -> Report:
        """Run the line."""
        return replicate(self.site(), self.group, wish or Wish())

    def landed(self) -> dict[int, int]:
        """Return what the lake holds: keys and the counters of their last change."""
        lake = self.site().lake(self.group.tables[0])
        return {r["id"]: r["counter"] for batch in lake.scan() for r in batch.to_pylist()}

    def expected(self) -> dict[int, int]:
        """Return what the source holds."""
        return {key: row["counter"] for key, row in self.pages.database.rows.items()}


CHANGES = st.lists(
    st.tuples(
        st.integers(0, PLACES - 1),  # when: as the scan comes to this place
        st.integers(1, 8),  # the row that changes, or is new
        st.integers(0, PLACES - 1),  # where it lies then
    ),
    max_size=6,
    unique_by=lambda change: change[1],
)


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(st.integers(1, 5), st.integers(0, PLACES - 1)), CHANGES, CHANGES)
def test_what_changes_while_it_is_read_comes_again(
    there: dict[int, int],
    first: list[tuple[int, int, int]],
    second: list[tuple[int, int, int]],
) -> None:
    """Rows that move under the scan, of transactions that were open at the fence: all arrive."""
    with tempfile.TemporaryDirectory() as home:
        line = Line(Path(home))
        pages = line.pages
        for key, place in there.items():
            pages.put(key, place)
        pages.database.tick()
        for changes in (first, second):
            pages.meanwhile.clear()
            for place, key, to in changes:  # each writer is open before the fence is read
                writer = pages.database.begin()
                pages.database.put(writer, key, -1)
                pages.meanwhile.setdefault(place, []).append((writer, key, to))
            report = line.run()
            assert report.error is None
            for left in list(pages.meanwhile.values()):
                for writer, key, to in left:
                    pages.commit(writer, key, to)
            pages.meanwhile.clear()
        pages.database.tick()
        assert line.run().error is None
        assert line.landed() == line.expected()
        parts = [
            part
            for batch in line.site().landing(line.group).after(0)
            for part in batch.parts
        ]  # fmt: skip
        assert {(part.kind, part.deletes) for part in parts} <= {("stream", 0)}


def test_a_row_that_is_missed_is_no_delete(tmp_path: Path) -> None:
    """It moved behind the scan: the lake keeps it, and has its change with the next batch."""
    line = Line(tmp_path)
    line.pages.put(1, 5)
    line.pages.database.tick()
    assert line.run().error is None
    writer = line.pages.database.begin()
    line.pages.database.put(writer, 1, -1)
    line.pages.meanwhile[3] = [(writer, 1, 0)]
    line.pages.put(2, 4)
    line.pages.database.tick()
    line.run()
    assert set(line.landed()) >= {1}
    line.pages.database.tick()
    line.run()
    assert line.landed() == line.expected()


REFUSED = {
    "diff": replace(STREAM, way="diff", modified=""),
    "windows": replace(STREAM, way="windows", modified="", since="2013-01-01"),
    "sweep": replace(STREAM, deletes=Deletes(way="sweep")),
    "nulls: read": replace(STREAM, nulls="read"),
    "integers": replace(STREAM, modified="counter", lag=1),
}


@pytest.mark.parametrize(("what", "table"), REFUSED.items(), ids=REFUSED)
def test_what_needs_one_moment_is_refused(tmp_path: Path, what: str, table: TableSpec) -> None:
    """By name and with the next step; nothing lands, and `plan` says the same."""
    line = Line(tmp_path, table)
    line.pages.put(1, 0)
    line.pages.database.tick()
    error = line.run().error
    assert isinstance(error, ConfigError)
    assert what in str(error)
    assert TORN in str(error)
    assert line.site().landing(line.group).head().number == 0
    with pytest.raises(ConfigError, match=what):
        plan(line.site(), line.group, Wish())


@pytest.mark.parametrize(
    ("wish", "what"), [(Wish(whole="asked for"), "reading it whole"), (None, "partitions")]
)
def test_a_later_whole_reading_and_partitions_are_refused(
    tmp_path: Path, wish: Wish | None, what: str
) -> None:
    """What they don't hold would be deleted."""
    line = Line(tmp_path)
    line.pages.put(1, 0)
    line.pages.database.tick()
    assert line.run().error is None
    days = Wish(
        windows=tuple(windows_between("2013-01-01", "2013-01-01", ZoneInfo("UTC")).values())
    )
    error = line.run(wish or days).error
    assert isinstance(error, ConfigError)
    assert what in str(error)
    assert line.landed() == line.expected()


def test_several_tables_at_one_moment_are_refused(tmp_path: Path) -> None:
    """That is what their group is for; nor can anything be compared."""
    line = Line(tmp_path, STREAM, replace(STREAM, name="other"))
    line.pages.put(1, 0)
    line.pages.database.tick()
    assert "several tables" in str(line.run().error)
    alone = Line(tmp_path / "alone")
    alone.pages.put(1, 0)
    alone.pages.database.tick()
    alone.run()
    with pytest.raises(ConfigError, match="a comparison needs one moment"):
        reconcile(alone.site(), alone.group)


def test_an_empty_table_lands_as_well(tmp_path: Path) -> None:
    """Its first batch makes the lake table, and the next goes on from its position."""
    line = Line(tmp_path)
    line.pages.database.tick()
    report = line.run()
    assert report.error is None
    assert report.batch is not None
    assert report.batch.parts[0].why == "first capture"
    line.pages.put(1, 0)
    line.pages.database.tick()
    assert line.run().error is None
    assert line.landed() == line.expected() == {1: 1}
