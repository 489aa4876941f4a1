"""Bring one target to the lake table's newest version: the third of the three commits."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pyarrow as pa
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random,
)

from naviglio.errors import ConfigError, LostRaceError, SwapRefusedError, UnevenError
from naviglio.load.commit import Load, commit, commit_ranges, retried
from naviglio.load.plan import LoadPlan, choose, figures_of
from naviglio.model import LedgerRow, TableSpec
from naviglio.points import reach
from naviglio.ports import Feed, Ranging, Staging, Swapping, Target

log = logging.getLogger("naviglio.load")

_TRIES = 6


def catch_up(
    target: Target,
    pipeline: str,
    spec: TableSpec,
    feed_since: Callable[[LedgerRow | None], Feed | None],
) -> LedgerRow | None:
    """Load everything after the ledger's own version; return the new row, None if up to date.

    Raises ConfigError where another pipeline owns the target, DataError where a row does not fit,
    LostRaceError when other loads keep winning, ContentionError when the server keeps ending this
    one for others; nothing is half done in any case.
    """
    racing = Retrying(
        retry=retry_if_exception_type(LostRaceError), stop=stop_after_attempt(_TRIES),
        wait=wait_random(0, 0.2), reraise=True,
    )  # fmt: skip
    return racing(_catch_up_once, target, pipeline, spec, feed_since)


def _catch_up_once(
    target: Target,
    pipeline: str,
    spec: TableSpec,
    feed_since: Callable[[LedgerRow | None], Feed | None],
) -> LedgerRow | None:
    name = str(spec.target)
    before = target.ledger().get(name)
    if before is not None and before.pipeline != pipeline:
        raise ConfigError(
            f"target {name!r} belongs to pipeline {before.pipeline!r}, not to {pipeline!r}: one "
            "pipeline a target. Choose another `target`."
        )
    feed = feed_since(before)
    if feed is None:
        return None
    target.check(spec.target, feed.schema, adopt=spec.adopt)
    try:
        return _load(target, pipeline, spec, before, feed, feed_since)
    except UnevenError as error:
        log.info("loading %s again, in one transaction: %s", name, error)
        before = target.ledger().get(name)  # some ranges may have been committed
        whole, spec = _all_rows(feed_since, str(error)), replace(spec, visibility="at_once")
        return _load(target, pipeline, spec, before, whole, feed_since)


def _load(
    target: Target,
    pipeline: str,
    spec: TableSpec,
    before: LedgerRow | None,
    feed: Feed,
    feed_since: Callable[[LedgerRow | None], Feed | None],
) -> LedgerRow | None:
    """Stage a feed, and merge it in one transaction or in one a range."""
    name = str(spec.target)
    attempt = uuid.uuid4().hex[:16]
    figures = figures_of(target, spec, feed, loaded=before is not None)
    plan = choose(figures)
    log.info("loading %s by %s: %s", name, plan.way, plan.why)
    log.debug("loading %s: decided by %s", name, figures)
    all_rows = partial(_all_rows, feed_since)
    feed, staging = _staged(target, spec, attempt, feed, plan, all_rows)
    reach("load: after staging")
    load, row = Load(pipeline, spec, attempt, before, feed, staging), before
    if plan.way == "ranges" and staging is not None and isinstance(target, Ranging):
        row = commit_ranges(target, load, staging)
    else:
        row = retried(lambda: commit(target, load))
    reach("load: after commit")
    return row


def _staged(
    target: Target,
    spec: TableSpec,
    attempt: str,
    feed: Feed,
    plan: LoadPlan,
    all_rows: Callable[[str], Feed],
) -> tuple[Feed, Staging | None]:
    """Stage as the plan says; return the feed that was staged, which may be another."""
    if plan.way == "swap" and isinstance(target, Swapping):
        why = feed.why_whole or plan.why
        feed = feed if feed.why_whole else all_rows(why)
        try:
            return feed, target.stage_beside(attempt, spec.target, feed.schema, feed.batches)
        except SwapRefusedError as error:
            log.info("load of %s by merge after all: %s", spec.target, error)
            feed = all_rows(why)
    batches, whole = _Peeked(feed.batches), bool(feed.why_whole)
    if not whole and not batches.any and not feed.evolved:
        return feed, None
    staging = target.stage(attempt, feed.schema, iter(batches), whole=whole)
    return feed, replace(staging, rebuild=plan.rebuild)


def _all_rows(feed_since: Callable[[LedgerRow | None], Feed | None], why: str) -> Feed:
    feed = feed_since(None)
    if feed is None:
        raise LostRaceError("the lake table was taken away meanwhile; nothing was loaded.")
    return replace(feed, why_whole=why)


class _Peeked:
    """Batches of which one can ask whether there are any rows, before they are read."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._first = next((batch for batch in batches if batch.num_rows), None)

    @property
    def any(self) -> bool:
        """Whether there is a row."""
        return self._first is not None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        if self._first is not None:
            yield self._first
        yield from self._batches
