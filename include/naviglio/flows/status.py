"""How far a pipeline is: in its landing, its lake and its target, against source and clock."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

import msgspec

from naviglio.capture.columns import goes_by_time
from naviglio.capture.reading import way_of
from naviglio.capture.windows import gaps
from naviglio.conditions import moment_of
from naviglio.errors import NaviglioError
from naviglio.flows.accept import open_questions
from naviglio.flows.capture import fence_of, final_windows
from naviglio.flows.site import Site
from naviglio.flows.touched import unseen
from naviglio.landing.attempt import Attempt
from naviglio.landing.landing import Head, Landing
from naviglio.model import (
    Coverage,
    Fence,
    Group,
    LedgerRow,
    Question,
    TablePosition,
    TableSchema,
    TableSpec,
)
from naviglio.partitions import ranges_of

_NOWHERE: tuple[int | None, int | None] = (None, None)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class TableStatus:
    """One table; None where nothing is there yet, or the side that knows it is away."""

    group: str
    table: str
    way: str
    position: str | None  # a moment as ISO text, else the point's number
    fence: str | None
    held_by: str  # what holds the fence back
    behind_s: float | None  # from the position to now
    batch: int
    landed_at_utc: datetime | None
    lake_batch: int | None
    lake_version: int | None
    target: str
    target_batch: int | None
    target_version: int | None
    loaded_at_utc: datetime | None
    gaps: tuple[str, ...]  # partitions that should be covered and are not, as ranges
    ledger: LedgerRow | None  # the last load's, with its counts
    unseen: tuple[str, ...] = ()  # of a transform: inputs with newer batches, `flights: 12 of 14`


@dataclass(frozen=True, kw_only=True)
class AttemptStatus:
    """Files of an attempt that is no batch; they go when their number is taken by another."""

    group: str
    attempt: str
    number: int
    state: str  # `dead`, `running`, or `elsewhere` where another host began it


@dataclass(frozen=True, kw_only=True)
class PipelineStatus:
    """One pipeline."""

    pipeline: str
    tables: tuple[TableStatus, ...]
    questions: tuple[Question, ...]
    attempts: tuple[AttemptStatus, ...]
    away: dict[str, str]  # `source`, `target` or `lake TABLE`: why its columns are empty


class _Intent(msgspec.Struct, frozen=True):
    """What an attempt says of itself."""

    host: str
    pid: int


@dataclass(frozen=True)
class _Asking:
    """Asks sides that may be away, each only until its first refusal."""

    away: dict[str, str] = field(default_factory=dict)

    def ask(self, side: str, question: Callable[[], _T], absent: _T) -> _T:
        if side in self.away:
            return absent
        try:
            return question()
        except NaviglioError as error:
            self.away[side] = str(error)
            return absent


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the tables of one group have in common."""

    head: Head
    fence: Fence | None
    ledger: dict[str, LedgerRow]
    asking: _Asking


def status(site: Site) -> PipelineStatus:
    """Tell how far every table of the pipeline is; a side that is away leaves its columns empty."""
    asking = _Asking()
    nothing: dict[str, LedgerRow] = {}
    ledger = asking.ask("target", lambda: site.target.ledger(), nothing)  # noqa: PLW0108 - opening may fail as well
    tables: list[TableStatus] = []
    questions: list[Question] = []
    attempts: list[AttemptStatus] = []
    for group in site.pipeline.landings:
        landing = site.landing(group)
        head = landing.head()
        fence = _fence(site, group, head, asking)
        known = _Known(head=head, fence=fence, ledger=ledger, asking=asking)
        tables += [_table(site, group, table, known) for table in group.tables]
        questions += open_questions(site, group)
        attempts += _attempts(landing, head)
    return PipelineStatus(
        pipeline=site.pipeline.name, tables=tuple(tables), questions=tuple(questions),
        attempts=tuple(attempts), away=asking.away,
    )  # fmt: skip


def _fence(site: Site, group: Group, head: Head, asking: _Asking) -> Fence | None:
    if group not in site.pipeline.groups:  # a transform's, whose source is the lake
        return None
    known = head.manifest.position.tables if head.manifest else {}
    schemas = {name: at.schema for name, at in known.items() if at.schema}

    def fence() -> Fence:
        told = {
            t.name: schemas.get(t.name) or site.source.describe(t.source, t.key)
            for t in group.tables
            if t.way == "stream"
        }
        return fence_of(site, group, told)

    return asking.ask("source", fence, None)


