"""What a run would do, found without changing anything anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from naviglio.capture.drift import Drift
from naviglio.capture.reading import Reading, refuse_torn
from naviglio.capture.stream import readable, refuse_future, since_of
from naviglio.capture.sweep import due
from naviglio.capture.table import Course, Wish, course_of, drift_of, refuse_unseen
from naviglio.conditions import Condition, Since, Within
from naviglio.flows.accept import open_questions
from naviglio.flows.capture import drift_question, fence_of, final_windows, reading_of
from naviglio.flows.site import Site
from naviglio.flows.status import point_text
from naviglio.flows.touched import work_of
from naviglio.landing.landing import Head
from naviglio.model import (
    Fence,
    Group,
    LedgerRow,
    Question,
    TablePosition,
    TableSpec,
    Transform,
    Window,
)
from naviglio.partitions import ranges_of
from naviglio.ports import Snapshot
from naviglio.transform.days import output_windows


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """What a run would do with one table.

    `action`: `whole` (read all rows), `changes` (rows between position and fence), `compare`
    (hashes), `windows`, `wait` (for a fence), `ask` (a question holds the group), `compute` (a
    transform) or `nothing`. `rows` are those it would read, or compare.
    """

    group: str
    table: str
    way: str
    action: str
    rows: int | None
    why: str
    position: str | None
    fence: str | None
    held_by: str
    windows: tuple[str, ...]  # partitions that would be read, as ranges
    sweep: bool  # whether keys are compared for deletes
    drift: tuple[str, ...]
    lake_lacks: int  # batches
    target_lacks: int  # versions of the lake table that exist and are not loaded


@dataclass(frozen=True, kw_only=True)
class _Step:
    action: str
    rows: int | None = None
    why: str = ""
    windows: tuple[Window, ...] = ()
    sweep: bool = False


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """What each side of a group knows."""

    group: Group
    head: Head
    fence: Fence
    ledger: dict[str, LedgerRow]
    questions: dict[str, Question]  # by table


def plan(site: Site, group: Group, wish: Wish) -> list[TablePlan]:
    """Tell what a run with `wish` would do for every table of the group.

    Raises what the run would raise for rows that the table's way can't see.
    """
    schemas = {t.name: site.source.describe(t.source, t.key) for t in group.tables}
    sides = _Sides(
        group=group, head=site.landing(group).head(), fence=fence_of(site, group, schemas),
        ledger=site.target.ledger(),
        questions={question.table: question for question in open_questions(site, group)},
    )  # fmt: skip
    with site.source.snapshot() as snapshot:
        return [_table(site, table, wish, sides, snapshot) for table in group.tables]


def plan_transform(site: Site, one: Transform) -> TablePlan:
    """Tell which days a run would compute of a transform if its inputs stayed as they are now."""
    work = None if (why := _uncaptured(site, one)) else work_of(site, one)
    [table] = one.group.tables
    head, lake = site.landing(one.group).head(), site.lake(table)
    row = site.target.ledger().get(str(table.target))
    days = output_windows(work.days or ()) if work else ()
    return TablePlan(
        group=one.name, table=one.name, way=table.way, action="compute" if work else "nothing",
        rows=None, why=work.why if work else why, position=None, fence=None, held_by="",
        windows=ranges_of(days, ZoneInfo("UTC")), sweep=False, drift=(),
        lake_lacks=head.number - lake.number(), target_lacks=_lacking(lake.version(), row),
    )  # fmt: skip


def _uncaptured(site: Site, one: Transform) -> str:
    named = {table.name: table for table in site.pipeline.tables}
    absent = [i.table for i in one.inputs if not site.lake(named[i.table]).exists()]
    return f"{', '.join(absent)}: not captured yet" if absent else ""


def _table(
    site: Site, table: TableSpec, wish: Wish, sides: _Sides, snapshot: Snapshot
) -> TablePlan:
    group, head, fence = sides.group, sides.head, sides.fence
    reading = replace(reading_of(site, group, table, head, snapshot), fence=fence)
    drift, zone = drift_of(reading), ZoneInfo(site.pipeline.time_zone)
    if wish.windows and not table.has_partitions:
        step = _Step(action="nothing", why="no event time, so no part in partition runs")
    elif asked := _asked(site, table, wish, drift, sides):
        step = _Step(action="ask", why=asked)
    else:
        step = _step(reading, wish, drift, final_windows(table, zone, fence))
    lake, last, row = site.lake(table), reading.last, sides.ledger.get(str(table.target))
    return TablePlan(
        group=group.name, table=table.name, way=f"{table.way} {table.modified}".strip(),
        action=step.action, rows=step.rows,
        why=step.why, position=point_text(reading.schema, table, last.stream) if last else None,
        fence=point_text(reading.schema, table, fence.of(table.name)), held_by=fence.held_by,
        windows=ranges_of(step.windows, zone), sweep=step.sweep, drift=drift.texts,
        lake_lacks=head.number - lake.number(), target_lacks=_lacking(lake.version(), row),
    )  # fmt: skip


def _asked(site: Site, table: TableSpec, wish: Wish, drift: Drift, sides: _Sides) -> str:
    """Return the question that would hold the table, if any: a drift is judged as it is now."""
    question = sides.questions.get(table.name)
    if question is not None and question.kind != "drift":
        return f"{question.kind}: {question.text}"
    if not drift.other or wish.whole:
        return ""
    asked = drift_question(sides.group, table, sides.head, drift)
    return "" if site.landing(sides.group).answered(asked) else f"drift: {asked.text}"


def _lacking(version: int | None, row: LedgerRow | None) -> int:
    """Count the versions of the lake table that the target has not seen."""
    if version is None:
        return 0
    return version - row.version if row else version + 1


def _step(reading: Reading, wish: Wish, drift: Drift, final: list[Window]) -> _Step:
    """Return what the capture would do, and with how many rows."""
    spec, last = reading.spec, reading.last
    refuse_torn(spec, reading.snapshot)
    course = course_of(reading, wish, drift, final)
    if course.way == "windows":
        return _windows(reading, course)
    if spec.way == "stream" and reading.bound is None:
        return _Step(action="wait", why=f"no fence: {reading.fence.held_by}")
    refuse_unseen(reading)
    if course.way == "whole" or last is None:
        return _Step(action="whole", rows=_count(reading, readable(spec)), why=course.why)
    if course.way == "hashes":
        return _Step(action="compare", rows=last.hashes.rows if last.hashes else None)
    return _changes(reading, last)


def _windows(reading: Reading, course: Course) -> _Step:
    if not course.windows:
        return _Step(action="nothing", rows=0)
    inside = (Within(column=reading.spec.event_time, window=window) for window in course.windows)
    rows = sum(_count(reading, where) for where in inside)
    return _Step(action="windows", rows=rows, why=course.why, windows=course.windows)


def _changes(reading: Reading, last: TablePosition) -> _Step:
    refuse_future(reading)
    spec = reading.spec
    sweep = bool(last.hashes and due(reading, last.hashes))
    between = Since(
        column=spec.modified,
        low=since_of(spec, last),
        high=reading.bound,
        or_null=spec.nulls == "read",
    )
    rows = _count(reading, between)
    return _Step(action="changes" if rows or sweep else "nothing", rows=rows, sweep=sweep)


def _count(reading: Reading, where: Condition) -> int:
    return reading.snapshot.count(reading.scan(where=where))
