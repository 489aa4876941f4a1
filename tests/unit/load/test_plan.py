"""Which way a load goes, by figures alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from naviglio.errors import ConfigError
from naviglio.load.plan import (
    RANGE_ROWS,
    REBUILD_GAIN,
    SWAP_ROWS,
    Figures,
    LoadPlan,
    TargetFigures,
    choose,
    refuse_invisible,
)
from naviglio.model import TableName, TableSpec


def plan(target: TargetFigures | None = None, **said: Any) -> LoadPlan:
    """Choose for a feed of changes, unless told otherwise."""
    known = {"whole": "", "lake_rows": 1000, "changed_rows": 10, "target": target}
    return choose(Figures(**{**known, **said}))


def progressive(**said: Any) -> LoadPlan:
    """Choose for a progressive load of a filled target that can be ranged."""
    known = {"visibility": "progressive", "loaded": True, "target": FILLED}
    return plan(**{**known, **said})


ABSENT = TargetFigures(rows=None)
FILLED = TargetFigures(rows=900)


def test_a_target_that_only_merges_is_merged() -> None:
    """Whatever the figures say."""
    assert plan(whole="first load") == LoadPlan(way="merge", why="this target merges only")


def test_an_absent_target_is_filled_beside() -> None:
    """Nobody reads it yet, and its rows are written once."""
    assert plan(ABSENT, whole="first load").way == "swap"


def test_few_changes_are_merged() -> None:
    """The reason tells the figures."""
    assert plan(FILLED) == LoadPlan(way="merge", why="10 rows change of 1000")
    assert plan(FILLED, changed_rows=None, lake_rows=None).why == "some rows change"


def test_most_rows_are_written_anew() -> None:
    """From half of the lake's rows on, where they are many."""
    many = SWAP_ROWS * 2
    assert plan(FILLED, changed_rows=SWAP_ROWS, lake_rows=many) == LoadPlan(
        way="swap", why=f"most rows change: {SWAP_ROWS} of {many}"
    )
    assert plan(FILLED, changed_rows=SWAP_ROWS, lake_rows=many + 1).way == "merge"
    assert plan(FILLED, changed_rows=1000).way == "merge"


def test_all_rows_over_a_filled_target_are_compared() -> None:
    """A rebuilt lake mostly holds what was loaded before: equal rows stay untouched."""
    found = plan(FILLED, whole="another lake table", changed_rows=None)
    assert (found.way, "another lake table" in found.why) == ("merge", True)


def test_what_a_swap_would_lose_keeps_it_a_merge() -> None:
    """And is named."""
    keeps = ("trigger audit on table t", "view v")
    found = plan(TargetFigures(rows=None, keeps=keeps), whole="first load")
    assert found.way == "merge"
    assert found.why.endswith("a swap would lose: trigger audit on table t; view v")


def test_ranges_are_for_progressive_loads_that_are_large() -> None:
    """Not for a first load, which keeps no reader waiting."""
    assert progressive(changed_rows=RANGE_ROWS).way == "merge"
    assert progressive(changed_rows=RANGE_ROWS + 1).way == "ranges"
    assert progressive(changed_rows=None).way == "ranges"
    assert progressive(whole="restored", lake_rows=RANGE_ROWS + 1).way == "ranges"
    assert progressive(loaded=False, whole="first load", target=ABSENT).way == "swap"
    assert plan(FILLED, loaded=True, changed_rows=RANGE_ROWS + 1).way != "ranges"


def test_a_target_that_has_no_ranges_says_so() -> None:
    """It would not be progressive."""
    name = TableName(schema="", table="people")
    spec = TableSpec(name="people", source=name, target=name, key=(), way="diff")
    refuse_invisible(spec, ranging=False)
    progressive = replace(spec, visibility="progressive")
    refuse_invisible(progressive, ranging=True)
    with pytest.raises(ConfigError, match="'people': `visibility: progressive`, but targets of"):
        refuse_invisible(progressive, ranging=False)


# --- indexes that are off meanwhile ---------------------------------------------------------------


def indexed(changed: int | None, rows: int = 1_000_000, indexes: int = 1, **said: Any) -> LoadPlan:
    """Choose for a target with so many rows and indexes."""
    target = TargetFigures(rows=rows, indexes=indexes)
    return plan(target, changed_rows=changed, **{"lake_rows": rows, **said})


def test_indexes_are_rebuilt_from_a_quarter_of_the_rows_on() -> None:
    """By what it costs to keep them through the changes; the reason tells the figures."""
    assert not indexed(250_000).rebuild
    found = indexed(300_000, indexes=2)
    assert found == LoadPlan(
        way="merge", rebuild=True,
        why="300000 rows change of 1000000; 2 indexes are rebuilt, at 2600000 rows: to keep them"
        " through 300000 changes costs 3000000",
    )  # fmt: skip
    assert not indexed(10_000).rebuild
    assert not indexed(300_000, indexes=0).rebuild


def test_a_small_gain_is_not_worth_a_lock() -> None:
    """More indexes gain more: the same changes are worth it for four of them, not for one."""
    few = {"changed": 30_000, "rows": 90_000, "lake_rows": 90_000}
    assert 4 * 30_000 - 90_000 == 30_000 < REBUILD_GAIN < 4 * 30_000
    assert not indexed(**few).rebuild
    assert indexed(**few, indexes=4).rebuild


def test_what_is_not_known_to_change_leaves_indexes_alone() -> None:
    """All rows compared: most may be equal. Nor with a swap, nor by ranges."""
    assert not indexed(None).rebuild
    assert not indexed(900_000, whole="another lake table").rebuild
    assert indexed(900_000).way == "swap"
    assert not indexed(900_000).rebuild
    assert not indexed(400_000, visibility="progressive", loaded=True).rebuild


def test_a_swap_that_can_not_be_may_still_rebuild() -> None:
    """What it would lose, then the figures of the indexes."""
    target = TargetFigures(rows=1_000_000, indexes=3, keeps=("trigger t",))
    found = plan(target, changed_rows=900_000, lake_rows=1_000_000)
    assert (found.way, found.rebuild) == ("merge", True)
    assert "would lose: trigger t; 3 indexes are rebuilt" in found.why
