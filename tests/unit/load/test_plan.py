"""Which way a load goes, by figures alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from naviglio.errors import ConfigError
from naviglio.load.plan import (
    RANGE_ROWS,
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
