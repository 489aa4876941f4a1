"""Dates and moments beyond the years of Python."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naviglio.adapters.postgres.moments import (
    FIRST_DAY,
    FIRST_US,
    LAST_DAY,
    LAST_US,
    date_text,
    microseconds,
    moment_text,
)


@given(st.dates())
def test_dates_agree_with_the_standard_library(day: date) -> None:
    """Within the years that it knows."""
    assert date_text((day - date(1970, 1, 1)).days) == day.isoformat()


@given(st.datetimes(timezones=st.just(UTC)))
def test_moments_agree_with_the_standard_library(moment: datetime) -> None:
    """To the microsecond; `microseconds` is the way back."""
    spelled = moment_text(microseconds(moment), "+00")
    assert datetime.fromisoformat(spelled) == moment


def test_the_span_that_carriers_hold() -> None:
    """Years 1 to 9999, whole."""
    assert (date_text(FIRST_DAY), date_text(LAST_DAY)) == ("0001-01-01", "9999-12-31")
    assert moment_text(FIRST_US) == "0001-01-01 00:00:00"
    assert moment_text(LAST_US) == "9999-12-31 23:59:59.999999"
    assert date_text(FIRST_DAY - 1) == "0001-12-31 BC"
    assert moment_text(LAST_US + 1, "+00") == "10000-01-01 00:00:00+00"


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (-9222425352054775809, "infinity"),  # as ADBC delivers them: wrapped
        (-9222425352054775808, "-infinity"),
        (-9222426057709551617, "294276-12-31 23:59:59.999999"),
        (-210863520000000000, "4714-11-24 00:00:00 BC"),
    ],
)
def test_what_arrives_wrapped_is_unwrapped(us: int, text: str) -> None:
    """The offset between 1970 and 2000 wraps in 64 bits, one to one."""
    if text.endswith("BC"):
        us = -210866803200 * 10**6
    assert moment_text(us) == text


def test_dates_wrap_in_32_bits() -> None:
    """Both infinities and the last day of all."""
    assert date_text(-2147472692) == "infinity"
    assert date_text(-2147472691) == "-infinity"
    assert date_text(2145042905 - 1 + 1) == "5874897-12-31"
    assert date_text(-2440550) == "4713-01-01 BC"


def test_microseconds_are_exact() -> None:
    """No float stands between."""
    moment = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert microseconds(moment) == LAST_US
    assert microseconds(moment - timedelta(microseconds=1)) == LAST_US - 1
