"""How much each aircraft flew on a day of New York; a tail number may be of no known plane."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as fn


def transform(inputs: dict[str, DataFrame]) -> DataFrame:
    """Return one row a day and tail number, with the plane's maker and seats where known."""
    flown = inputs["flights"].where(fn.col("tailnum").isNotNull() & fn.col("air_time").isNotNull())
    used = flown.groupBy(fn.to_date("time_hour").alias("day"), "tailnum").agg(
        fn.count(fn.lit(1)).alias("flights"),
        fn.sum("distance").cast("double").alias("miles"),
        fn.sum("air_time").cast("double").alias("minutes_in_the_air"),
    )
    planes = inputs["planes"].select(
        "tailnum", "manufacturer", "model", fn.col("year").alias("built"), "seats"
    )
    return used.join(planes, "tailnum", "left")
