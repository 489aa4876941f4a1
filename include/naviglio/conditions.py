"""Which rows of a table are meant, and what every adapter that speaks SQL says of them alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from naviglio.errors import ConfigError
from naviglio.model import Column, Window

INTEGERS = frozenset({"int16", "int32", "int64"})
TIMES = frozenset({"date", "timestamp", "timestamptz"})
KEYS_A_STATEMENT = 20_000


@dataclass(frozen=True, kw_only=True)
class Everything:
    """All rows."""


@dataclass(frozen=True, kw_only=True)
class Since:
    """Rows whose `column` is in [low, high); points as in `TablePosition.stream`, None for open."""

    column: str
    low: int | None
    high: int | None
    or_null: bool = False  # rows without a value as well


@dataclass(frozen=True, kw_only=True)
class Within:
    """Rows whose event time `column` is in `window`."""

    column: str
    window: Window


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Rows whose key hash, cut to its lowest `bits` bits, is one of `numbers` (None: all)."""

    bits: int
    numbers: Sequence[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Rows whose key is in `keys`, a table with the key columns in carrier types."""

    keys: pa.Table


@dataclass(frozen=True, kw_only=True)
class IsNull:
    """Rows without a value in `column`."""

    column: str


@dataclass(frozen=True, kw_only=True)
class Both:
    """Rows that meet both conditions."""

    one: Condition
    other: Condition


@dataclass(frozen=True, kw_only=True)
class Not:
    """Rows that don't meet the condition (never NULL: what isn't known to meet it is in)."""

    condition: Condition


Condition = Everything | Since | Within | Buckets | Keys | IsNull | Both | Not


def split(condition: Condition) -> Iterator[Condition]:
    """Divide a condition over many keys into ones that together hold the same rows, each once."""
    if isinstance(condition, Keys):
        distinct = condition.keys.group_by(condition.keys.column_names).aggregate([])
        for start in range(0, max(distinct.num_rows, 1), KEYS_A_STATEMENT):
            yield Keys(keys=distinct.slice(start, KEYS_A_STATEMENT))
    elif isinstance(condition, Both):
        for one in split(condition.one):
            for other in split(condition.other):
                yield replace(condition, one=one, other=other)
    else:
        yield condition


def span(
    condition: Since | Within,
    name: str,
    *,
    point: Callable[[int], str],
    moment: Callable[[datetime], str],
) -> str:
    """Return a condition over the column `name`, which is quoted, as SQL.

    `point` and `moment` spell a bound as a literal that rounds up to what the column can hold: both
    ends do, so that spans which meet share no row and lose none.
    """
    if isinstance(condition, Within):
        low, high = moment(condition.window.start), moment(condition.window.end)
        return f"{name} >= {low} AND {name} < {high}"
    bounds = ((">=", condition.low), ("<", condition.high))
    inside = " AND ".join(f"{name} {sign} {point(at)}" for sign, at in bounds if at is not None)
    inside = inside or f"{name} IS NOT NULL"
    return f"({inside}) OR {name} IS NULL" if condition.or_null else inside


def moment_of(point: int) -> datetime:
    """Return the moment of a point in time, in nanoseconds since 1970, cut to microseconds."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=point // 1000)


def no_span(column: Column, kinds: frozenset[str] = INTEGERS | TIMES) -> ConfigError:
    """Return the error of a column that can't be read in spans; `kinds` are those that can."""
    return ConfigError(
        f"Column {column.name!r} is {column.source_type} and can't be read in spans; these kinds "
        f"can: {', '.join(sorted(kinds))}. Name another column."
    )
