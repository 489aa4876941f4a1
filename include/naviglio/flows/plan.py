"""What a run would do, found without changing anything anywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from naviglio.capture.drift import Drift
from naviglio.capture.reading import Reading, refuse_torn
from naviglio.capture.stream import readable, refuse_future
from naviglio.capture.sweep import due
from naviglio.capture.table import Wish, drift_of, refuse_unseen, why_whole, wish_after
from naviglio.capture.windows import changed_windows, gaps
from naviglio.conditions import Condition, Since, Within
from naviglio.flows.accept import open_questions
from naviglio.flows.capture import fence_of, final_windows, reading_of
from naviglio.flows.site import Site
from naviglio.flows.status import point_text, ranges_of
from naviglio.flows.touched import work_of
from naviglio.landing.landing import Head
from naviglio.model import Fence, Group, LedgerRow, Question, TableSpec, Transform, Window
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


def plan(site: Site, group: Group, wish: Wish) -> list[TablePlan]:
    """Tell what a run with `wish` would do for every table of the group.

    Raises what the run would raise for rows that the table's way can't see.
    """
    head, ledger = site.landing(group).head(), site.target.ledger()
    questions = {question.table: question for question in open_questions(site, group)}
    schemas = {t.name: site.source.describe(t.source, t.key) for t in group.tables}
    fence = fence_of(site, group, schemas)
    with site.source.snapshot() as snapshot:
        return [
            _table(site, group, table, wish, head, fence, ledger, questions, snapshot)
            for table in group.tables
        ]


def plan_transform(site: Site, one: Transform) -> TablePlan:
    """Tell which days a run would compute of a transform if its inputs stayed as they are now."""
    work = None if (why := _uncaptured(site, one)) else work_of(site, one)
    [table], head, lake = (
        one.group.tables,
        site.landing(one.group).head(),
        site.lake(one.group.tables[0]),
    )
    row = site.target.ledger().get(str(table.target))
    days = [output_windows([day])[0] for day in (work.days or ())] if work else []
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


def _table(  # noqa: PLR0913, PLR0917 - one row gathers what each side knows
    site: Site,
    group: Group,
    table: TableSpec,
    wish: Wish,
    head: Head,
    fence: Fence,
    ledger: dict[str, LedgerRow],
    questions: dict[str, Question],
    snapshot: Snapshot,
) -> TablePlan:
    reading = replace(reading_of(site, group, table, head, snapshot), fence=fence)
    drift, zone = drift_of(reading), ZoneInfo(site.pipeline.time_zone)
    step = _step(reading, wish, drift, final_windows(table, zone, fence))
    question = questions.get(table.name)
    if question is not None:
        step = _Step(action="ask", why=f"{question.kind}: {question.text}")
    lake, last = site.lake(table), reading.last
    row = ledger.get(str(table.target))
    return TablePlan(
        group=group.name, table=table.name, way=reading.way, action=step.action, rows=step.rows,
        why=step.why, position=point_text(reading.schema, table, last.stream) if last else None,
        fence=point_text(reading.schema, table, fence.of(table.name)), held_by=fence.held_by,
        windows=ranges_of(step.windows, zone), sweep=step.sweep, drift=drift.texts,
        lake_lacks=head.number - lake.number(), target_lacks=_lacking(lake.version(), row),
    )  # fmt: skip


def _lacking(version: int | None, row: LedgerRow | None) -> int:
    """Count the versions of the lake table that the target has not seen."""
    if version is None:
        return 0
    return version - row.version if row else version + 1


def _step(reading: Reading, wish: Wish, drift: Drift, final: list[Window]) -> _Step:
    """Return what `capture_table` would do, by the same rules in the same order."""
    spec, wish = reading.spec, wish_after(drift, wish)
    refuse_torn(spec, reading.snapshot)
    if wish.windows and (not spec.event_time or spec.way == "diff"):
        step = _Step(action="nothing", why="no event time, so no part in partition runs")
    elif wish.windows:
        step = _windows(reading, wish.windows, "asked for")
    elif drift.other and not wish.whole:
        step = _Step(action="ask", why=f"drift: {'; '.join(drift.other)}")
    elif spec.way == "windows" and not wish.whole:
        step = _by_windows(reading, wish, drift, final)
    elif spec.way == "stream" and reading.bound is None:
        step = _Step(action="wait", why=f"no fence: {reading.fence.held_by}")
    else:
        step = _going_on(reading, wish.whole or why_whole(reading, drift))
    return step


def _going_on(reading: Reading, why: str) -> _Step:
    spec, last = reading.spec, reading.last
    refuse_unseen(reading)
    if why or last is None:
        return _Step(action="whole", rows=_count(reading, readable(spec)), why=why)
    if spec.way == "diff":
        return _Step(action="compare", rows=last.hashes.rows if last.hashes else None)
    return _changes(reading, last.stream)


def _by_windows(reading: Reading, wish: Wish, drift: Drift, final: list[Window]) -> _Step:
    refuse_unseen(reading)
    coverage = reading.last.coverage if reading.last else ()
    missing = gaps(final, coverage)
    again = changed_windows(reading) if wish.verify or drift.added else []
    if not missing and not again:
        return _Step(action="nothing", rows=0)
    why = f"{len(missing)} not covered, {len(again)} changed"
    return _windows(reading, tuple(sorted((*missing, *again))), why)


def _windows(reading: Reading, windows: tuple[Window, ...], why: str) -> _Step:
    column = reading.spec.event_time
    rows = sum(_count(reading, Within(column=column, window=window)) for window in windows)
    return _Step(action="windows", rows=rows, why=why, windows=windows)


def _changes(reading: Reading, since: int | None) -> _Step:
    refuse_future(reading)
    spec, last = reading.spec, reading.last
    sweep = bool(last and last.hashes and due(reading, last.hashes))
    between = Since(
        column=spec.modified, low=since, high=reading.bound, or_null=spec.nulls == "read"
    )
    rows = _count(reading, between)
    return _Step(action="changes" if rows or sweep else "nothing", rows=rows, sweep=sweep)


def _count(reading: Reading, where: Condition) -> int:
    return reading.snapshot.count(reading.scan(where=where))
