"""How a load is done, chosen from figures alone: it asks nobody and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from naviglio.errors import ConfigError
from naviglio.model import TableSpec, Visibility
from naviglio.ports import Feed, Ranging, Rebuilding, Swapping, Target

Way = Literal["merge", "swap", "ranges"]
SWAP_SHARE = 0.5  # of the lake's rows that change: from there on, writing all anew is less work
SWAP_ROWS = 100_000  # that change at least: fewer are merged in no time, and equal rows stay
RANGE_ROWS = 100_000  # that one transaction of a progressive load merges
# What an index costs a merge, in rows of a rebuild: to follow a changed row, an entry at a time
# in random places, against a sorted row. 5 : 1 makes rebuilding cheaper from a quarter of the rows
# on, which is Microsoft's figure for non-clustered indexes ("Optimizing bulk import").
UPKEEP = 5
REBUILD_GAIN = 100_000  # rows that it must save at least: it keeps readers off


@dataclass(frozen=True, kw_only=True)
class TargetFigures:
    """What a target that can swap says of a table before a load."""

    rows: int | None  # as the server estimates; None: there is no table yet
    keeps: tuple[str, ...] = ()  # what a swap would lose; asked only where one is wanted
    indexes: int = 0  # that can be off while it is merged


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is known before a load; None is unknown.

    `whole` says why the feed holds all rows, empty where it holds changes.
    """

    whole: str
    lake_rows: int | None
    changed_rows: int | None
    target: TargetFigures | None  # None: this target can't swap
    visibility: Visibility = "at_once"
    loaded: bool = False  # before, by the ledger


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """`merge`: staging and one MERGE. `swap`: all rows into a table beside, which takes its place.

    A swap takes all rows of the lake, also where the feed holds changes. `ranges`: key ranges of
    the staging, merged and committed one by one. `rebuild`: indexes of the target are off during a
    merge, and built again at its end. `why` is for people.
    """

    way: Way
    why: str
    rebuild: bool = False


def figures_of(target: Target, spec: TableSpec, feed: Feed, *, loaded: bool) -> Figures:
    """Ask a target, where it can swap, and the feed for their figures; nothing is changed.

    `loaded`: the ledger has a row of it. Raises ConfigError for a progressive load of a target that
    can't be loaded by ranges.
    """
    refuse_invisible(spec, ranging=isinstance(target, Ranging))
    known = Figures(
        whole=feed.why_whole, lake_rows=feed.rows, changed_rows=feed.changed_rows, target=None,
        visibility=spec.visibility, loaded=loaded,
    )  # fmt: skip
    if not isinstance(target, Swapping):
        return known
    said = TargetFigures(rows=target.rows_of(spec.target))
    if isinstance(target, Rebuilding) and said.rows:
        said = replace(said, indexes=target.rebuildable(spec.target))
    if _why_swap(known, said):
        said = replace(said, keeps=target.keeps(spec.target, feed.schema))
    return replace(known, target=said)


def choose(figures: Figures) -> LoadPlan:
    """Return the way that the figures speak for; a swap only where it loses nothing."""
    if figures.visibility == "progressive":
        return _progressive(figures)
    if figures.target is None:
        return LoadPlan(way="merge", why="this target merges only")
    wanted = _why_swap(figures, figures.target)
    if wanted and not figures.target.keeps:
        return LoadPlan(way="swap", why=wanted)
    why = _why_merge(figures, figures.target)
    if wanted:
        why = f"{wanted}, but a swap would lose: {'; '.join(figures.target.keeps)}"
    rebuilt = _why_rebuild(figures, figures.target)
    return LoadPlan(way="merge", why=why + rebuilt, rebuild=bool(rebuilt))


def refuse_invisible(spec: TableSpec, *, ranging: bool) -> None:
    """Raise ConfigError for a progressive load of a target that can't be loaded by ranges."""
    if spec.visibility == "progressive" and not ranging:
        raise ConfigError(
            f"table {spec.name!r}: `visibility: progressive`, but targets of this kind can't be "
            "loaded by key ranges. Remove it, or write `at_once`."
        )


def _progressive(figures: Figures) -> LoadPlan:
    if not figures.loaded:
        return choose(replace(figures, visibility="at_once"))  # no reader is kept waiting
    rows = figures.lake_rows if figures.whole else figures.changed_rows
    if rows is not None and rows <= RANGE_ROWS:
        return LoadPlan(way="merge", why=f"{rows} rows are one range")
    return LoadPlan(way="ranges", why=f"progressive, by {RANGE_ROWS} of {rows or 'some'} rows")


def _why_swap(figures: Figures, target: TargetFigures) -> str:
    if target.rows is None:
        return "there is no target yet" if figures.whole else ""
    changed, rows = figures.changed_rows, figures.lake_rows
    if figures.whole or changed is None or not rows:
        return ""
    if changed < max(SWAP_ROWS, SWAP_SHARE * rows):
        return ""
    return f"most rows change: {changed} of {rows}"


def _why_rebuild(figures: Figures, target: TargetFigures) -> str:
    """Tell why indexes are off during the merge; empty where to keep them costs less."""
    changed, rows = figures.changed_rows, target.rows
    if figures.whole or changed is None or rows is None:
        return ""  # most rows may be equal, and touch no index
    upkeep, rebuild = target.indexes * UPKEEP * changed, target.indexes * (rows + changed)
    if upkeep - rebuild < REBUILD_GAIN:
        return ""
    return (
        f"; {target.indexes} indexes are rebuilt, at {rebuild} rows: to keep them through"
        f" {changed} changes costs {upkeep}"
    )


def _why_merge(figures: Figures, target: TargetFigures) -> str:
    if figures.whole and target.rows is not None:
        return f"all rows are compared ({figures.whole}): equal ones stay as they are"
    changed = "some" if figures.changed_rows is None else str(figures.changed_rows)
    of = f" of {figures.lake_rows}" if figures.lake_rows is not None else ""
    return f"{changed} rows change{of}"
