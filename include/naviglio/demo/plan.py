"""What happens on one simulated day: a pure function of the date and the real rows.

A day is a list of steps, each one transaction of the operational system. Its flights appear as
scheduled; then, five times and once after midnight, the weather of the past hours is written, and
flights depart, land or are withdrawn. In between, earlier days are corrected and registries edited.

Against the real rows, a day differs only by these edits, none of which meets another one:

- a third of the cancelled flights (no `dep_time`) is deleted, the others stay without times;
- each of the five following days corrects `arr_delay` of four of its flights, and may delete
  one flight and file another one late (a copy with a flight number from 9001).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from naviglio.demo import data
from naviglio.demo.data import Row
from naviglio.demo.schema import KEYS

Operation = Literal["insert", "update", "delete"]

_NEW_YORK = ZoneInfo("America/New_York")
_HOURS = (6, 10, 14, 18, 22)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_FAR_AHEAD = datetime.max.replace(tzinfo=UTC)
_DEPARTURE = ("dep_time", "dep_delay")
_LANDING = ("arr_time", "arr_delay", "air_time")
_TAXI = timedelta(minutes=30)
_UNKNOWN_AIR_TIME = 300
_LOOK_BACK = 5
_CORRECTED = 4


@dataclass(frozen=True, kw_only=True)
class Change:
    """Rows of one table to insert whole, to update (key and new values) or to delete (key)."""

    table: str
    operation: Operation
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the operational system commits at once."""

    name: str
    changes: tuple[Change, ...]


@lru_cache(maxsize=1)
def steps(day: date) -> tuple[Step, ...]:
    """Return the steps of `day` in their order; the same for every call, process and machine."""
    played = [_step("schedule", [_change("flights", "insert", _scheduled(day))])]
    begin = _LONG_AGO
    for hour in (*_HOURS, None):
        end = _FAR_AHEAD if hour is None else _moment(day, hour)
        name = "midnight" if hour is None else f"{hour:02}:00"
        played.append(_step(f"{name} weather", _weather(day, begin, end)))
        played.append(_step(f"{name} flights", _movements(day, begin, end)))
        begin = end
    played.insert(5, _step("corrections", corrections(day)))
    played.insert(8, _step("registries", registries(day)))
    return tuple(played)


def withdrawn(day: date) -> tuple[Row, ...]:
    """Return the cancelled flights of `day` that are deleted on the day itself."""
    chance = _chance(day, "withdrawn")
    cancelled = [row for row in data.rows_of("flights", day) if row["dep_time"] is None]
    return tuple(row for row in cancelled if chance.random() < 1 / 3)


def corrections(day: date) -> Iterator[Change]:
    """Yield what `day` corrects in the flights of the days before."""
    chance = _chance(day, "corrections")
    past = [(ago, day - timedelta(days=ago)) for ago in range(1, _LOOK_BACK + 1)]
    past = [(ago, then) for ago, then in past if then >= data.FIRST_DAY]
    # Each day shuffles its flights once. The day `ago` days later owns these places of that order,
    # so no two days edit the same flight: ago - 1 is deleted, 4 + ago copied, the next corrected.
    corrected = []
    for ago, then in past:
        place = 2 * _LOOK_BACK + _CORRECTED * (ago - 1)
        for row in _order(then)[place : place + _CORRECTED]:
            delay = row["arr_delay"] + _delta(chance)
            corrected.append({**_key("flights", row), "arr_delay": delay})
    yield _change("flights", "update", corrected)
    late = (
        {**_order(then)[_LOOK_BACK + ago - 1], "flight": 9000 + ago}
        for ago, then in _one_or_two(past, chance)
    )
    yield _change("flights", "insert", late)
    gone = (_key("flights", _order(then)[ago - 1]) for ago, then in _one_or_two(past, chance))
    yield _change("flights", "delete", gone)


