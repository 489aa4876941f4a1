"""Run transforms in one Spark application: read lake tables at fixed versions, write Parquet files.

Naviglio's own driver, started by `spark-submit naviglio_transform.py WORK`. It imports nothing of
Naviglio, so a cluster needs no more than this file. WORK is a JSON file (`naviglio.transform.work`
writes it) that says what to read, run and write; what happened stands in `result` as JSON, written
last and at once. Nothing that this driver writes is visible before the core has checked and
committed it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as fn

BEYOND = "_beyond"
_WATCH_S = 1.0
_GAVE_UP = 75  # EX_TEMPFAIL: the process that asked for this is gone


def main(work_file: str) -> None:
    """Do all the work of a file; a transform that fails stops no other."""
    work = json.loads(Path(work_file).read_text(encoding="utf-8"))
    threading.Thread(target=_watch_owner, args=(work["owner"],), daemon=True).start()
    spark = SparkSession.builder.appName(work["name"]).getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", work["time_zone"])
    threading.Thread(target=_tell_stages, args=(spark,), daemon=True).start()
    results = {one["name"]: _tried(spark, one) for one in work["transforms"]}
    target = Path(work["result"])
    hidden = target.with_suffix(".tmp")
    hidden.write_text(json.dumps(results), encoding="utf-8")
    hidden.replace(target)
    spark.stop()


def run(spark: SparkSession, program: str, inputs: Mapping[str, DataFrame]) -> DataFrame:
    """Return what a program makes of its inputs.

    A `.py` file has a function `transform(inputs)` from DataFrames by name to one DataFrame; a
    `.sql` file is one query over views of these names.
    """
    if program.endswith(".sql"):
        for name, frame in inputs.items():
            frame.createOrReplaceTempView(name)
        return spark.sql(Path(program).read_text(encoding="utf-8").rstrip().rstrip(";"))
    spec = importlib.util.spec_from_file_location(Path(program).stem, program)
    if spec is None or spec.loader is None:
        raise ImportError(f"{program} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: DataFrame = module.transform(dict(inputs))
    return made


def _tried(spark: SparkSession, one: dict[str, Any]) -> dict[str, Any]:
    begun = time.monotonic()
    print(f"transform {one['name']}: begins", flush=True)
    try:
        rows = _write(spark, one)
    except Exception as error:  # noqa: BLE001 - a user's program may raise anything
        text = str(error).strip().splitlines() or [""]
        print(f"transform {one['name']}: failed: {type(error).__name__}: {error}", flush=True)
        return {"error": f"{type(error).__name__}: {text[0]}"}
    seconds = time.monotonic() - begun
    print(f"transform {one['name']}: {rows} rows written in {seconds:.1f} s", flush=True)
    return {"rows": rows, "seconds": seconds}


def _write(spark: SparkSession, one: dict[str, Any]) -> int:
    inputs = {entry["name"]: _read(spark, entry) for entry in one["inputs"]}
    made = run(spark, one["program"], inputs)
    if one["days"] is not None:
        days = [datetime.fromisoformat(day).date() for day in one["days"]]
        made = made.where(fn.col(one["day"]).isin(days))
    made = made.withColumn(BEYOND, fn.lit(None).cast("string"))
    counted = Observation()
    made.observe(counted, fn.count(fn.lit(1)).alias("rows")).write.mode("append").parquet(
        one["folder"]
    )
    return int(counted.get["rows"])


def _read(spark: SparkSession, entry: dict[str, Any]) -> DataFrame:
    """Read one version of a lake table; only the touched days of it, where its days are known."""
    reader = spark.read.format("delta").option("versionAsOf", entry["version"])
    frame = reader.load(entry["uri"]).drop(BEYOND)
    if not entry["spans"]:
        return frame
    at = fn.col(entry["event_time"])
    spans = [
        (at >= fn.lit(datetime.fromisoformat(low))) & (at < fn.lit(datetime.fromisoformat(high)))
        for low, high in entry["spans"]
    ]
    return frame.where(reduce(lambda one, other: one | other, spans))


def _watch_owner(owner: dict[str, Any]) -> None:
    """End this application when the process that asked for it is gone: nobody would commit."""
    if owner["host"] != os.uname().nodename:
        return
    while _lives(owner["pid"], owner["started"]):
        time.sleep(_WATCH_S)
    print("the process that asked for this is gone: giving up", flush=True)
    os._exit(_GAVE_UP)


def _lives(pid: int, started: float) -> bool:
    import psutil

    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < 1.0)
    except psutil.NoSuchProcess:
        return False


def _tell_stages(spark: SparkSession) -> None:
    """Print a line for each stage that ends, and the progress of those that take long."""
    tracker, said = spark.sparkContext.statusTracker(), dict[int, str]()
    while True:
        time.sleep(2.0)
        for stage in tracker.getActiveStageIds():
            info = tracker.getStageInfo(stage)
            if info is None:
                continue
            text = f"{info.numCompletedTasks} of {info.numTasks} tasks"
            if said.get(stage) != text:
                said[stage] = text
                print(f"stage {stage}: {text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
