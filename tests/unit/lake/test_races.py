"""Late workers commit nothing twice: each commit stands only on the version it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from naviglio.errors import RetryableError
from naviglio.lake.table import Applied, LakeTable
from naviglio.model import TableSchema
from tests.chaos.workers import Worker
from tests.unit.lake.landing import SCHEMA, Landing, Mirror, column, row, rows_in, window

WIDER = TableSchema(columns=(*SCHEMA.columns, column("n", "int32")), key=("id",))
LONGER = replace(SCHEMA, columns=(*SCHEMA.columns[:2], replace(SCHEMA.columns[2], length=9)))
RETYPED = replace(SCHEMA, columns=(*SCHEMA.columns[:2], column("x", "int64", "int64")))
DAYS: dict[str, Any] = {"event_time": "at", "windows": (window(1, 3),)}


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    """Return a landing of two batches, whose rows stand in two files of the lake."""
    landing = Landing(tmp_path / "landing")
    landing.add("snapshot", [row(1, "a"), row(2, "b", 2), row(3, "c", 5)])
    landing.add("stream", [row(4, "d", 4)])
    return landing


@pytest.fixture
def lake(tmp_path: Path, landing: Landing) -> LakeTable:
    """Return the lake table of both batches."""
    lake = LakeTable(str(tmp_path / "lake"))
    landing.apply(lake)
    return lake


Land = Callable[[Landing], object]
LANDS: dict[str, Land] = {
    "nothing": lambda to: to.add(None),
    "stream": lambda to: to.add("stream", [row(1, "z"), {"id": 2, "_op": "delete"}]),
    "stream without changes": lambda to: to.add("stream", [row(1, "a")]),
    "window": lambda to: to.add("window", [row(9, "w", 2)], **DAYS),
    "snapshot": lambda to: to.add("snapshot", [row(1, "z"), row(7, "y")]),
    "added column": lambda to: to.add("stream", [row(1, "z", n=7)], schema=WIDER),
    "relabelled column": lambda to: to.add("stream", [row(1, "z")], schema=LONGER),
    "other type": lambda to: to.add("snapshot", [{**row(1, None), "x": 5}], schema=RETYPED),
}
each_land = pytest.mark.parametrize("land", LANDS.values(), ids=LANDS.keys())


class Applier(Worker):
    """A worker that applies one batch."""

    def __init__(self, lake: LakeTable, landing: Landing, number: int = 3) -> None:
        self.applied: Applied | None = None
        super().__init__(lambda: self._apply(lake, landing, number))

    def _apply(self, lake: LakeTable, landing: Landing, number: int) -> None:
        manifest, part = landing.batches[number - 1]
        self.applied = lake.apply(manifest, part, str(landing.root))


def _finish(*workers: Worker) -> None:
    for worker in workers:
        worker.finish()
        if worker.error is not None:
            raise worker.error


@each_land
@pytest.mark.parametrize("at", [1, 2])
def test_one_of_two_workers_commits(lake: LakeTable, landing: Landing, land: Land, at: int) -> None:
    """Whichever commit two workers stand before, one makes it and the other finds it there."""
    mirror = Mirror(lake)
    mirror.load()
    land(landing)
    late, fast = Applier(lake, landing), Applier(lake, landing)
    for worker in (late, fast):
        for _ in range(at):
            worker.step()
    _finish(fast, late)
    assert [w.applied is None for w in (late, fast)].count(False) == 1
    numbers = [DeltaTable(lake.uri, version=v).transaction_version("landing-1")
               for v in range((lake.version() or 0) + 1)]  # fmt: skip
    assert numbers.count(3) == 1
    mirror.load()
    assert mirror.rows == rows_in(lake) == landing.replayed()


@each_land
def test_a_compaction_beside_costs_no_row(lake: LakeTable, landing: Landing, land: Land) -> None:
    """A compaction between open and commit is seen: nothing is lost or doubled."""
    land(landing)
    late = Applier(lake, landing)
    late.step()
    DeltaTable(lake.uri).optimize.compact()
    _finish(late)
    assert late.applied is not None
    assert rows_in(lake) == landing.replayed()


def test_two_workers_create_one_table(tmp_path: Path, landing: Landing) -> None:
    """A table is created once; the first batch is in it once."""
    lake = LakeTable(str(tmp_path / "new"))
    late, fast = Applier(lake, landing, 1), Applier(lake, landing, 1)
    late.step()
    fast.step()
    assert late.at == fast.at == "apply: before commit"
    assert not lake.exists()
    _finish(fast, late)
    assert (late.applied, lake.version()) == (None, 1)
    landing.apply(lake)
    assert rows_in(lake) == landing.replayed()


@pytest.mark.parametrize("beside", ["apply", "compaction"])
def test_a_late_rebuild_is_refused(lake: LakeTable, landing: Landing, beside: str) -> None:
    """What was committed during a rebuild stays; the rebuild says to run again."""
    late = Worker(lambda: lake.rebuild(landing.batches[:2], str(landing.root)))
    for _ in range(6):  # creation and two batches of its replay, then its own commit
        late.step()
    assert late.at == "apply: before commit"
    landing.add("stream", [row(1, "z")])
    if beside == "apply":
        landing.apply(lake)
    else:
        DeltaTable(lake.uri).optimize.compact()
    before = lake.version()
    late.finish()
    assert isinstance(late.error, RetryableError)
    assert lake.version() == before
    landing.apply(lake)
    lake.rebuild(landing.batches, str(landing.root))
    assert rows_in(lake) == landing.replayed()
    assert [f.name for f in Path(lake.uri).parent.iterdir() if "lake" in f.name] == ["lake"]


@each_land
def test_a_rebuild_beside_an_apply(lake: LakeTable, landing: Landing, land: Land) -> None:
    """A worker that a rebuild has overtaken applies its batch to what the rebuild left."""
    land(landing)
    late = Applier(lake, landing)
    late.step()
    lake.rebuild(landing.batches[:2], str(landing.root))
    _finish(late)
    assert late.applied is not None
    assert rows_in(lake) == landing.replayed()


@settings(max_examples=15)
@given(lands=st.lists(st.sampled_from(list(LANDS)[:-1]), max_size=4), data=st.data())
def test_any_order_of_workers_adds_up(
    tmp_path_factory: pytest.TempPathFactory, lands: list[str], data: st.DataObject
) -> None:
    """Three workers drain one landing in any order, beside compactions: each batch counts once."""
    folder = tmp_path_factory.mktemp("race")
    lake, landing = LakeTable(str(folder / "lake")), Landing(folder / "landing")
    for name in ["snapshot", *lands]:
        LANDS[name](landing)
    workers = [Worker(lambda: landing.apply(lake)) for _ in range(3)]
    while going := [w for w in workers if not w.done]:
        chosen = data.draw(st.sampled_from([*range(len(going)), "compact"]))
        if chosen == "compact" and lake.exists():
            DeltaTable(lake.uri).optimize.compact()
        elif isinstance(chosen, int):
            going[chosen].step()
    assert [w.error for w in workers] == [None] * 3
    assert lake.number() == len(landing.batches)
    assert rows_in(lake) == landing.replayed()
