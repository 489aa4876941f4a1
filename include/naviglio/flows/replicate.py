"""The data path of one group: every step drains from its own last commit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from naviglio.capture.table import Wish
from naviglio.errors import NaviglioError
from naviglio.flows.capture import capture
from naviglio.flows.identity import check_identity
from naviglio.flows.site import Site
from naviglio.lake.source import is_whole
from naviglio.lake.table import Applied
from naviglio.landing.landing import Landing
from naviglio.load.catch_up import catch_up
from naviglio.model import Group, LedgerRow, Manifest, Part, TableSpec
from naviglio.ports import Feed

log = logging.getLogger("naviglio.replicate")


@dataclass(kw_only=True)
class Report:
    """What one run did to one group; seconds by step."""

    group: str
    batch: Manifest | None = None
    applied: dict[str, list[Applied]] = field(default_factory=dict)
    loaded: dict[str, LedgerRow] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: NaviglioError | None = None

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Keep the seconds of a step."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - begun

    @contextmanager
    def caught(self, step: str) -> Iterator[None]:
        """Keep the seconds of a step, and the first error of all steps."""
        try:
            with self.timed(step):
                yield
        except NaviglioError as error:
            log.error("group %s: %s failed: %s", self.group, step, error)  # noqa: TRY400 - a user's mistake needs no traceback
            self.error = self.error or error


def replicate(site: Site, group: Group, wish: Wish) -> Report:
    """Capture, apply and load one group; what went wrong stands in the report."""
    report = Report(group=group.name)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("check", lambda: check_identity(site, group)),
        ("capture", lambda: _capture(site, group, wish, report)),
        ("apply", lambda: _apply(site, group, report)),
        ("load", lambda: _load(site, group, report)),
    ]
    for step, run in steps:
        with report.caught(step):
            run()
        if step == "check" and report.error:
            break
    return report


def catch_up_lake(site: Site, group: Group) -> dict[str, list[Applied]]:
    """Apply every batch after each lake table's own number, in order."""
    landing, done = site.landing(group), {}
    for table in group.tables:
        lake = site.lake(table)
        applied = [
            lake.apply(manifest, part, landing.store.root)
            for manifest, part in parts_to_apply(landing, lake.number(), table.name)
        ]
        done[table.name] = [found for found in applied if found is not None]
        _tell_applied(group, table, done[table.name])
    return done


def _tell_applied(group: Group, table: TableSpec, applied: Sequence[Applied]) -> None:
    if not applied:
        log.info("applied %s.%s: nothing new", group.name, table.name)
        return
    log.info(
        "applied %s.%s: up to batch %d, %d rows, lake version %d",
        group.name, table.name, applied[-1].batch, sum(found.rows for found in applied),
        applied[-1].version,
    )  # fmt: skip


def parts_to_apply(
    landing: Landing, number: int, table: str
) -> Iterator[tuple[Manifest, Part | None]]:
    """Yield the batches after `number` with a table's part; None where it is passed over.

    A batch with lost files is, where all rows were read whole later, with all up to there: they may
    not fit without it. Else the lake will tell which file it is.
    """
    whole = 0
    for manifest in landing.after(number):
        part = _part(manifest, table)
        if part and manifest.number >= whole and not is_whole(part, landing.store.root):
            whole = _next_whole(landing, manifest.number, table)
            if whole:
                log.warning(
                    "batch %d of %s has lost files: passed over up to batch %d, which holds all "
                    "rows", manifest.number, table, whole,
                )  # fmt: skip
        yield manifest, part if manifest.number >= whole else None


def _next_whole(landing: Landing, number: int, table: str) -> int:
    """Return the first batch after `number` that holds all rows of a table; 0 for none."""
    parts = ((one.number, _part(one, table)) for one in landing.after(number))
    return next((at for at, part in parts if part and part.kind == "snapshot"), 0)


def catch_up_target(site: Site, group: Group) -> dict[str, LedgerRow]:
    """Load everything after each target's own ledger row."""
    done = {}
    for table in group.tables:
        feed_since = _feed_of(site, group, table)
        row = catch_up(site.target_of(table), site.pipeline.name, table, feed_since)
        if row is not None:
            done[table.name] = row
            log.info(
                "loaded %s: version %d, %d inserted, %d updated, %d deleted, %d unchanged%s",
                row.target, row.version, row.inserted, row.updated, row.deleted, row.unchanged,
                f" (whole: {row.why_whole})" if row.why_whole else "",
            )  # fmt: skip
        else:
            log.info("loaded %s: nothing new", table.target)
    return done


def _feed_of(
    site: Site, group: Group, table: TableSpec
) -> Callable[[LedgerRow | None], Feed | None]:
    """Return the lake table's feed, whose rows are told of as they are loaded."""

    def feed(since: LedgerRow | None) -> Feed | None:
        found = site.lake(table).feed(since)
        if found is None:
            return None
        rows = site.heard("load", table.name, found.batches)
        landed_by = site.landing(group).batch(found.batch).attempt
        return replace(found, batches=rows, batch_attempt=f"{found.batch} {landed_by}")

    return feed


def _capture(site: Site, group: Group, wish: Wish, report: Report) -> None:
    report.batch = capture(site, group, wish)


def _apply(site: Site, group: Group, report: Report) -> None:
    report.applied = catch_up_lake(site, group)


def _load(site: Site, group: Group, report: Report) -> None:
    check_identity(site, group)  # again: the target may have been away before
    report.loaded = catch_up_target(site, group)


def _part(manifest: Manifest, table: str) -> Part | None:
    return {part.table: part for part in manifest.parts}.get(table)
