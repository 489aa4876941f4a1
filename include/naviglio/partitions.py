"""Partition keys to windows of event time: pure, shared by DAGs, command line and tests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from naviglio.errors import ConfigError
from naviglio.model import Window

_KEY = re.compile(r"(\d{4}-\d{2}-\d{2})(T00:00:00)?\Z")


def day_of(key: str) -> date:
    """Return the day that a partition key names: `2013-01-05`, or with `T00:00:00` behind it."""
    match = _KEY.match(key)
    try:
        return date.fromisoformat(match[1] if match else "")
    except ValueError:
        raise ConfigError(
            f"partition key {key!r} names no day. Write a day as YYYY-MM-DD, e.g. 2013-01-05."
        ) from None


def window_of(key: str, zone: ZoneInfo) -> Window:
    """Return the window [a, b) of the day `key` in `zone`, in UTC; it lasts 23 to 25 hours."""
    return _window(day_of(key), zone)


def windows_between(first: str, last: str, zone: ZoneInfo) -> dict[str, Window]:
    """Return the windows of the days `first` to `last`, both included, by key and in order."""
    begin, end = day_of(first), day_of(last)
    if end < begin:
        raise ConfigError(f"the range {first} to {last} is empty. Give the earlier day first.")
    days = (begin + timedelta(days=n) for n in range((end - begin).days + 1))
    return {day.isoformat(): _window(day, zone) for day in days}


def key_of(moment: datetime, zone: ZoneInfo) -> str:
    """Return the key of the partition that holds `moment` (aware)."""
    return moment.astimezone(zone).date().isoformat()


def joined(windows: Iterable[Window]) -> tuple[Window, ...]:
    """Join windows that meet, in order."""
    spans: list[Window] = []
    for window in sorted(windows):
        if spans and spans[-1].end == window.start:
            spans[-1] = Window(start=spans[-1].start, end=window.end)
        else:
            spans.append(window)
    return tuple(spans)


def ranges_of(windows: Iterable[Window], zone: ZoneInfo) -> tuple[str, ...]:
    """Return windows as partition keys; days that meet are one range, `first..last`."""
    just_before = timedelta(microseconds=1)
    keys = [(key_of(w.start, zone), key_of(w.end - just_before, zone)) for w in joined(windows)]
    return tuple(first if first == last else f"{first}..{last}" for first, last in keys)


def _window(day: date, zone: ZoneInfo) -> Window:
    try:
        midnights = (datetime.combine(d, time(), zone) for d in (day, day + timedelta(days=1)))
        start, end = (midnight.astimezone(UTC) for midnight in midnights)
    except OverflowError:
        raise ConfigError(f"the day {day} begins or ends outside of the years 1 to 9999.") from None
    return Window(start=start, end=end)
