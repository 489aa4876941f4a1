"""Ways to lose rows that were found by attacking the line; each must stay closed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from naviglio.capture.columns import order_of, refuse_unfit_columns
from naviglio.capture.drift import drift
from naviglio.capture.table import Wish
from naviglio.config.home import Home
from naviglio.connections.connections import Connections
from naviglio.errors import ConfigError, RetryableError
from naviglio.flows.replicate import Report, replicate
from naviglio.flows.site import Site
from naviglio.model import (
    Column,
    Deletes,
    Fence,
    Group,
    Kind,
    Order,
    Pipeline,
    TableName,
    TableSchema,
    TableSpec,
    Window,
)
from naviglio.partitions import windows_between
from naviglio.points import listening
from naviglio.ports import SourceTraits
from tests.fakes import FakeDatabase, FakeSource, FakeTarget

NAME = TableName(schema="", table="rows")
STREAM = {"way": "stream", "modified": "modified", "deletes": Deletes(way="none")}


class Line:
    """One table over the fakes, real landing and lake."""

    def __init__(self, home: Path, **way: Any) -> None:
        self.home = home
        table = TableSpec(
            name="rows", source=NAME, target=NAME, key=("id",), event_time="day", **way
        )
        self.group = Group(name="rows", tables=(table,))
        self.pipeline = Pipeline(
            name="fake", source="f", target="f", time_zone="UTC", groups=(self.group,),
            fence_margin_s=0.0,
        )  # fmt: skip
        self.database, self.target = FakeDatabase(), FakeTarget()

    def site(self) -> Site:
        """Return the line's site, its connections in place of opened ones."""
        home = Home(root=self.home, pipelines=self.home)
        site = Site(pipeline=self.pipeline, home=home, connections=Connections({}, None))
        site.__dict__["source"] = FakeSource(self.database)
        site.__dict__["target"] = self.target
        return site

    def put(self, key: int, day: int = -1) -> None:
        """Write one row in a transaction of its own."""
        writer = self.database.begin()
        self.database.put(writer, key, day)
        self.database.commit(writer)

    def run(self, wish: Wish | None = None) -> Report:
        """Run the line."""
        return replicate(self.site(), self.group, wish or Wish())

    def keys(self) -> set[int]:
        """Return the keys in the lake."""
        lake = self.site().lake(self.group.tables[0])
        return {row["id"] for batch in lake.scan() for row in batch.to_pylist()}


def windows(day: str) -> tuple[Window, ...]:
    """Return the window of a day."""
    return tuple(windows_between(day, day, ZoneInfo("UTC")).values())


def test_an_interrupt_after_the_manifest_keeps_the_batchs_files(tmp_path: Path) -> None:
    """What is committed is never thrown away, however its attempt ends."""
    line = Line(tmp_path, way="diff")
    line.put(1)

    def stop(point: str) -> None:
        if point == "capture: after manifest":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(stop):
        line.run()
    assert line.run().error is None
    assert line.keys() == {1}


def test_a_partition_read_before_its_end_is_read_again_when_it_is_final(tmp_path: Path) -> None:
    """A day that was read at noon is no covered day."""
    line = Line(tmp_path, way="windows", since="2013-01-01")
    line.database.clock = 12 * 3600
    line.put(1, day=0)
    line.run(Wish(windows=windows("2013-01-01")))
    line.put(2, day=0)
    line.database.clock = 30 * 3600
    assert line.run().error is None
    assert line.keys() == {1, 2}


def test_a_clock_that_steps_back_is_told(tmp_path: Path) -> None:
    """Rows written at times that were passed already would never be read."""
    line = Line(tmp_path, **STREAM)
    line.database.clock = 100
    line.put(1)
    line.database.tick()
    line.run()
    line.database.clock = 50
    assert "stepped back" in str(line.run().error)


def test_a_fence_that_an_old_transaction_pulls_back_is_no_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came into the database late: nothing moves until it has ended, and nothing is wrong."""
    line = Line(tmp_path, **STREAM)
    line.database.clock = 100
    line.put(1)
    line.database.tick()
    line.run()
    before = line.site().landing(line.group).head()
    second = 10**9
    free = line.site().source.fence(0.0, None).point
    assert free is not None
    held = Fence(point=free - 60 * second, latest=free, held_by="session 7")
    monkeypatch.setattr(FakeSource, "fence", lambda *_: held)
    assert line.run().error is None
    assert line.site().landing(line.group).head() == before
    back = Fence(point=None, latest=free - 60 * second, held_by="prepared")
    monkeypatch.setattr(FakeSource, "fence", lambda *_: back)
    assert "stepped back" in str(line.run().error)


def test_a_row_in_the_future_is_told(tmp_path: Path) -> None:
    """A modification time that no fence reaches is a person's to mend."""
    line = Line(tmp_path, **STREAM)
    line.put(1)
    line.database.tick()
    line.run()
    writer = line.database.begin()
    line.database.put(writer, 2, -1)
    changed = writer.changes[2]
    assert changed is not None
    changed["modified"] = datetime(9000, 1, 1, tzinfo=UTC)
    line.database.commit(writer)
    line.database.tick()
    assert "more than a day ahead" in str(line.run().error)


