"""What a transform has to compute again: found from the inputs' lake tables, without Spark."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

from naviglio.carriers import arrow_schema
from naviglio.errors import ConfigError
from naviglio.flows.site import Site
from naviglio.lake.table import LakeTable, Seen
from naviglio.landing.landing import Head
from naviglio.model import Input, TablePosition, Transform
from naviglio.points import reach
from naviglio.transform.days import days_of, referring

_EVERYTHING_DAYS = 400  # beyond it, reading everything is less work than so many conditions


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a transform has to compute again: `days` of its output, or everything, and why."""

    transform: Transform
    head: Head
    seen: dict[str, Seen]
    program: str  # hash of what the rows are a function of, besides the inputs
    source: str  # of the program, as it was hashed
    days: frozenset[date] | None
    why: str = ""


def work_of(site: Site, one: Transform, *, whole: bool = False) -> Work | None:
    """Return what to compute again; None when nothing is, or an input has no lake table yet.

    Reads the head before the inputs' versions, so a later batch never holds older rows.
    """
    head, source = site.landing(one.group).head(), read_program(one)
    program = _program(site, one, source)
    reach("capture: after head")
    before = head.manifest.position if head.manifest else None
    since = {name: seen_of(found) for name, found in before.tables.items()} if before else {}
    found: dict[str, tuple[Seen, str, set[date]]] = {}
    seen: dict[str, Seen] = {}
    for wanted in sorted(one.inputs, key=lambda i: i.way == "through"):
        changes = _changes(site, one, wanted, since.get(wanted.table), seen)
        if changes is None:
            return None
        found[wanted.table], seen[wanted.table] = changes, changes[0]
    why = next((why for _, why, _ in found.values() if why), "")
    if before is None:
        why = "first run"
    elif before.place.incarnation != program:
        why = "the program or its declaration changed"
    elif whole:
        why = "asked for"
    days = frozenset[date]() if why else frozenset[date]().union(*(d for _, _, d in found.values()))
    if len(days) > _EVERYTHING_DAYS:
        why = f"{len(days)} days are touched"
    if not why and not days:
        return None
    return Work(
        transform=one, head=head, seen=seen, program=program, source=_text(one, source),
        days=None if why else days, why=why,
    )  # fmt: skip


def unseen(site: Site, one: Transform) -> tuple[str, ...]:
    """Return the inputs with batches that the last computation lacks, as `flights: 12 of 14`."""
    manifest = site.landing(one.group).head().manifest
    seen = {name: seen_of(at) for name, at in manifest.position.tables.items()} if manifest else {}
    told = []
    for wanted in one.inputs:
        at, there = seen.get(wanted.table), lake_of(site, wanted.table).number()
        if there > (computed := at.batch if at else 0):
            told.append(f"{wanted.table}: {computed} of {there}")
    return tuple(told)


def _changes(
    site: Site, one: Transform, wanted: Input, since: Seen | None, seen: Mapping[str, Seen]
) -> tuple[Seen, str, set[date]] | None:
    """Return what an input is at, why its changes can't be told, and the days that they touch."""
    lake, zone = lake_of(site, wanted.table), ZoneInfo(site.pipeline.time_zone)
    schema = lake.schema_if_any()
    if schema is None or not schema.key:
        return None
    there = {"day": (wanted.event_time,), "through": tuple(column for column, _ in wanted.on)}
    images = lake.images(since, there.get(wanted.way, schema.key))
    if images is None:
        return None
    why = images.why_whole or _why_other_columns(lake, since, images.now)
    if why:
        return images.now, f"{wanted.table}: {why}", set()
    if wanted.way == "all":
        changed = any(batch.num_rows for batch in images.batches)
        return images.now, f"{wanted.table} changed" if changed else "", set()
    if wanted.way == "day":
        return images.now, "", days_of(images.batches, wanted.event_time, zone)
    through = next(i for i in one.inputs if i.table == wanted.through)
    rows, version = lake_of(site, through.table), seen[through.table].version
    times = referring(
        rows.files(version),
        arrow_schema(rows.schema(version)),
        [(here, column) for column, here in wanted.on],
        images.batches,
        through.event_time,
    )
    return images.now, "", days_of(times, through.event_time, zone)


def _why_other_columns(lake: LakeTable, since: Seen | None, now: Seen) -> str:
    """Say that an input's columns changed: a program may pass them all on."""
    if since is None or since.version == now.version:
        return ""
    if lake.schema(since.version) == lake.schema(now.version):
        return ""
    return "its columns changed"


def seen_of(found: TablePosition) -> Seen | None:
    """Return what a transform has seen of an input, as its position says; None for none."""
    way, _, rest = found.way.partition(" ")
    if way != "lake":
        return None
    table, _, batch = rest.partition(" batch ")
    return Seen(lake_table=table, version=found.stream or 0, batch=int(batch))


def _program(site: Site, one: Transform, source: bytes) -> str:
    """Return what the rows are a function of, besides the inputs: program and declaration."""
    declared = asdict(replace(one, program=Path(one.program).name, adopt=False))
    said = json.dumps([declared, site.pipeline.time_zone], sort_keys=True).encode()
    return hashlib.sha256(source + b"\0" + said).hexdigest()


def read_program(one: Transform) -> bytes:
    """Return the bytes of a transform's program; ConfigError where there is none."""
    try:
        return Path(one.program).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"transform {one.name!r}: its program {one.program} can't be read "
            f"({type(error).__name__}). `program` is a path relative to the pipeline's file."
        ) from error


def _text(one: Transform, source: bytes) -> str:
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"transform {one.name!r}: its program {one.program} is not UTF-8 (at byte "
            f"{error.start}). Save it as UTF-8."
        ) from error


def lake_of(site: Site, table: str) -> LakeTable:
    """Return the lake table of an input."""
    named = {spec.name: spec for spec in site.pipeline.tables}
    return site.lake(named[table])
