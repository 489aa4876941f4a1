"""Capture transforms from the lake: what is touched, Spark over it, then batch head+1 of each.

A transform lands as a table does: its group has a landing, and apply, load, history and rebuild
work on it unchanged. Spark writes the files of an attempt; nothing of them is visible before the
core has checked them and committed the manifest. What it went on from, the inputs' versions, stands
in the position of that manifest, so a killed run or a late one loses nothing and doubles nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from naviglio.carriers import arrow_schema
from naviglio.errors import ConfigError, DataError, LostRaceError, NaviglioError
from naviglio.flows.identity import check_identity
from naviglio.flows.replicate import Report, catch_up_lake, catch_up_target
from naviglio.flows.site import Site
from naviglio.lake.table import LakeTable, Seen
from naviglio.landing.attempt import Attempt
from naviglio.landing.landing import Head
from naviglio.model import (
    Fence,
    Input,
    Manifest,
    Part,
    Place,
    Position,
    TablePosition,
    TableSchema,
    Transform,
)
from naviglio.points import reach
from naviglio.transform.days import days_of, input_windows, output_windows, referring
from naviglio.transform.output import check, files_in, logical

log = logging.getLogger("naviglio.transform")
_TRIES = 3
_EVERYTHING_DAYS = 400  # beyond it, reading everything is less work than so many conditions

Submit = Callable[[str, str, Sequence[Mapping[str, Any]]], Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a transform has to compute again: `days` of its output, or everything, and why."""

    transform: Transform
    head: Head
    seen: dict[str, Seen]
    program: str  # hash of what the rows are a function of, besides the inputs
    days: frozenset[date] | None
    why: str = ""


@dataclass(kw_only=True)
class Transformed:
    """What a run did: the batches by transform, and what went wrong."""

    batches: dict[str, Manifest] = field(default_factory=dict)
    errors: dict[str, NaviglioError] = field(default_factory=dict)


def transform(
    site: Site, transforms: Sequence[Transform], submit: Submit, *, whole: bool = False
) -> Transformed:
    """Land the next batch of every transform whose inputs changed; no Spark where none did.

    All of them run in one application. A worker that loses the race for a number throws its files
    away and starts over from the new head. `whole` computes everything again.
    """
    done, left = Transformed(), list(transforms)
    for attempt in range(_TRIES):
        lost = _once(site, left, submit, done, whole=whole)
        left = [one for one in left if one.name in lost]
        if not left:
            return done
        log.info("transforms %s: another worker was first (%d)", sorted(lost), attempt + 1)
    done.errors.update({one.name: LostRaceError(f"transform {one.name!r}: other workers were "
                        f"faster {_TRIES} times. Run again.") for one in left})  # fmt: skip
    return done


def carry_transforms(
    site: Site, transforms: Sequence[Transform], submit: Submit, *, whole: bool = False
) -> list[Report]:
    """Transform, apply and load; each step goes on from its own last commit, also after a failure.

    A transform whose landing, lake and ledger don't belong together takes no part.
    """
    reports = {one.name: Report(group=one.name) for one in transforms}
    sound = []
    for one in transforms:
        with reports[one.name].caught("check"):
            check_identity(site, one.group)
            sound.append(one)
    begun = time.monotonic()
    try:
        done = transform(site, sound, submit, whole=whole)
    except NaviglioError as error:
        done = Transformed(errors={one.name: error for one in sound})
    for one in sound:
        report = reports[one.name]
        report.batch, report.error = done.batches.get(one.name), done.errors.get(one.name)
        report.seconds["transform"] = time.monotonic() - begun
        with report.caught("apply"):
            report.applied = catch_up_lake(site, one.group)
        with report.caught("load"):
            check_identity(site, one.group)
            report.loaded = catch_up_target(site, one.group)
    return list(reports.values())


