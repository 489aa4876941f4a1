"""Capture one group: head, fence, one snapshot, then batch head+1, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from naviglio.capture.columns import order_of, refuse_unfit_columns
from naviglio.capture.drift import Drift
from naviglio.capture.guard import suspicious
from naviglio.capture.reading import Captured, Reading, need_one_moment
from naviglio.capture.table import Wish, capture_table, drift_of
from naviglio.conditions import moment_of
from naviglio.errors import ConfigError, LostRaceError, QuestionError
from naviglio.flows.site import HeardSink, Site
from naviglio.landing.attempt import Attempt
from naviglio.landing.landing import Head, Landing
from naviglio.model import (
    Bound,
    Fence,
    Group,
    Manifest,
    Place,
    Position,
    Question,
    TablePosition,
    TableSchema,
    TableSpec,
    Window,
)
from naviglio.partitions import key_of, windows_between
from naviglio.points import reach
from naviglio.ports import LOWEST, Counting, Snapshot

log = logging.getLogger("naviglio.capture")
_TRIES = 6


@dataclass(frozen=True, kw_only=True)
class _Moment:
    """One try of a capture: what it goes on from, writes to, reads in and is asked for."""

    head: Head
    attempt: Attempt
    snapshot: Snapshot
    fence: Fence
    wish: Wish


def capture(site: Site, group: Group, wish: Wish) -> Manifest | None:
    """Land the group's next batch; None when there is nothing to land.

    A worker that loses the race for a number throws its files away and captures again. Raises
    QuestionError while a question holds the group; nothing has landed then.
    """
    racing = Retrying(
        retry=retry_if_exception_type(LostRaceError), stop=stop_after_attempt(_TRIES),
        wait=wait_random(0, 0.2), reraise=True,
    )  # fmt: skip
    return racing(_capture_once, site, group, wish)


def fence_of(site: Site, group: Group, schemas: Mapping[str, TableSchema]) -> Fence:
    """Read the group's fence: of its modification and event times, and of each stream of numbers.

    What needs neither is not asked of the source, which may lack the right to tell.
    """
    traits = site.source.traits
    numbered = [
        table
        for table in group.tables
        if table.way == "stream"
        and order_of(schemas[table.name].column(table.modified), traits) != "time"
    ]
    fence = Fence(point=None)
    if any(table.way != "diff" and table not in numbered for table in group.tables):
        fence = site.source.fence(site.pipeline.fence_margin_s, site.pipeline.safety_lag_s)
    numbers = {table.name: _bound(site, table, schemas[table.name]) for table in numbered}
    return replace(fence, numbers=numbers)


def _bound(site: Site, table: TableSpec, schema: TableSchema) -> Bound:
    if not isinstance(site.source, Counting):
        raise ConfigError(
            f"{table.source}: this source can't tell where a stream along {table.modified!r} ends. "
            "Capture by `diff`."
        )
    above = site.source.above(table.source, schema.column(table.modified))
    return Bound(point=max(above - (table.lag or 0), LOWEST), lag=table.lag)


def reading_of(
    site: Site, group: Group, table: TableSpec, head: Head, snapshot: Snapshot
) -> Reading:
    """Return a reading that goes on from `head` and lands nothing, for plans and comparisons."""
    landing = site.landing(group)
    attempt = Attempt(store=landing.store, number=head.number + 1)
    moment = _Moment(
        head=head, attempt=attempt, snapshot=snapshot, fence=Fence(point=None), wish=Wish()
    )
    schema = site.source.describe(table.source, table.key)
    return _reading(site, landing, table, moment, schema)


def final_windows(table: TableSpec, zone: ZoneInfo, fence: Fence) -> list[Window]:
    """Return the windows of a table by windows, from its first to the last one below the fence."""
    if table.way != "windows" or table.since is None or fence.point is None:
        return []
    moment = moment_of(fence.point)
    last = max(key_of(moment, zone), table.since)
    windows = windows_between(table.since, last, zone).values()
    return [window for window in windows if window.end <= moment]


def _capture_once(site: Site, group: Group, wish: Wish) -> Manifest | None:
    landing = site.landing(group)
    identity = landing.found()
    head = landing.head()
    reach("capture: after head")
    schemas = {t.name: site.source.describe(t.source, t.key) for t in group.tables}
    for table in group.tables:
        refuse_unfit_columns(
            table, schemas[table.name], site.pipeline.time_zone, site.source.traits
        )
    fence = fence_of(site, group, schemas)
    reach("capture: after fence")
    with site.source.snapshot() as snapshot, landing.attempt(head) as attempt:
        if len(group.tables) > 1:
            need_one_moment(snapshot, f"group {group.name!r}", "a group of several tables")
        place = snapshot.place(_expected(head, wish))
        reach("capture: after snapshot")
        moment = _Moment(head=head, attempt=attempt, snapshot=snapshot, fence=fence, wish=wish)
        captured = {
            table.name: _capture_table(site, group, table, moment, schemas[table.name])
            for table in group.tables
            if not wish.windows or table.has_partitions
        }
        reach("capture: after files")
        before = _positions(head)
        if not _lands(before, captured):
            attempt.abandon()
            log.info("captured %s: nothing new since batch %d", group.name, head.number)
            return None
        manifest = Manifest(
            group=group.name, number=attempt.number, attempt=attempt.id, landing=identity,
            previous=head.sha256, created_at_utc=datetime.now(UTC), fence=fence,
            parts=tuple(c.part for c in captured.values() if c.part),
            position=_position(before, captured, place),
        )  # fmt: skip
        landing.commit(attempt, manifest)
    for part in manifest.parts:
        log.info(
            "captured %s.%s: batch %d, %s, %d upserts, %d deletes",
            group.name, part.table, manifest.number, part.kind, part.upserts, part.deletes,
        )  # fmt: skip
    return manifest


def _expected(head: Head, wish: Wish) -> Place | None:
    """Return the place that the snapshot must follow; a new whole reading takes any."""
    return head.manifest.position.place if head.manifest and not wish.whole else None


def _capture_table(
    site: Site, group: Group, table: TableSpec, moment: _Moment, schema: TableSchema
) -> Captured:
    landing, head = site.landing(group), moment.head
    reading = _reading(site, landing, table, moment, schema)
    drift = drift_of(reading)
    if drift.other and not moment.wish.whole:
        _hold(site, landing, drift_question(group, table, head, drift))
    elif not drift.other:
        landing.withdraw(head.number, table.name, "drift")
    final = final_windows(table, ZoneInfo(site.pipeline.time_zone), moment.fence)
    captured = capture_table(reading, moment.wish, drift, final)
    if suspicious(captured, table.guard):
        text = f"{captured.deletes} of {captured.of} rows known before are gone"
        found = f"{captured.deletes} {_asked_by(captured)}".strip()
        _hold(site, landing, _question(group, table, head, "mass delete", text, found))
    elif captured.compared:
        landing.withdraw(head.number, table.name, "mass delete")
    return captured


def _reading(
    site: Site, landing: Landing, table: TableSpec, moment: _Moment, schema: TableSchema
) -> Reading:
    return Reading(
        spec=table, schema=schema, last=_positions(moment.head).get(table.name),
        snapshot=moment.snapshot, fence=moment.fence,
        sink=HeardSink(moment.attempt, site, table.name), number=moment.attempt.number,
        at_utc=datetime.now(UTC), hash_spec=site.source.traits.hash_spec,
        landed_since=lambda number: _landed_since(landing, number, table.name),
        locate=lambda path: str(Path(landing.store.root, path)),
        held=lambda window: site.lake(table).held(table.event_time, window),
        behind=lambda: site.lake(table).number() != moment.head.number,
        deleted_by=lambda files: _deleted_by(site, table, moment.head, files),
        kept=site.lake(table).schema_if_any,
    )  # fmt: skip


def _asked_by(captured: Captured) -> str:
    """Return what found deletes: windows that lost rows, marks, or a comparison of all (empty)."""
    if captured.lost:
        return " ".join(f"{w.start.isoformat()}/{w.end.isoformat()}" for w in captured.lost)
    return "" if captured.compared else "marks"


def drift_question(group: Group, table: TableSpec, head: Head, drift: Drift) -> Question:
    """Return what is asked of a table whose schema changed in another way than by new columns."""
    found = "; ".join(drift.other)
    return _question(group, table, head, "drift", f"its schema drifted: {found}", found)


def _deleted_by(site: Site, table: TableSpec, head: Head, files: list[str]) -> int | None:
    lake = site.lake(table)
    return lake.deleted_by(files) if lake.number() == head.number else None


def _question(
    group: Group,
    table: TableSpec,
    head: Head,
    kind: Literal["mass delete", "drift"],
    text: str,
    found: str,
) -> Question:
    return Question(
        group=group.name, table=table.name, kind=kind, head=head.number,
        text=text, found=found, asked_at_utc=datetime.now(UTC),
    )  # fmt: skip


def _hold(site: Site, landing: Landing, question: Question) -> None:
    """Ask, and stop the group, unless the question is answered."""
    if landing.answered(question):
        return
    landing.ask(question)
    raise QuestionError(
        f"table {question.table!r}: {question.text}. Nothing was landed. If that is right, run "
        f"`naviglio accept {site.pipeline.name} --table {question.table}` and run again; else mend "
        "the source."
    )


def _landed_since(landing: Landing, number: int, table: str) -> list[str]:
    return [
        str(Path(landing.store.root, file.path))
        for manifest in landing.after(number)
        for part in manifest.parts
        if part.table == table
        for file in part.files
    ]


def _positions(head: Head) -> dict[str, TablePosition]:
    return head.manifest.position.tables if head.manifest else {}


def _lands(before: dict[str, TablePosition], captured: dict[str, Captured]) -> bool:
    """Whether there is anything to land: rows, windows that were read, or a new key list."""
    return any(
        c.part is not None or (name in before and c.position.hashes != before[name].hashes)
        for name, c in captured.items()
    )


def _position(
    before: dict[str, TablePosition], captured: dict[str, Captured], place: Place
) -> Position:
    now = {name: c.position for name, c in captured.items()}
    return Position(place=place, tables={**before, **now})