def point_text(schema: TableSchema | None, spec: TableSpec, point: int | None) -> str | None:
    """Return a point of a table's modification order as text: a moment, or the bare number."""
    if point is None:
        return None
    if spec.modified and not goes_by_time(schema, spec):
        return str(point)
    return moment_of(point).isoformat()


def _table(site: Site, group: Group, table: TableSpec, known: _Known) -> TableStatus:
    manifest = known.head.manifest
    at = manifest.position.tables.get(table.name) if manifest else None
    reached = _reached(table, at)
    at_lake = known.asking.ask(f"lake {table.name}", lambda: _lake_at(site, table), _NOWHERE)
    row, fence, zone = known.ledger.get(str(table.target)), known.fence, _zone(site)
    covers = fence or (manifest.fence if manifest else Fence(point=None))
    return TableStatus(
        group=group.name,
        table=table.name,
        way=f"{table.way} {table.modified}".strip(),
        position=reached.isoformat() if isinstance(reached, datetime) else reached,
        fence=point_text(at.schema if at else None, table, fence.of(table.name)) if fence else None,
        held_by=fence.held_by if fence and table.way != "diff" else "",
        behind_s=_behind(reached),
        batch=known.head.number,
        landed_at_utc=manifest.created_at_utc if manifest else None,
        lake_batch=at_lake[0],
        lake_version=at_lake[1],
        target=str(table.target),
        target_batch=row.batch if row else None,
        target_version=row.version if row else None,
        loaded_at_utc=row.loaded_at_utc if row else None,
        gaps=ranges_of(gaps(final_windows(table, zone, covers), _covered(table, at)), zone),
        ledger=row,
        unseen=_unseen(site, table, known.asking),
    )


def _covered(table: TableSpec, at: TablePosition | None) -> tuple[Coverage, ...]:
    return at.coverage if at and at.way == way_of(table) else ()


def _unseen(site: Site, table: TableSpec, asking: _Asking) -> tuple[str, ...]:
    one = {one.name: one for one in site.pipeline.transforms}.get(table.name)
    return asking.ask(f"lake {table.name}", lambda: unseen(site, one), ()) if one else ()


def _lake_at(site: Site, table: TableSpec) -> tuple[int | None, int | None]:
    seen = site.lake(table).seen()
    return (seen.batch, seen.version) if seen else _NOWHERE


def _zone(site: Site) -> ZoneInfo:
    return ZoneInfo(site.pipeline.time_zone)


def _reached(table: TableSpec, at: TablePosition | None) -> datetime | str | None:
    """Return up to where the table is landed; a comparison stands where it last found something."""
    if at is None or table.way == "transform":
        return None
    if table.way == "windows":
        return max((c.window.end for c in at.coverage), default=None)
    if table.way == "diff":
        return at.hashes.read_at_utc if at.hashes else None
    text = point_text(at.schema, table, at.stream)
    return text if text is None or text.lstrip("-").isdigit() else datetime.fromisoformat(text)


def _behind(reached: datetime | str | None) -> float | None:
    if not isinstance(reached, datetime):
        return None
    return round((datetime.now(UTC) - reached).total_seconds(), 3)


def _attempts(landing: Landing, head: Head) -> list[AttemptStatus]:
    return [
        AttemptStatus(
            group=landing.group, attempt=one.id, number=one.number,
            state="dead" if one.number <= head.number else _state(landing, one),
        )
        for one in landing.unlanded(head.number)
    ]  # fmt: skip


def _state(landing: Landing, attempt: Attempt) -> str:
    data = landing.store.read(f"{attempt.folder}/intent.json")
    try:
        intent = msgspec.json.decode(data or b"", type=_Intent)
    except msgspec.DecodeError:  # nobody who writes there has made such a file
        return "dead"
    if intent.host != socket.gethostname():
        return "elsewhere"
    try:
        os.kill(intent.pid, 0)
    except ProcessLookupError:
        return "dead"
    except PermissionError:
        pass
    return "running"