def work_of(site: Site, one: Transform, *, whole: bool = False) -> Work | None:
    """Return what to compute again; None when nothing is, or an input has no lake table yet.

    Reads the head before the inputs' versions, so a later batch never holds older rows.
    """
    head, program = site.landing(one.group).head(), _program(site, one)
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
        transform=one, head=head, seen=seen, program=program, days=None if why else days, why=why
    )


def unseen(site: Site, one: Transform) -> tuple[str, ...]:
    """Return the inputs with batches that the last computation lacks, as `flights: 12 of 14`."""
    manifest = site.landing(one.group).head().manifest
    seen = {name: seen_of(at) for name, at in manifest.position.tables.items()} if manifest else {}
    told = []
    for wanted in one.inputs:
        at, there = seen.get(wanted.table), _lake(site, wanted.table).number()
        if there > (computed := at.batch if at else 0):
            told.append(f"{wanted.table}: {computed} of {there}")
    return tuple(told)


def _once(
    site: Site, transforms: Sequence[Transform], submit: Submit, done: Transformed, *, whole: bool
) -> set[str]:
    """Run all that have work; return the names of those that lost their race."""
    works = _works(site, transforms, done, whole=whole)
    if not works:
        return set()
    lost = set()
    with ExitStack() as stack:
        attempts = {}
        for work in works:
            landing = site.landing(work.transform.group)
            landing.found()
            attempt = attempts[work.transform.name] = stack.enter_context(
                landing.attempt(work.head)
            )
            attempt.note_intent()
            what = "everything" if work.days is None else f"{len(work.days)} days"
            log.info("transform %s: %s %s", work.transform.name, what, work.why and f"({work.why})")
        asked = [_asked(site, work, attempts[work.transform.name]) for work in works]
        results = submit(site.pipeline.name, site.pipeline.time_zone, asked)
        reach("capture: after files")
        for work in works:
            name = work.transform.name
            try:
                done.batches[name] = _commit(site, work, attempts[name], results.get(name, {}))
            except LostRaceError:
                attempts[name].abandon()
                lost.add(name)
            except NaviglioError as error:
                attempts[name].abandon()
                done.errors[name] = error
    return lost


def _works(
    site: Site, transforms: Sequence[Transform], done: Transformed, *, whole: bool
) -> list[Work]:
    works = []
    for one in transforms:
        try:
            if work := work_of(site, one, whole=whole):
                works.append(work)
        except NaviglioError as error:
            done.errors[one.name] = error
    return works


def _commit(site: Site, work: Work, attempt: Attempt, result: Mapping[str, Any]) -> Manifest:
    one, landing = work.transform, site.landing(work.transform.group)
    if "rows" not in result:
        text = result.get("error", "no result")
        raise DataError(
            f"transform {one.name!r}: {one.program} failed: {text}. Nothing was landed."
        )
    files, arrow = files_in(landing.store.root, f"{attempt.folder}/{one.name}")
    before = _before(work.head, one.name)
    schema = logical(one.name, arrow, one.key) if arrow is not None else before
    if schema is None:
        raise DataError(f"transform {one.name!r}: Spark left no file that tells its columns.")
    if work.days is not None and before is not None and schema != before:
        raise DataError(
            f"transform {one.name!r}: the columns of its output changed though its program didn't. "
            f"Run `naviglio transform {site.pipeline.name} --whole` to compute all of it again."
        )
    check(one.name, landing.store.root, files, schema, one.day, int(result["rows"]))
    part = Part(
        table=one.name, kind="snapshot" if work.days is None else "window", schema=schema,
        files=files, upserts=int(result["rows"]), event_time=one.day,
        windows=output_windows(work.days or ()), why=work.why,
    )  # fmt: skip
    manifest = Manifest(
        group=one.name, number=attempt.number, attempt=attempt.id, landing=landing.found(),
        previous=work.head.sha256, created_at_utc=datetime.now(UTC), fence=Fence(point=None),
        parts=(part,), position=_position(work, schema, attempt.number),
    )  # fmt: skip
    landing.commit(attempt, manifest)
    log.info("transform %s: batch %d, %d rows", one.name, manifest.number, part.upserts)
    return manifest