def test_a_whole_reading_without_a_fence_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There would be no point to go on from: it says what holds the fence."""
    line = Line(tmp_path, **STREAM)
    line.put(1)
    held = Fence(point=None, held_by="prepared transaction 'x'")
    monkeypatch.setattr(FakeSource, "fence", lambda *_: held)
    assert "prepared transaction 'x'" in str(line.run(Wish(whole="asked")).error)


def test_a_target_that_is_away_does_not_stop_the_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landing and lake need no warehouse; the load says that it is away."""

    def away(_: FakeTarget) -> None:
        raise RetryableError("away")

    line = Line(tmp_path, way="diff")
    line.put(1)
    monkeypatch.setattr(FakeTarget, "ledger", away)
    assert isinstance(line.run().error, RetryableError)
    assert line.keys() == {1}


def test_windows_that_meet_are_replaced_as_one_span(tmp_path: Path) -> None:
    """Years of days are one condition, so applying them takes no longer than reading them."""
    line = Line(tmp_path, way="windows", since="2003-01-01")
    line.put(1, day=-100)
    report = line.run()
    assert report.batch is not None
    assert len(report.batch.parts[0].windows) == 1
    assert len(report.batch.position.tables["rows"].coverage) > 3600


def schema(kind: Kind, source_type: str) -> TableSchema:
    """Return a schema whose column `c` has this type."""
    column = Column(name="c", kind=kind, carrier="string", source_type=source_type)
    return TableSchema(columns=(column,), key=("c",))


ANY = SourceTraits(hash_spec="any", orders={"rowversion": "version", "smalldatetime": None})


@pytest.mark.parametrize(
    ("kind", "source_type", "told"),
    [
        ("date", "date", "needs a moment"), ("decimal", "decimal", "needs a moment"),
        ("text", "text", "integers that grow, rowversion"),
        ("timestamp", "smalldatetime", "needs a moment"),
        ("timestamp", "timestamp", "where: c, zone: UTC"), ("int64", "bigint", "where: c, lag: "),
    ],
)  # fmt: skip
def test_only_what_has_an_order_can_be_fenced(kind: Kind, source_type: str, told: str) -> None:
    """A day, or a time of no declared zone, may lie below any fence; a number has no fence."""
    spec = TableSpec(name="t", source=NAME, target=NAME, key=("c",), way="stream", modified="c")
    with pytest.raises(ConfigError, match=told):
        refuse_unfit_columns(spec, schema(kind, source_type), "UTC", ANY)


@pytest.mark.parametrize(
    ("kind", "source_type", "declared", "order"),
    [
        ("timestamptz", "timestamptz", {}, "time"),
        ("timestamptz", "timestamptz", {"zone": "UTC"}, "time"),
        ("timestamp", "timestamp", {"zone": "UTC"}, "time"),
        ("int16", "smallint", {"lag": 0}, "number"), ("int64", "bigint", {"lag": 5}, "number"),
        ("bytes", "rowversion", {}, "version"),
    ],
)  # fmt: skip
def test_what_has_an_order_is_taken(
    kind: Kind, source_type: str, declared: dict[str, Any], order: Order
) -> None:
    """A zone beside a column that has one does no harm: the pipeline may move between vendors."""
    spec = TableSpec(
        name="t", source=NAME, target=NAME, key=("c",), way="stream", modified="c", **declared
    )
    described = schema(kind, source_type)
    refuse_unfit_columns(spec, described, "UTC", ANY)
    assert order_of(described.columns[0], ANY) == order


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
def test_a_lag_of_numbers_is_none_of_times(kind: Kind) -> None:
    """It would be taken for seconds; `safety_lag` is what is meant."""
    spec = TableSpec(
        name="t", source=NAME, target=NAME, key=("c",), way="stream", modified="c", zone="UTC",
        lag=5,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="`lag` counts integers"):
        refuse_unfit_columns(spec, schema(kind, kind), "UTC", ANY)


def test_a_zone_is_refused_beside_what_is_no_time() -> None:
    """It would seem to mean something."""
    spec = TableSpec(
        name="t", source=NAME, target=NAME, key=("c",), way="stream", modified="c", zone="UTC",
        lag=5,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="`zone` is of times"):
        refuse_unfit_columns(spec, schema("int64", "bigint"), "UTC", ANY)


def test_a_day_without_a_zone_is_utcs_day_only() -> None:
    """Elsewhere its windows would hold another day's rows."""
    spec = TableSpec(name="t", source=NAME, target=NAME, key=("c",), way="windows", event_time="c")
    refuse_unfit_columns(spec, schema("date", "date"), "UTC", ANY)
    with pytest.raises(ConfigError, match="only with `time_zone: UTC`"):
        refuse_unfit_columns(spec, schema("date", "date"), "America/New_York", ANY)


def test_a_number_is_no_delete_flag() -> None:
    """Its 0 would count as deleted."""
    spec = TableSpec(
        name="t", source=NAME, target=NAME, key=("c",), way="diff",
        deletes=Deletes(way="column", column="c"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="`deletes: column` needs one of bool"):
        refuse_unfit_columns(spec, schema("int32", "integer"), "UTC", ANY)
    with pytest.raises(ConfigError, match="no column 'd'"):
        refuse_unfit_columns(
            TableSpec(name="t", source=NAME, target=NAME, key=(), way="stream", modified="d"),
            schema("bool", "boolean"),
            "UTC",
            ANY,
        )


def test_another_type_behind_one_kind_is_drift() -> None:
    """`char(4)` to `varchar(4)` drops blanks, so keys would double; a length alone is none."""
    assert drift(schema("text", "character(4)"), schema("text", "character varying(4)")).other
    assert not drift(schema("text", "character(4)"), schema("text", "character(8)")).other
