"""Which partitions of a table are final and not yet published: what its asset events say.

An event carries up to where its table was published, so the state is committed with the events that
it speaks of: a crash between a load and its events loses none, and an event that is lost with its
database is published again. At least once, therefore; a consumer asks the table, not the event.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from naviglio.capture.columns import goes_by_time
from naviglio.carriers import arrow_schema
from naviglio.conditions import moment_of
from naviglio.flows.site import Site
from naviglio.flows.touched import seen_of
from naviglio.lake.table import LakeTable, Seen
from naviglio.model import Group, Manifest, TablePosition, TableSpec
from naviglio.partitions import key_of, window_of
from naviglio.transform.days import days_of, times_from

log = logging.getLogger("naviglio.publish")
_MOST_TOLD = 7


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Partitions to publish, and what their event says; `keys` are days in the pipeline's zone."""

    keys: tuple[str, ...]
    extra: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Last:
    """What the last event said: all up to `seen` is published, days that ended by `until`."""

    seen: Seen
    until: datetime | None


def publications(
    site: Site,
    tables: Iterable[tuple[Group, TableSpec]],
    at: Mapping[str, Seen],
    last: Callable[[str], Mapping[str, Any] | None],
) -> dict[str, Publication]:
    """Return what of each table is to be published, by name; `last` gives a table's last event."""
    found = {}
    for group, table in tables:
        if table.name in at:
            one = publication(site, group, table, at[table.name], last(table.name))
            if one is not None:
                found[table.name] = one
                log.info("publishing %s: %s", table.name, _few(one.keys))
    return found


def applied_at(site: Site, tables: Iterable[TableSpec]) -> dict[str, Seen]:
    """Return up to where each lake table is, by name; without those not there yet."""
    found = {table.name: site.lake(table).seen() for table in tables}
    return {name: seen for name, seen in found.items() if seen is not None}


def loaded_at(site: Site, tables: Sequence[TableSpec]) -> dict[str, Seen]:
    """Return up to where each target is, as the ledger says; without those not there yet."""
    ledger = site.target.ledger() if tables else {}
    rows = {table.name: ledger.get(str(table.target)) for table in tables}
    return {
        name: Seen(lake_table=row.lake_table, version=row.version, batch=row.batch)
        for name, row in rows.items()
        if row is not None
    }


def publication(
    site: Site, group: Group, table: TableSpec, at: Seen, last: Mapping[str, Any] | None
) -> Publication | None:
    """Return what of a table is final and not published, as of `at`; None when nothing is.

    `last` is the extra of the last event, None before the first. A day is final when all that was
    modified before its end has landed. It is published when it became final, and again when rows of
    it changed afterwards, or it was read again; then its key is before `late_before`. A table
    without event time is published when its rows changed, by the day of its batch.
    """
    manifest, before = site.landing(group).batch(at.batch), _last(last)
    if before is not None and before.seen == at:
        return None
    zone, lake = ZoneInfo(site.pipeline.time_zone), site.lake(table)
    until = _final_until(site, table, manifest)
    if until is None:
        keys = _of_its_batch(lake, at, before, manifest, zone)
    else:
        touched = _touched(lake, table, at, before, zone)
        since = before.until if before else None
        touched |= _days_in_lake(lake, table, at, zone, since) if since else set()
        touched |= _read_again(manifest.position.tables.get(table.name), before, zone)
        keys = sorted(d.isoformat() for d in touched if window_of(d.isoformat(), zone).end <= until)
    if not keys:
        return None
    late_before = key_of(before.until, zone) if before and before.until else ""
    extra = {
        "pipeline": site.pipeline.name, "table": table.name, "lake_table": at.lake_table,
        "version": at.version, "batch": at.batch, "rows": lake.rows(at.version),
        "until": until.isoformat() if until else "", "late_before": late_before,
    }  # fmt: skip
    return Publication(keys=tuple(keys), extra=extra)


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys) if len(keys) <= _MOST_TOLD else f"{keys[0]} .. {keys[-1]} ({len(keys)})"


def _last(extra: Mapping[str, Any] | None) -> _Last | None:
    if not extra:
        return None
    seen = Seen(
        lake_table=str(extra["lake_table"]),
        version=int(extra["version"]),
        batch=int(extra["batch"]),
    )
    until = str(extra["until"])
    return _Last(seen=seen, until=datetime.fromisoformat(until) if until else None)


def _final_until(site: Site, table: TableSpec, manifest: Manifest) -> datetime | None:
    """Return the moment by which a day must have ended to be final; None without event time.

    Of a stream and of windows this is the fence of the batch; a comparison, and a stream along
    numbers, sees what was committed when it was read; a transform is as final as the inputs that it
    was computed from by day.
    """
    at = manifest.position.tables.get(table.name)
    if not table.event_time or at is None:
        return None
    if table.way == "transform":
        return _inputs_final_until(site, table, manifest)
    if table.way == "stream" and at.stream is not None and goes_by_time(at.schema, table):
        return moment_of(at.stream)
    if table.way == "windows" and manifest.fence.point is not None:
        return moment_of(manifest.fence.point)
    return manifest.created_at_utc


def _inputs_final_until(site: Site, table: TableSpec, manifest: Manifest) -> datetime | None:
    [transform] = [one for one in site.pipeline.transforms if one.name == table.name]
    bounds = []
    for wanted in (one for one in transform.inputs if one.way == "day"):
        [group] = [g for g in site.pipeline.groups if wanted.table in {t.name for t in g.tables}]
        seen = seen_of(manifest.position.tables[wanted.table])
        input_manifest = site.landing(group).batch(seen.batch) if seen and seen.batch else None
        if input_manifest is None:
            return None
        bounds.append(_final_until(site, group.table(wanted.table), input_manifest))
    found = [bound for bound in bounds if bound is not None]
    return min(found) if found and len(found) == len(bounds) else manifest.created_at_utc


def _touched(
    lake: LakeTable, table: TableSpec, at: Seen, before: _Last | None, zone: ZoneInfo
) -> set[date]:
    """Return the days of the rows that changed; all days where that can't be told."""
    if before is None:
        return _days_in_lake(lake, table, at, zone)
    images = lake.images(before.seen, (table.event_time,), at.version)
    if images is None or images.why_whole:
        return _days_in_lake(lake, table, at, zone)
    return days_of(images.batches, table.event_time, zone)


def _days_in_lake(
    lake: LakeTable, table: TableSpec, at: Seen, zone: ZoneInfo, since: datetime | None = None
) -> set[date]:
    """Return the days of all rows, or those of them that end after `since`."""
    schema = arrow_schema(lake.schema(at.version))
    day = date.fromisoformat(key_of(since, zone)) if since else None
    times = times_from(lake.files(at.version), schema, table.event_time, day)
    return days_of(times, table.event_time, zone) - ({day - timedelta(days=1)} if day else set())


def _read_again(at: TablePosition | None, before: _Last | None, zone: ZoneInfo) -> set[date]:
    """Return the days that were read as windows since, also those without a row."""
    since = before.seen.batch if before else 0
    return {
        date.fromisoformat(key_of(one.window.start, zone))
        for one in (at.coverage if at else ())
        if one.batch > since
    }


def _of_its_batch(
    lake: LakeTable, at: Seen, before: _Last | None, manifest: Manifest, zone: ZoneInfo
) -> list[str]:
    key = key_of(manifest.created_at_utc, zone)
    if before is None:
        return [key]
    images = lake.images(before.seen, lake.schema(at.version).key, at.version)
    changed = images is None or images.why_whole or any(b.num_rows for b in images.batches)
    return [key] if changed else []
