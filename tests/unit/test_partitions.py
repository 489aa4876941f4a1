"""Keys to windows: whole days of a zone, whatever its clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from naviglio.errors import ConfigError
from naviglio.partitions import joined, key_of, ranges_of, window_of, windows_between

NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("key", "hours"), [("2013-01-05", 24), ("2013-03-10", 23), ("2013-11-03", 25)]
)
def test_a_day_has_the_hours_of_its_zone(key: str, hours: int) -> None:
    """Days on which clocks change have 23 or 25 hours."""
    window = window_of(key, NEW_YORK)
    assert window.end - window.start == timedelta(hours=hours)
    assert window.start.tzinfo is UTC


def test_days_meet_without_gap_or_overlap() -> None:
    """A year of windows is one span, and every moment is in the window of its key."""
    windows = list(windows_between("2013-01-01", "2013-12-31", NEW_YORK).values())
    assert len(windows) == 365
    assert all(a.end == b.start for a, b in pairwise(windows))
    moment = datetime(2013, 11, 3, 5, 30, tzinfo=UTC)
    window = window_of(key_of(moment, NEW_YORK), NEW_YORK)
    assert window.start <= moment < window.end


def test_neighbouring_windows_become_one_range() -> None:
    """Also over the day that has 25 hours, and where they are one window; a gap begins another."""
    windows = windows_between("2013-11-01", "2013-11-05", NEW_YORK)
    del windows["2013-11-04"]
    expected = ("2013-11-01..2013-11-03", "2013-11-05")
    assert ranges_of(reversed(windows.values()), NEW_YORK) == expected
    assert len(joined(windows.values())) == 2
    assert ranges_of(joined(windows.values()), NEW_YORK) == expected
    assert ranges_of((), NEW_YORK) == ()


@pytest.mark.parametrize(("day", "zone"), [("9999-12-31", "UTC"), ("0001-01-01", "Asia/Tokyo")])
def test_a_day_beyond_the_calendar_is_refused(day: str, zone: str) -> None:
    """The first and the last day may begin or end where no moment is."""
    with pytest.raises(ConfigError, match="outside of the years"):
        window_of(day, ZoneInfo(zone))


def test_airflows_default_key_names_the_same_day() -> None:
    """The schedule's key format and the plain day are one partition."""
    assert window_of("2013-01-05T00:00:00", NEW_YORK) == window_of("2013-01-05", NEW_YORK)


@pytest.mark.parametrize("key", ["", "2013-13-01", "5 January", "2013-01-05T01:00:00"])
def test_a_wrong_key_says_how_to_write_one(key: str) -> None:
    """What is no day is refused with an example."""
    with pytest.raises(ConfigError, match="YYYY-MM-DD"):
        window_of(key, NEW_YORK)


def test_an_empty_range_is_refused() -> None:
    """The earlier day comes first."""
    with pytest.raises(ConfigError, match="earlier day first"):
        windows_between("2013-01-02", "2013-01-01", NEW_YORK)
