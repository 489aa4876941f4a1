"""What happened to one table: its batches, newest first, and the versions of its lake table."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from naviglio.flows.site import Site
from naviglio.flows.status import point_text
from naviglio.landing.landing import Landing
from naviglio.model import Group, Manifest, Part, Question, TableSpec
from naviglio.partitions import ranges_of


@dataclass(frozen=True, kw_only=True)
class BatchEntry:
    """One batch's share for the table."""

    number: int
    at_utc: datetime
    kind: str
    upserts: int
    deletes: int
    files: int
    bytes: int
    windows: tuple[str, ...]  # partitions as ranges
    position: str | None
    drift: tuple[str, ...]
    why: str
    accepted: tuple[str, ...]  # what a person let land with it, and who
    attempt: str


@dataclass(frozen=True, kw_only=True)
class VersionEntry:
    """One version of the lake table."""

    version: int
    at_utc: datetime | None
    operation: str
    batch: int | None


@dataclass(frozen=True, kw_only=True)
class History:
    """Newest first."""

    pipeline: str
    table: str
    batches: tuple[BatchEntry, ...]
    versions: tuple[VersionEntry, ...]


def history(site: Site, group: Group, table: TableSpec, limit: int) -> History:
    """Return up to `limit` batches and lake versions of a table."""
    zone = ZoneInfo("UTC" if table.way == "transform" else site.pipeline.time_zone)
    landing = site.landing(group)
    found, answers = _last(landing, table.name, limit), landing.answers()
    return History(
        pipeline=site.pipeline.name,
        table=table.name,
        batches=tuple(
            replace(
                _batch(table, manifest, part, zone),
                accepted=tuple(_accepted(table, manifest, answers)),
            )
            for manifest, part in found
        ),
        versions=_versions(site, table, limit),
    )


def _last(landing: Landing, table: str, limit: int) -> list[tuple[Manifest, Part]]:
    """Read back from the head, twice as far as long as too few batches touch the table."""
    head, span = landing.head().number, limit
    while True:
        kept: deque[tuple[Manifest, Part]] = deque(maxlen=limit)
        for manifest in landing.after(max(0, head - span)):
            kept.extend((manifest, part) for part in manifest.parts if part.table == table)
        if len(kept) == limit or span >= head:
            return list(reversed(kept))
        span *= 2


def _batch(table: TableSpec, manifest: Manifest, part: Part, zone: ZoneInfo) -> BatchEntry:
    at = manifest.position.tables[table.name]
    return BatchEntry(
        number=manifest.number, at_utc=manifest.created_at_utc, kind=part.kind,
        upserts=part.upserts, deletes=part.deletes, files=len(part.files),
        bytes=sum(file.bytes for file in part.files), windows=ranges_of(part.windows, zone),
        position=point_text(part.schema, table, at.stream), drift=part.drift, why=part.why,
        accepted=(), attempt=manifest.attempt,
    )  # fmt: skip


def _accepted(table: TableSpec, manifest: Manifest, answers: list[Question]) -> Iterator[str]:
    for one in answers:
        # The answer about another landing rests on no batch, and is gone after the next load.
        mine = one.table == table.name and one.kind != "identity"
        if mine and one.head == manifest.number - 1:
            at = f" at {one.accepted_at_utc:%Y-%m-%d %H:%M} UTC" if one.accepted_at_utc else ""
            yield f"{one.kind} by {one.accepted_by or 'somebody'}{at}"


def _versions(site: Site, table: TableSpec, limit: int) -> tuple[VersionEntry, ...]:
    from deltalake import DeltaTable

    lake = site.lake(table)
    if not lake.exists():
        return ()
    return tuple(map(_version, DeltaTable(lake.uri).history(limit)))


def _version(commit: Mapping[str, Any]) -> VersionEntry:
    note = json.loads(commit.get("naviglio", "{}"))
    at = commit.get("timestamp")
    return VersionEntry(
        version=commit["version"],
        at_utc=datetime.fromtimestamp(at / 1000, UTC) if at else None,
        operation=commit.get("operation", "unknown"),
        batch=note.get("batch"),
    )
