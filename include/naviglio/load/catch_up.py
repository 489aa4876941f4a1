"""Bring one target to the lake table's newest version: the third of the three commits."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random,
    wait_random_exponential,
)

from naviglio.errors import ConfigError, ContentionError, LostRaceError, SwapRefusedError
from naviglio.load.plan import choose, figures_of
from naviglio.model import LedgerRow, LoadCounts, TableSpec
from naviglio.points import reach
from naviglio.ports import Feed, Staging, Swapping, Target

log = logging.getLogger("naviglio.load")

_TRIES = 6
_BACKOFF_S, _LONGEST_WAIT_S = 0.1, 5.0  # between merges of one staging


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
    for attempt in Retrying(
        retry=retry_if_exception_type(LostRaceError),
        stop=stop_after_attempt(_TRIES),
        wait=wait_random(0, 0.2),
        reraise=True,
    ):
        with attempt:
            return _catch_up_once(target, pipeline, spec, feed_since)
    raise AssertionError("tenacity re-raises")


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
    attempt = uuid.uuid4().hex[:16]
    feed, staging = _staged(target, spec, attempt, feed, partial(_all_rows, feed_since))
    reach("load: after staging")
    for again in Retrying(
        retry=retry_if_exception_type(ContentionError),
        stop=stop_after_attempt(_TRIES),
        wait=wait_random_exponential(multiplier=_BACKOFF_S, max=_LONGEST_WAIT_S),
        reraise=True,
    ):
        with again:
            row = _commit(target, pipeline, spec, _Load(attempt, before, feed, staging))
    reach("load: after commit")
    return row


def _staged(
    target: Target, spec: TableSpec, attempt: str, feed: Feed, all_rows: Callable[[str], Feed]
) -> tuple[Feed, Staging | None]:
    """Stage as the plan says; return the feed that was staged, which may be another."""
    figures = figures_of(target, spec, feed)
    plan = choose(figures)
    log.info("load of %s by %s: %s; %s", spec.target, plan.way, plan.why, figures)
    if plan.way == "swap" and isinstance(target, Swapping):
        why = feed.why_whole or plan.why
        feed = feed if feed.why_whole else all_rows(why)
        try:
            return feed, target.stage_beside(attempt, spec.target, feed.schema, feed.batches)
        except SwapRefusedError as error:
            log.info("load of %s by merge after all: %s", spec.target, error)
            feed = all_rows(why)
    batches, whole = _Peeked(feed.batches), bool(feed.why_whole)
    if not whole and not batches.any:
        return feed, None
    return feed, target.stage(attempt, feed.schema, iter(batches), whole=whole)


def _all_rows(feed_since: Callable[[LedgerRow | None], Feed | None], why: str) -> Feed:
    feed = feed_since(None)
    if feed is None:
        raise LostRaceError("the lake table was taken away meanwhile; nothing was loaded.")
    return replace(feed, why_whole=why)


@dataclass(frozen=True)
class _Load:
    """What was staged, and from which ledger row it was computed."""

    attempt: str
    before: LedgerRow | None
    feed: Feed
    staging: Staging | None  # None: there is nothing to merge


def _commit(target: Target, pipeline: str, spec: TableSpec, load: _Load) -> LedgerRow:
    """Lock, compare, merge and record in one transaction, which may be repeated as a whole."""
    name, feed = str(spec.target), load.feed
    with target.begin() as transaction:
        if transaction.lock(spec.target) != load.before:
            raise LostRaceError(
                f"target {name!r} was loaded by another worker meanwhile; nothing was merged."
            )
        counts = LoadCounts()
        if load.staging is not None:
            counts = transaction.merge(spec.target, feed.schema, load.staging)
        row = LedgerRow(
            target=name, pipeline=pipeline, table=spec.name, landing=feed.landing,
            lake_table=feed.lake_table, version=feed.version, batch=feed.batch,
            attempt=load.attempt, loaded_at_utc=datetime.now(UTC), why_whole=feed.why_whole,
            inserted=counts.inserted, updated=counts.updated, deleted=counts.deleted,
            unchanged=counts.unchanged,
        )  # fmt: skip
        transaction.record(row)
        reach("load: before commit")
    return row


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
