"""Capture transforms from the lake: what is touched, Spark over it, then batch head+1 of each.

A transform lands as a table does: its group has a landing, and apply, load, history and rebuild
work on it unchanged. Spark writes the files of an attempt; nothing of them is visible before the
core has checked them and committed the manifest. What it went on from, the inputs' versions, stands
in the position of that manifest, so a killed run or a late one loses nothing and doubles nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from naviglio.errors import (
    DataError,
    LostRaceError,
    NaviglioError,
    RetryableError,
)
from naviglio.flows.identity import check_identity
from naviglio.flows.replicate import Report, catch_up_lake, catch_up_target
from naviglio.flows.site import Site
from naviglio.flows.touched import Work, lake_of, work_of
from naviglio.landing.attempt import Attempt
from naviglio.landing.landing import Head
from naviglio.model import (
    Fence,
    Manifest,
    Part,
    Place,
    Position,
    TablePosition,
    TableSchema,
    Transform,
)
from naviglio.points import reach
from naviglio.transform.days import input_windows, output_windows
from naviglio.transform.output import check, files_in, logical

log = logging.getLogger("naviglio.transform")
_TRIES = 3

Submit = Callable[[str, str, Sequence[Mapping[str, Any]]], Mapping[str, Mapping[str, Any]]]


@dataclass(kw_only=True)
class Transformed:
    """What a run did: the batches by transform, what went wrong, and who took no part."""

    batches: dict[str, Manifest] = field(default_factory=dict)
    errors: dict[str, NaviglioError] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)


def transform(
    site: Site, transforms: Sequence[Transform], submit: Submit, *, whole: bool = False
) -> Transformed:
    """Land the next batch of every transform whose inputs changed; no Spark where none did.

    All of them run in one application. One whose landing, lake and ledger don't belong together
    takes no part. A worker that loses the race for a number throws its files away and starts over
    from the new head. `whole` computes everything again. What went wrong stands in the answer.
    """
    done, left = Transformed(), list[Transform]()
    for one in transforms:
        try:
            check_identity(site, one.group)
            left.append(one)
        except NaviglioError as error:
            done.errors[one.name] = error
            done.held.add(one.name)
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
    begun, reports = time.monotonic(), []
    done = transform(site, transforms, submit, whole=whole)
    seconds = time.monotonic() - begun
    for one in transforms:
        error = done.errors.get(one.name)
        report = Report(group=one.name, batch=done.batches.get(one.name), error=error)
        report.seconds["transform"] = seconds
        reports.append(report)
        if one.name in done.held:
            continue
        with report.caught("apply"):
            report.applied = catch_up_lake(site, one.group)
        with report.caught("load"):
            check_identity(site, one.group)
            report.loaded = catch_up_target(site, one.group)
    return reports


def _once(
    site: Site, transforms: Sequence[Transform], submit: Submit, done: Transformed, *, whole: bool
) -> set[str]:
    """Run all that have work; return the names of those that lost their race."""
    lost = set()
    with ExitStack() as stack:
        begun = _begun(site, transforms, stack, done, whole=whole)
        results = _results(site, begun, submit) if begun else {}
        for work, attempt in begun:
            name = work.transform.name
            try:
                done.batches[name] = _commit(site, work, attempt, results.get(name, {}))
            except NaviglioError as error:
                site.landing(work.transform.group).give_up(attempt)
                if isinstance(error, LostRaceError):
                    lost.add(name)
                else:
                    done.errors[name] = error
    return lost


def _begun(
    site: Site, transforms: Sequence[Transform], stack: ExitStack, done: Transformed, *, whole: bool
) -> list[tuple[Work, Attempt]]:
    """Begin an attempt for every transform that has work."""
    begun = []
    for one in transforms:
        try:
            if (work := work_of(site, one, whole=whole)) is None:
                continue
            landing = site.landing(one.group)
            landing.found()
            attempt = stack.enter_context(landing.attempt(work.head))
            attempt.note_intent()
        except NaviglioError as error:
            done.errors[one.name] = error
            continue
        begun.append((work, attempt))
        what = "everything" if work.days is None else f"{len(work.days)} days"
        log.info("transform %s: %s %s", one.name, what, work.why and f"({work.why})")
    return begun


def _results(
    site: Site, begun: Sequence[tuple[Work, Attempt]], submit: Submit
) -> Mapping[str, Mapping[str, Any]]:
    """Run one application for all; an error of it is the result of each."""
    asked = [_asked(site, work, attempt) for work, attempt in begun]
    try:
        results = submit(site.pipeline.name, site.pipeline.time_zone, asked)
    except NaviglioError as error:
        return {work.transform.name: {"raised": error} for work, _ in begun}
    reach("capture: after files")
    return results


def _commit(site: Site, work: Work, attempt: Attempt, result: Mapping[str, Any]) -> Manifest:
    one, landing = work.transform, site.landing(work.transform.group)
    _check_result(one, result, all_days=work.days is None)
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
    _refuse_other_days(site, work, [str(Path(landing.store.root, file.path)) for file in files])
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


def _check_result(one: Transform, result: Mapping[str, Any], *, all_days: bool) -> None:
    """Refuse what a program failed at, and rows of days that were not asked for.

    Rows of other days are no sign of a mistake where the program reads an input whole.
    """
    if error := result.get("raised"):
        raise error
    if "rows" not in result:
        kind = RetryableError if result.get("may_pass") else DataError
        raise kind(
            f"transform {one.name!r}: {Path(one.program).name} failed: "
            f"{result.get('error', 'it has no result')}. Nothing was landed; the task's log has "
            "the whole of it."
        )
    if all_days or not (others := result.get("other_days")):
        return
    if all(wanted.way == "day" for wanted in one.inputs):
        raise DataError(
            f"transform {one.name!r}: from rows of some days the program made {others} rows of "
            f"other days. Nothing was landed. Its day {one.day!r} must be that of the inputs in "
            "the pipeline's time zone, and depend on no other day. Correct the program, or "
            "declare the input that it reads beyond a day as `all`."
        )


def _refuse_other_days(site: Site, work: Work, files: Sequence[str]) -> None:
    """Refuse a key that the output has on a day that was not computed: one would take its place."""
    one, [table] = work.transform, work.transform.group.tables
    if work.days is None or one.day in one.key:
        return
    if site.lake(table).number() < work.head.number:  # a run was killed before it applied them
        catch_up_lake(site, one.group)
    if key := site.lake(table).elsewhere(files, one.day, work.days):
        said = ", ".join(f"{name}={value}" for name, value in zip(one.key, key, strict=True))
        raise DataError(
            f"transform {one.name!r}: the key {said} stands on another day as well. Nothing was "
            f"landed. Declare a `key` that is unique over all days, e.g. with {one.day!r} in it."
        )


def _asked(site: Site, work: Work, attempt: Attempt) -> dict[str, Any]:
    """Return the work of one transform as the driver program reads it."""
    zone, days = ZoneInfo(site.pipeline.time_zone), work.days
    spans = [(w.start.isoformat(), w.end.isoformat()) for w in input_windows(days or (), zone)]
    root = site.landing(work.transform.group).store.root
    return {
        "name": work.transform.name, "program": work.transform.program, "day": work.transform.day,
        "source": work.source,
        "days": None if days is None else sorted(day.isoformat() for day in days),
        "folder": str(Path(root, attempt.folder, work.transform.name)),
        "inputs": [
            {
                "name": i.table, "uri": lake_of(site, i.table).uri, "event_time": i.event_time,
                "version": work.seen[i.table].version, "spans": spans if i.way == "day" else [],
            }
            for i in work.transform.inputs
        ],
    }  # fmt: skip


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


def _before(head: Head, name: str) -> TableSchema | None:
    found = head.manifest.position.tables.get(name) if head.manifest else None
    return found.schema if found else None
