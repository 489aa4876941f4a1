"""The real rows are what the demo says they are."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import pytest

from naviglio.demo import data
from naviglio.demo.schema import KEYS

NEW_YORK = ZoneInfo("America/New_York")
ROWS = {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26_115, "flights": 336_776}


@pytest.mark.parametrize("name", data.TABLES)
def test_every_real_row_is_there_once(name: str) -> None:
    """The key that the demo declares is unique and never NULL in the real rows."""
    rows = data.table(name)
    keys = rows.group_by(list(KEYS[name])).aggregate([])
    assert rows.num_rows == keys.num_rows == ROWS[name]
    assert all(rows[column].null_count == 0 for column in KEYS[name])


@pytest.mark.parametrize("name", ["flights", "weather"])
@pytest.mark.parametrize("day", [date(2013, 1, 7), date(2013, 3, 10), date(2013, 11, 3)])
def test_a_day_is_the_new_york_day_of_its_event_time(name: str, day: date) -> None:
    """The days of 23 and of 25 hours too hold exactly the instants of their local calendar day."""
    rows = data.rows_of(name, day)
    assert rows
    assert {row["time_hour"].astimezone(NEW_YORK).date() for row in rows} == {day}
    assert (data.until(name, day).num_rows - len(rows)) == data.until(
        name, day - timedelta(days=1)
    ).num_rows


def test_the_hour_that_comes_twice_keeps_both_readings() -> None:
    """On 2013-11-03 each airport has two readings at the local hour 1, with different instants."""
    hours = Counter(
        (row["origin"], row["hour"]) for row in data.rows_of("weather", date(2013, 11, 3))
    )
    assert [key for key, count in hours.items() if count > 1] == [
        ("EWR", 1),
        ("JFK", 1),
        ("LGA", 1),
    ]


def test_the_last_day_of_the_year_has_flights_and_no_weather() -> None:
    """The readings end on the evening before; the demo does not invent any."""
    assert len(data.rows_of("flights", data.LAST_DAY)) == 776
    assert data.rows_of("weather", data.LAST_DAY) == ()
