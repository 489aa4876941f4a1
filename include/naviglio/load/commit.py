"""The third of the three commits: merge and ledger row in one transaction, or in one a range."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from naviglio.errors import ContentionError, LostRaceError, UnevenError
from naviglio.load import plan as plans
from naviglio.model import LedgerRow, LoadCounts, TableSpec
from naviglio.points import reach
from naviglio.ports import Feed, Ranging, Staging, Target, TargetTransaction

log = logging.getLogger("naviglio.load")
_TRIES = 6
T = TypeVar("T")
_BACKOFF_S, _LONGEST_WAIT_S = 0.1, 5.0  # between merges of one staging


@dataclass(frozen=True)
class Load:
    """What was staged, and from which ledger row it was computed."""

    pipeline: str
    spec: TableSpec
    attempt: str
    before: LedgerRow | None
    feed: Feed
    staging: Staging | None  # None: there is nothing to merge


def commit(target: Target, load: Load) -> LedgerRow:
    """Lock, compare, merge and record in one transaction, which may be repeated as a whole."""
    with target.begin() as transaction:
        _compare(transaction, load.spec, load.before)
        counts = LoadCounts()
        if load.staging is not None:
            counts = transaction.merge(load.spec.target, load.feed.schema, load.staging)
            _refuse_uneven(load, _gained_by_ranges(load.before, _gain(counts)))
        row = _row(load, counts)
        transaction.record(row)
        reach("load: before commit")
    return row


def commit_ranges(target: Ranging, load: Load, staging: Staging) -> LedgerRow | None:
    """Merge and commit one key range after the other; the ledger row tells how far it came.

    Until the last one the row keeps the version from which the whole load can be done again.
    """
    parts, schema = -(-staging.rows // plans.RANGE_ROWS), load.feed.schema
    cuts = target.cuts(load.spec.target, schema, staging, parts) if parts > 1 else ()
    row, counts = load.before, LoadCounts()
    for number, (low, high) in enumerate(pairwise((None, *cuts, None)), 1):
        span = _Range(staging, low, high, f"{number} of {len(cuts) + 1}")
        row, counts = retried(partial(_commit_range, target, load, span, row, counts))
        log.info("loaded %s: range %s", load.spec.target, span.number)
        if high is not None:
            reach("load: between ranges")
    return row


@dataclass(frozen=True)
class _Range:
    """Staged keys whose first column is in [low, high); None is open."""

    staging: Staging
    low: str | None
    high: str | None
    number: str


def _commit_range(
    target: Ranging, load: Load, span: _Range, before: LedgerRow | None, counts: LoadCounts
) -> tuple[LedgerRow, LoadCounts]:
    name, schema = load.spec.target, load.feed.schema
    with target.begin() as transaction:
        _compare(transaction, load.spec, before)
        more = transaction.merge_range(name, schema, span.staging, span.low, span.high)
        total = _sum(counts, more)
        row, gain = _row(load, total), _gained_by_ranges(load.before, _gain(total))
        if span.high is not None and before is not None:
            row = _partly(before, row, span, schema.key[0], gain)
        else:
            _refuse_uneven(load, gain)
        transaction.record(row)
        reach("load: before commit")
    return row, total


def _partly(
    before: LedgerRow, new: LedgerRow, span: _Range, key: str, gain: int | None
) -> LedgerRow:
    """Return the row of a load that is not through yet: still the version before it."""
    told = {"version": new.version, "batch": new.batch, "done": span.number, "key": key,
            "below": span.high, "gained": gain}  # fmt: skip
    return replace(
        before, ranges=json.dumps(told), attempt=new.attempt, loaded_at_utc=new.loaded_at_utc
    )


def _gain(counts: LoadCounts) -> int:
    return counts.inserted - counts.deleted


def _gained_by_ranges(before: LedgerRow | None, gain: int) -> int | None:
    """Return the rows gained since a ledger row's version, with those of a load that broke off."""
    if before is None or not before.ranges:
        return gain
    earlier = json.loads(before.ranges).get("gained")
    return None if earlier is None else earlier + gain


def _refuse_uneven(load: Load, gained: int | None) -> None:
    """See that the target gained as many rows as the lake.

    It did not where it takes two keys of the lake for one, in loads after each other, or where
    somebody else changed it. Then only all rows tell what it should hold. Key ranges that were
    committed before stay until then.
    """
    if load.feed.why_whole or None in (gained, load.feed.gained) or gained == load.feed.gained:
        return
    raise UnevenError(f"changes gave the target {gained:+} rows, the lake {load.feed.gained:+}")


def _sum(one: LoadCounts, other: LoadCounts) -> LoadCounts:
    return LoadCounts(**{name: n + getattr(other, name) for name, n in vars(one).items()})


def _compare(transaction: TargetTransaction, spec: TableSpec, before: LedgerRow | None) -> None:
    """Lock the target and see that nobody loaded it meanwhile."""
    if _said(transaction.lock(spec.target)) != _said(before):
        raise LostRaceError(
            f"target {str(spec.target)!r} was loaded by another worker meanwhile; nothing was "
            "merged."
        )


def _said(row: LedgerRow | None) -> LedgerRow | None:
    """Return a row without what the server adds to it; its attempt tells loads apart."""
    return row and replace(row, login="", principal="")


def _row(load: Load, counts: LoadCounts) -> LedgerRow:
    feed, spec = load.feed, load.spec
    return LedgerRow(
        target=str(spec.target), pipeline=load.pipeline, table=spec.name, landing=feed.landing,
        lake_table=feed.lake_table, version=feed.version, batch=feed.batch, attempt=load.attempt,
        loaded_at_utc=datetime.now(UTC), why_whole=feed.why_whole, inserted=counts.inserted,
        updated=counts.updated, deleted=counts.deleted, unchanged=counts.unchanged,
        batch_attempt=feed.batch_attempt,
    )  # fmt: skip


def retried(commit: Callable[[], T]) -> T:
    """Repeat a transaction that the server ended in favour of others."""
    contending = Retrying(
        retry=retry_if_exception_type(ContentionError), stop=stop_after_attempt(_TRIES),
        wait=wait_random_exponential(multiplier=_BACKOFF_S, max=_LONGEST_WAIT_S), reraise=True,
    )  # fmt: skip
    return contending(commit)