def _asked(site: Site, work: Work, attempt: Attempt) -> dict[str, Any]:
    """Return the work of one transform as the driver program reads it."""
    zone, days = ZoneInfo(site.pipeline.time_zone), work.days
    spans = [(w.start.isoformat(), w.end.isoformat()) for w in input_windows(days or (), zone)]
    root = site.landing(work.transform.group).store.root
    return {
        "name": work.transform.name, "program": work.transform.program, "day": work.transform.day,
        "days": None if days is None else sorted(day.isoformat() for day in days),
        "folder": str(Path(root, attempt.folder, work.transform.name)),
        "inputs": [
            {
                "name": i.table, "uri": _lake(site, i.table).uri, "event_time": i.event_time,
                "version": work.seen[i.table].version, "spans": spans if i.way == "day" else [],
            }
            for i in work.transform.inputs
        ],
    }  # fmt: skip


def _changes(
    site: Site, one: Transform, wanted: Input, since: Seen | None, seen: Mapping[str, Seen]
) -> tuple[Seen, str, set[date]] | None:
    """Return what an input is at, why its changes can't be told, and the days that they touch."""
    lake, zone = _lake(site, wanted.table), ZoneInfo(site.pipeline.time_zone)
    if not lake.exists() or not (key := lake.schema().key):
        return None
    there = {"day": (wanted.event_time,), "through": tuple(column for column, _ in wanted.on)}
    images = lake.images(since, there.get(wanted.way, key))
    if images is None:
        return None
    if images.why_whole:
        return images.now, f"{wanted.table}: {images.why_whole}", set()
    if wanted.way == "all":
        changed = any(batch.num_rows for batch in images.batches)
        return images.now, f"{wanted.table} changed" if changed else "", set()
    if wanted.way == "day":
        return images.now, "", days_of(images.batches, wanted.event_time, zone)
    through = next(i for i in one.inputs if i.table == wanted.through)
    rows, version = _lake(site, through.table), seen[through.table].version
    times = referring(
        rows.files(version),
        arrow_schema(rows.schema(version)),
        [(here, column) for column, here in wanted.on],
        images.batches,
        through.event_time,
    )
    return images.now, "", days_of(times, through.event_time, zone)


def _position(work: Work, schema: TableSchema, number: int) -> Position:
    inputs = {
        name: TablePosition(way=f"lake {seen.lake_table} batch {seen.batch}", stream=seen.version)
        for name, seen in work.seen.items()
    }
    own = TablePosition(way="transform", schema=schema)
    return Position(
        place=Place(incarnation=work.program, order=number),
        tables={**inputs, work.transform.name: own},
    )


def seen_of(found: TablePosition) -> Seen | None:
    """Return what a transform has seen of an input, as its position says; None for none."""
    way, _, rest = found.way.partition(" ")
    if way != "lake":
        return None
    table, _, batch = rest.partition(" batch ")
    return Seen(lake_table=table, version=found.stream or 0, batch=int(batch))


def _before(head: Head, name: str) -> TableSchema | None:
    found = head.manifest.position.tables.get(name) if head.manifest else None
    return found.schema if found else None


def _program(site: Site, one: Transform) -> str:
    """Return what the rows are a function of, besides the inputs: program and declaration."""
    declared = asdict(replace(one, program=Path(one.program).name, adopt=False))
    said = json.dumps([declared, site.pipeline.time_zone], sort_keys=True).encode()
    return hashlib.sha256(read_program(one) + b"\0" + said).hexdigest()


def read_program(one: Transform) -> bytes:
    """Return the bytes of a transform's program; ConfigError where there is none."""
    try:
        return Path(one.program).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"transform {one.name!r}: its program {one.program} can't be read "
            f"({type(error).__name__}). `program` is a path relative to the pipeline's file."
        ) from error


def _lake(site: Site, table: str) -> LakeTable:
    named = {spec.name: spec for spec in site.pipeline.tables}
    return site.lake(named[table])
