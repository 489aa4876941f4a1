"""The demo's transforms over the whole year, against the same computed by another engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from naviglio.demo import data

PROGRAMS = Path(__file__).parents[3] / "include" / "spark_jobs"
# Of the source's own columns year, month and day, which know nothing of time zones.
DAY = "make_date(f.year, f.month, f.day)"
DELAYS = f"""
SELECT {DAY} AS day, f.carrier, f.origin, count(*) AS flights,
  count(*) FILTER (f.dep_time IS NULL) AS not_departed, avg(f.dep_delay) AS mean_departure_delay,
  avg(f.arr_delay) AS mean_arrival_delay, avg(w.wind_speed) AS mean_wind_speed,
  avg(w.visib) AS mean_visibility
FROM flights f LEFT JOIN weather w USING (origin, time_hour) GROUP BY 1, 2, 3
"""
USE = f"""
SELECT {DAY} AS day, f.tailnum, count(*) AS flights, sum(f.distance) AS miles,
  sum(f.air_time) AS minutes_in_the_air, any_value(p.manufacturer) AS manufacturer,
  any_value(p.model) AS model, any_value(p.year) AS built, any_value(p.seats) AS seats
FROM flights f LEFT JOIN planes p USING (tailnum)
WHERE f.tailnum IS NOT NULL AND f.air_time IS NOT NULL GROUP BY 1, 2
"""


@pytest.fixture(scope="module")
def inputs(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataFrame]:
    """Return the demo's real rows as DataFrames."""
    folder, frames = tmp_path_factory.mktemp("inputs"), {}
    for name in ("flights", "weather", "planes"):
        rows = data.table(name)
        if "time_hour" in rows.column_names:
            at = rows.column_names.index("time_hour")
            times = rows["time_hour"].cast(pa.timestamp("us", tz="UTC"))
            rows = rows.set_column(at, "time_hour", times)
        pq.write_table(rows, folder / f"{name}.parquet")
        frames[name] = spark.read.parquet(str(folder / f"{name}.parquet"))
    return frames


@pytest.fixture
def engine() -> duckdb.DuckDBPyConnection:
    """Return another engine, over the same rows."""
    made = duckdb.connect()
    for name in ("flights", "weather", "planes"):
        made.register(name, data.table(name))
    return made


def assert_same(
    engine: duckdb.DuckDBPyConnection, made: DataFrame, query: str, key: Sequence[str]
) -> None:
    """Both say the same rows; a mean may differ in what an order of adding up leaves."""
    engine.register("made", made.toArrow())
    engine.execute(f"CREATE TEMP TABLE wanted AS {query}")
    on = ", ".join(key)
    both = f"FROM made JOIN wanted USING ({on})"
    counts = "SELECT (SELECT count(*) FROM made), (SELECT count(*) FROM wanted), count(*)"
    found, wanted, matched = engine.execute(f"{counts} {both}").fetchall()[0]
    assert found == wanted == matched
    for name, kind in made.dtypes:
        same = f"made.{name} IS NOT DISTINCT FROM wanted.{name}"
        if kind == "double":
            same = f"({same} OR abs(made.{name} - wanted.{name}) < 1e-9)"
        differing = f"SELECT {on} {both} WHERE NOT ({same}) LIMIT 3"
        assert (name, engine.execute(differing).fetchall()) == (name, [])


def test_daily_delays(
    spark: SparkSession, driver: ModuleType, inputs: dict[str, DataFrame], engine: Any
) -> None:
    """Each day of New York, carrier and airport; days without weather stay."""
    program = PROGRAMS / "daily_delays.sql"
    made = driver.run(spark, str(program), program.read_text(), inputs)
    assert_same(engine, made, DELAYS, ("day", "carrier", "origin"))


def test_aircraft_use(
    spark: SparkSession, driver: ModuleType, inputs: dict[str, DataFrame], engine: Any
) -> None:
    """Flights of no known plane are 52,606, those without a tail number or never flown among them.

    The others of them stay, with nothing told of the plane.
    """
    program = PROGRAMS / "aircraft_use.py"
    made = driver.run(spark, str(program), program.read_text(), inputs)
    assert_same(engine, made, USE, ("day", "tailnum"))
    of_none = "FROM flights f WHERE NOT EXISTS (FROM planes p WHERE p.tailnum = f.tailnum)"
    every = engine.execute(f"SELECT count(*), count(*) FILTER (tailnum IS NOT NULL AND air_time"
                           f" IS NOT NULL) {of_none}").fetchone()  # fmt: skip
    assert every[0] == 52_606
    kept = engine.execute("SELECT sum(flights) FROM made WHERE manufacturer IS NULL").fetchone()
    assert kept[0] == every[1]
