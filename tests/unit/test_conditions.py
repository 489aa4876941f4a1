"""Conditions: how many keys are divided, and spans as SQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from naviglio.conditions import (
    KEYS_A_STATEMENT,
    Both,
    IsNull,
    Keys,
    Not,
    Since,
    Within,
    moment_of,
    span,
    split,
)
from naviglio.model import Window

WINDOW = Window(start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2013, 1, 2, tzinfo=UTC))


def test_many_keys_are_read_in_several_statements() -> None:
    """Each key once, at most so many a statement; what is under `Not` stays whole."""
    many = pa.table(
        {"id": [*range(KEYS_A_STATEMENT + 1), 0]}, schema=pa.schema([("id", pa.int64())])
    )
    both = Both(one=IsNull(column="at"), other=Keys(keys=many))
    parts = [part.other for part in split(both) if isinstance(part, Both)]
    sizes = [len(part.keys) for part in parts if isinstance(part, Keys)]
    assert sizes == [KEYS_A_STATEMENT, 1]
    assert list(split(Not(condition=Keys(keys=many)))) == [Not(condition=Keys(keys=many))]
    assert len(list(split(Keys(keys=many.slice(0, 0))))) == 1


def test_a_point_is_its_moment_to_the_microsecond() -> None:
    """Also in the last year, where a float holds no microseconds."""
    last = datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)
    microseconds = (last - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert moment_of(microseconds * 1000 + 999) == last


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Since(column="c", low=1, high=2), "c >= 1 AND c < 2"),
        (Since(column="c", low=None, high=2, or_null=True), "(c < 2) OR c IS NULL"),
        (Since(column="c", low=None, high=None), "c IS NOT NULL"),
        (Within(column="c", window=WINDOW), "c >= 2013-01-01 AND c < 2013-01-02"),
    ],
)
def test_a_span_is_half_open(condition: Since | Within, expected: str) -> None:
    """Its end belongs to the next one; without bounds it holds whatever has a value."""
    said = span(condition, "c", point=str, moment=lambda at: at.date().isoformat())
    assert said == expected
