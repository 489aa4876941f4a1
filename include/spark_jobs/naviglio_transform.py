"""Run transforms in one Spark application: read lake tables at fixed versions, write Parquet files.

Naviglio's own driver, started by `spark-submit naviglio_transform.py WORK`. It imports nothing of
Naviglio, so a cluster needs no more than this file. WORK is a JSON file (`naviglio.transform.spark`
writes it) that says what to read, run and write; what happened stands in `result` as JSON, written
last and at once. Nothing that this driver writes is visible before the core has checked and
committed it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from py4j.protocol import Py4JError
from pyspark import cloudpickle
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as fn

BEYOND = "_beyond"
_WATCH_S = 1.0
_STAGES_S = 2.0
_GAVE_UP = 75  # EX_TEMPFAIL: the process that asked for this is gone
_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENOMEM)


def main(work_file: str) -> None:
    """Do all the work of a file; a transform that fails stops no other."""
    work = json.loads(Path(work_file).read_text(encoding="utf-8"))
    folder = Path(work_file).parent
    threading.Thread(target=_watch_owner, args=(work["owner"], folder), daemon=True).start()
    spark = SparkSession.builder.appName(work["name"]).getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", work["time_zone"])
    stages = Stages(spark, [one["name"] for one in work["transforms"]])
    threading.Thread(target=stages.watch, daemon=True).start()
    results = {one["name"]: tried(spark, one) for one in work["transforms"]}
    stages.tell()
    target = Path(work["result"])
    hidden = target.with_suffix(".tmp")
    hidden.write_text(json.dumps(results), encoding="utf-8")
    hidden.replace(target)
    spark.stop()


def run(
    spark: SparkSession, program: str, source: str, inputs: Mapping[str, DataFrame]
) -> DataFrame:
    """Return what a program, a file of this `source`, makes of its inputs.

    A `.py` file has a function `transform(inputs)` from DataFrames by name to one DataFrame; a
    `.sql` file is one query over views of these names, which no other program sees.
    """
    if program.endswith(".sql"):
        return _query(spark, source, inputs)
    made = _module(program, source).transform(dict(inputs))
    if not isinstance(made, DataFrame):
        raise TypeError(f"transform() returned {type(made).__name__}, not a DataFrame")
    return made


def _query(spark: SparkSession, source: str, inputs: Mapping[str, DataFrame]) -> DataFrame:
    try:
        for name, frame in inputs.items():
            frame.createOrReplaceTempView(name)
        return spark.sql(source.rstrip().rstrip(";"))
    finally:
        for name in inputs:
            spark.catalog.dropTempView(name)


def _module(program: str, source: str) -> ModuleType:
    """Return a program as a module; executors, which lack its file, get its functions by value."""
    module = ModuleType(f"naviglio_program_{Path(program).stem}")
    module.__file__ = program
    sys.modules[module.__name__] = module
    cloudpickle.register_pickle_by_value(module)
    exec(compile(source, program, "exec"), module.__dict__)  # noqa: S102 - a program is code
    return module


def tried(spark: SparkSession, one: Mapping[str, Any]) -> dict[str, Any]:
    """Run one transform; return its counts, or what went wrong and whether it may pass."""
    name, begun = one["name"], time.monotonic()
    print(f"transform {name}: begins", flush=True)
    spark.sparkContext.setJobGroup(name, f"transform {name}")
    try:
        counts = _write(spark, one)
    except Exception as error:  # noqa: BLE001 - a user's program may raise anything
        for line in "".join(traceback.format_exception(error)).splitlines():
            print(f"transform {name}: {line}", flush=True)
        return {"error": told(error, one["program"]), "may_pass": may_pass(error)}
    seconds = time.monotonic() - begun
    print(f"transform {name}: {counts['rows']} rows written in {seconds:.1f} s", flush=True)
    return counts


def told(error: Exception, program: str) -> str:
    """Say where in the program an error came up, and its last words, on one line.

    Of what a function raised on an executor, the last words are its own.
    """
    frames = traceback.extract_tb(error.__traceback__)
    at = [frame.lineno for frame in frames if frame.filename == program]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    remote = any(line.startswith("Traceback (most recent") for line in lines)
    words = lines[-1] if remote else f"{type(error).__name__}: {lines[0]}"
    return f"line {at[-1]}: {words}" if at else words


def may_pass(error: Exception) -> bool:
    """Whether trying again may mend it: a lost executor or a full disk, not the program's own.

    Spark gives errors of queries, of values and of the program's functions classes of their own;
    what is left are its raw Java errors.
    """
    full = isinstance(error, OSError) and error.errno in _MAY_PASS
    return full or isinstance(error, Py4JError | ConnectionError | MemoryError)


def _write(spark: SparkSession, one: Mapping[str, Any]) -> dict[str, Any]:
    """Write what the program makes of the touched days; tell the rows, and those of other days."""
    inputs = {entry["name"]: _read(spark, entry) for entry in one["inputs"]}
    made = run(spark, one["program"], one["source"], inputs)
    count = fn.count(fn.lit(1)).alias("rows")
    every, kept = Observation(), Observation()
    made = made.observe(every, count)
    if one["days"] is not None:
        days = [datetime.fromisoformat(day).date() for day in one["days"]]
        made = made.where(fn.col(one["day"]).isin(days))
    made = made.withColumn(BEYOND, fn.lit(None).cast("string"))
    made.observe(kept, count).write.mode("append").parquet(one["folder"])
    rows = int(kept.get["rows"])
    return {"rows": rows, "other_days": int(every.get["rows"]) - rows}


def _read(spark: SparkSession, entry: Mapping[str, Any]) -> DataFrame:
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


def _watch_owner(owner: int, folder: Path) -> None:
    """End this application, and remove its folder, once nobody is left who would commit."""
    while _descends_from(owner):
        time.sleep(_WATCH_S)
    print("the process that asked for this is gone: giving up", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(_GAVE_UP)


def _descends_from(owner: int) -> bool:
    """Whether a process is an ancestor of this one: children of a dead one get another parent.

    Ids alone: a clock that is set, and with it every start time, ends nothing.
    """
    import psutil

    pid = os.getppid()
    while pid not in (0, owner):
        try:
            pid = psutil.Process(pid).ppid()
        except psutil.NoSuchProcess:
            return False
    return bool(pid)


class Stages:
    """Prints how far the stages of each transform are, a line when that changed."""

    def __init__(self, spark: SparkSession, names: Sequence[str]) -> None:
        self._tracker, self._names = spark.sparkContext.statusTracker(), names
        self._said: dict[int, str] = {}
        self._alone = threading.Lock()

    def watch(self) -> None:
        """Tell from now on, as long as there is a Spark to ask."""
        while True:
            time.sleep(_STAGES_S)
            try:
                self.tell()
            except (Py4JError, OSError):  # it is stopped
                return

    def tell(self) -> None:
        """Tell what changed since the last time."""
        with self._alone:
            for name, stage, text in self._found():
                if self._said.get(stage) != text:
                    self._said[stage] = text
                    print(f"transform {name}: stage {stage}: {text}", flush=True)

    def _found(self) -> Iterator[tuple[str, int, str]]:
        for name in self._names:
            for job in sorted(self._tracker.getJobIdsForGroup(name)):
                known = self._tracker.getJobInfo(job)
                for stage in sorted(known.stageIds) if known else ():
                    info = self._tracker.getStageInfo(stage)
                    if info and info.numActiveTasks + info.numCompletedTasks:
                        done = f"{info.numCompletedTasks} of {info.numTasks} tasks"
                        yield name, stage, done


if __name__ == "__main__":
    main(sys.argv[1])
