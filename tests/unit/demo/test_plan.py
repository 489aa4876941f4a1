"""A simulated day is a function of its date, and differs from the real one by stated edits only."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta
from typing import Any

import pytest

from naviglio.demo import data
from naviglio.demo.plan import Change, corrections, registries, steps, withdrawn
from naviglio.demo.schema import KEYS

DAYS = [
    date(2013, 1, 1),
    date(2013, 1, 8),
    date(2013, 2, 8),  # a snowstorm: half of the flights cancelled
    date(2013, 3, 10),  # 23 hours
    date(2013, 11, 3),  # 25 hours
    date(2013, 12, 31),
]
Row = dict[str, Any]
Key = tuple[Any, ...]


def key_of(change: Change, row: Row) -> Key:
    """Return the key of a row of the change's table."""
    return tuple(row[column] for column in KEYS[change.table])


def play(changes: list[Change], table: str) -> dict[Key, Row]:
    """Apply changes to an empty table as strictly as a database that must hit every row."""
    rows: dict[Key, Row] = {}
    for change in changes:
        if change.table != table:
            continue
        for row in change.rows:
            key = key_of(change, row)
            assert (key in rows) == (change.operation != "insert")
            if change.operation == "delete":
                del rows[key]
            else:
                rows[key] = {**rows.get(key, {}), **row}
    return rows


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_a_played_day_ends_as_the_real_one_but_for_the_withdrawn(day: date) -> None:
    """Scheduled, departed and landed in steps, each row ends with exactly its real values."""
    changes = [
        change for step in steps(day) if step.name != "corrections" for change in step.changes
    ]
    gone = withdrawn(day)
    assert all(row["dep_time"] is None for row in gone)
    real = [row for row in data.rows_of("flights", day) if row not in gone]
    assert list(play(changes, "flights").values()) == real
    assert sorted(play(changes, "weather")) == sorted(
        (row["origin"], row["time_hour"]) for row in data.rows_of("weather", day)
    )


def test_flights_appear_without_actual_times() -> None:
    """What is not known before a departure is NULL in the first step."""
    schedule = steps(date(2013, 1, 8))[0].changes[0]
    actual = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
    assert {row[column] for row in schedule.rows for column in actual} == {None}


def test_some_cancelled_flights_are_deleted_and_others_stay() -> None:
    """A snowstorm's day shows both kinds of cancellation."""
    cancelled = [r for r in data.rows_of("flights", date(2013, 2, 8)) if r["dep_time"] is None]
    assert 0 < len(withdrawn(date(2013, 2, 8))) < len(cancelled)


def test_no_two_corrections_of_earlier_days_meet() -> None:
    """Over weeks each edit touches a real row of its own, of the five days before, and no other."""
    touched: set[Key] = set()
    for number in range(40):
        day = data.FIRST_DAY + timedelta(days=number)
        for change in corrections(day):
            for row in change.rows:
                key = key_of(change, row)
                assert key not in touched
                touched.add(key)
                assert 0 < (day - event_day(row)).days <= 5
    assert len(touched) > 40 * 20


def event_day(row: Row) -> date:
    """The local day: New York is five hours behind UTC in the weeks of the test."""
    day: date = (row["time_hour"] - timedelta(hours=5)).date()
    return day


@pytest.mark.parametrize("day", DAYS[1:], ids=str)
def test_corrections_change_what_they_claim(day: date) -> None:
    """Twenty arrival delays get another value; one or two rows come late, one or two go."""
    updated, inserted, deleted = corrections(day)
    assert [change.operation for change in (updated, inserted, deleted)] == [
        "update",
        "insert",
        "delete",
    ]
    real = {
        key_of(updated, row): row
        for ago in range(1, 6)
        for row in data.rows_of("flights", day - timedelta(days=ago))
    }
    assert len(updated.rows) == 20
    assert all(real[key_of(updated, r)]["arr_delay"] != r["arr_delay"] for r in updated.rows)
    assert 1 <= len(inserted.rows) <= 2
    assert not {key_of(inserted, row) for row in inserted.rows} & set(real)
    assert 1 <= len(deleted.rows) <= 2
    assert {key_of(deleted, row) for row in deleted.rows} <= set(real)


def test_registries_never_edit_a_plane_that_left_nor_add_one_twice() -> None:
    """Played through the whole year, every registry edit hits its row."""
    fleet: set[str] = set(data.table("planes")["tailnum"].to_pylist())
    edits = 0
    for number in range(365):
        for change in registries(data.FIRST_DAY + timedelta(days=number)):
            names = {row["tailnum"] for row in change.rows if change.table == "planes"}
            if change.operation == "insert":
                assert not names & fleet
                fleet |= names
            else:
                assert names <= fleet
                fleet -= names if change.operation == "delete" else set()
            edits += change.table == "airlines"
    assert len(fleet) == data.table("planes").num_rows
    assert edits == 121


def test_another_process_plans_the_same_day() -> None:
    """Neither hash seed nor import order nor an earlier day changes what a day does."""
    code = (
        "from datetime import date; from hashlib import sha256; from naviglio.demo import plan;"
        "print(sha256(repr(plan.steps(date(2013, 2, 8))).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