def registries(day: date) -> Iterator[Change]:
    """Yield the day's edits of planes and airports, and on some days of airlines."""
    chance = _chance(day, "registries")
    # One plane leaves a day, each from the head of one order; edits choose behind the year's head.
    number = day.timetuple().tm_yday
    fleet = data.table("planes").to_pylist()
    _chance(data.FIRST_DAY, "fleet").shuffle(fleet)
    edited = chance.sample(fleet[366:], 5)
    seats = ({"tailnum": p["tailnum"], "seats": p["seats"] + chance.randint(1, 9)} for p in edited)
    yield _change("planes", "update", seats)
    # A real tail number has no leading zero.
    added = {**chance.choice(fleet), "tailnum": f"N0{number:03}V", "year": day.year}
    yield _change("planes", "insert", [added])
    yield _change("planes", "delete", [{"tailnum": fleet[number - 1]["tailnum"]}])
    airport = chance.choice(data.table("airports").to_pylist())
    yield _change(
        "airports", "update", [{"faa": airport["faa"], "alt": airport["alt"] + _delta(chance)}]
    )
    if number % 3 == 0:
        airline = chance.choice(data.table("airlines").to_pylist())
        name = f"{airline['name']} ({day.isoformat()})"
        yield _change("airlines", "update", [{"carrier": airline["carrier"], "name": name}])


def _scheduled(day: date) -> Iterator[Row]:
    unknown = dict.fromkeys((*_DEPARTURE, *_LANDING))
    return ({**row, **unknown} for row in data.rows_of("flights", day))


def _weather(day: date, begin: datetime, end: datetime) -> Iterator[Change]:
    past = (row for row in data.rows_of("weather", day) if begin < row["time_hour"] <= end)
    yield _change("weather", "insert", past)


def _movements(day: date, begin: datetime, end: datetime) -> Iterator[Change]:
    departed, landed = [], []
    for row in data.rows_of("flights", day):
        if row["dep_time"] is None:
            continue
        departs = _scheduled_at(row) + timedelta(minutes=row["dep_delay"])
        lands = departs + _TAXI + timedelta(minutes=row["air_time"] or _UNKNOWN_AIR_TIME)
        if begin < departs <= end:
            departed.append(_part(row, _DEPARTURE))
        if begin < lands <= end and row["arr_time"] is not None:
            landed.append(_part(row, _LANDING))
    yield _change("flights", "update", departed)
    yield _change("flights", "update", landed)
    gone = (row for row in withdrawn(day) if begin < _scheduled_at(row) <= end)
    yield _change("flights", "delete", (_key("flights", row) for row in gone))


@lru_cache(maxsize=16)
def _order(day: date) -> tuple[Row, ...]:
    landed = [row for row in data.rows_of("flights", day) if row["arr_delay"] is not None]
    _chance(day, "order").shuffle(landed)
    return tuple(landed)


def _chance(day: date, topic: str) -> random.Random:
    return random.Random(f"naviglio {day} {topic}")


def _one_or_two(days: list[tuple[int, date]], chance: random.Random) -> list[tuple[int, date]]:
    return chance.sample(days, min(len(days), chance.choice((1, 2))))


def _delta(chance: random.Random) -> int:
    return chance.choice((-3, -2, -1, 1, 2, 3, 4, 5))


def _moment(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=_NEW_YORK).astimezone(UTC)


def _scheduled_at(row: Row) -> datetime:
    moment: datetime = row["time_hour"] + timedelta(minutes=row["minute"])
    return moment


def _key(table: str, row: Row) -> Row:
    return {column: row[column] for column in KEYS[table]}


def _part(row: Row, columns: Iterable[str]) -> Row:
    return {**_key("flights", row), **{column: row[column] for column in columns}}


def _change(table: str, operation: Operation, rows: Iterable[Row]) -> Change:
    return Change(table=table, operation=operation, rows=tuple(rows))


def _step(name: str, changes: Iterable[Change]) -> Step:
    return Step(name=name, changes=tuple(change for change in changes if change.rows))
