"""Transforms over real lake tables: Spark computes, the core commits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from naviglio.errors import ConfigError, DataError, RetryableError, StorageError
from naviglio.flows.history import history
from naviglio.flows.plan import plan_transform
from naviglio.flows.reconcile import reconcile
from naviglio.flows.replicate import Report
from naviglio.flows.status import status
from naviglio.flows.transform import Submit, carry_transforms, transform
from naviglio.flows.validate import declared, validate
from naviglio.model import BEYOND
from naviglio.points import listening
from tests.integration.lines import SWEPT, Line

SQL = """
SELECT to_date(f.at) AS day, p.maker, count(*) AS flights, sum(f.miles) AS miles
FROM flights f LEFT JOIN planes p ON p.tail = f.tail
WHERE f.at IS NOT NULL GROUP BY 1, 2;
"""
PY = """
def transform(inputs):
    from pyspark.sql import functions as fn
    flights = inputs["flights"].withColumn("day", fn.to_date("at"))
    planes = inputs["planes"].select("tail", "maker")
    return flights.join(planes, "tail", "left").select("day", "id", "maker", "at")
"""
DECLARED = """
transforms:
  by_maker:
    program: by_maker.sql
    key: [day, maker]
    day: day
    inputs: {flights: day, planes: {through: flights, on: {tail: tail}}}
  with_maker:
    program: with_maker.py
    key: [day, id]
    day: day
    inputs: {flights: day, planes: {through: flights, on: {tail: tail}}}
"""
FULL = """
SELECT (f.at AT TIME ZONE 'America/New_York')::date, p.maker, count(*), sum(f.miles)
FROM {0}.flights f LEFT JOIN {0}.planes p ON p.tail = f.tail GROUP BY 1, 2 ORDER BY 1, 2
"""


@pytest.fixture
def flying(line: Line) -> Line:
    """A pipeline of flights and planes with two transforms; some rows, not captured yet."""
    line.source(
        "CREATE TABLE flights (id int PRIMARY KEY, at timestamptz NOT NULL, tail text,"
        " miles int NOT NULL, modified_at timestamptz NOT NULL DEFAULT clock_timestamp())",
        "CREATE TABLE planes (tail text PRIMARY KEY, maker text NOT NULL)",
        "INSERT INTO planes VALUES ('a', 'Airbus'), ('b', 'Boeing'), ('c', 'Boeing')",
        "INSERT INTO flights (id, at, tail, miles) SELECT n, "
        "timestamptz '2013-01-01 12:00Z' + n * interval '7 hours', "
        "(ARRAY['a', 'b', 'c'])[1 + n % 3], n FROM generate_series(1, 30) n",
    )
    head = f"fence_margin: 0s\ntime_zone: America/New_York\n{DECLARED}"
    line.declare(
        head, flights=SWEPT.replace("}, d", "}, event_time: at, d"), planes="{capture: diff}"
    )
    _ = line.pipeline  # writes the file
    (line.home.pipelines / "by_maker.sql").write_text(SQL)
    (line.home.pipelines / "with_maker.py").write_text(PY)
    return line


def carried(line: Line, submit: Submit, *, only: int = 2) -> list[Report]:
    """Capture, apply and load all tables, then carry the first transforms."""
    line.run()
    site = line.site()
    try:
        return carry_transforms(site, line.pipeline.transforms[:only], submit)
    finally:
        site.close()


def never(name: str, zone: str, work: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Refuse: no Spark may be started."""
    raise AssertionError(f"Spark was started for {[one['name'] for one in work]}")


def writes(*rows: tuple[date, str, int, int]) -> Submit:
    """Return a submitter in Spark's place that writes these rows, as the driver program would."""

    def submit(name: str, zone: str, work: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        del name, zone
        for one in work:
            Path(one["folder"]).mkdir()
            columns = list(zip(*rows, strict=True))
            table = pa.table(
                {
                    "day": pa.array(columns[0], pa.date32()), "maker": list(columns[1]),
                    "flights": list(columns[2]), "miles": list(columns[3]),
                    BEYOND: pa.nulls(len(rows), pa.string()),
                }
            )  # fmt: skip
            pq.write_table(table, Path(one["folder"], "part-0.parquet"))
        return {one["name"]: {"rows": len(rows)} for one in work}

    return submit


ROW = (date(2013, 1, 1), "Airbus", 1, 7)


def assert_same_as_computed_whole(line: Line) -> None:
    """What incremental runs left equals what the warehouse computes from its raw tables."""
    query = f"SELECT * FROM {line.name}.by_maker ORDER BY 1, 2"
    assert line.target(query.replace("*", "day, maker, flights, miles")) == line.target(
        FULL.format(line.name)
    )
    count = f"SELECT count(*), count(maker) FROM {line.name}.with_maker"
    assert line.target(count) == line.target(f"SELECT count(*), count(*) FROM {line.name}.flights")


def test_touched_days_are_computed_again_and_nothing_else(flying: Line, here: Submit) -> None:
    """After a late row, a changed plane, a moved and a deleted row: as a full recomputation.

    A run that touches nothing starts no Spark.
    """
    for report in carried(flying, here):
        assert report.error is None
        assert report.batch is not None
        assert report.batch.parts[0].why == "first run"
    assert_same_as_computed_whole(flying)
    assert [report.batch for report in carried(flying, never)] == [None, None]

    flying.source(
        "INSERT INTO flights (id, at, tail, miles) VALUES (99, '2013-01-02 04:30Z', 'b', 5)",
        "UPDATE flights SET at = at - interval '5 days', modified_at = clock_timestamp()"
        " WHERE id = 30",
        "DELETE FROM flights WHERE id = 20",
        "UPDATE planes SET maker = 'Cessna' WHERE tail = 'c'",
    )
    for report in carried(flying, here):
        assert report.error is None
        assert report.batch is not None
        assert report.batch.parts[0].kind == "window"
    assert_same_as_computed_whole(flying)
    flying.source("INSERT INTO planes VALUES ('d', 'Douglas')")  # no flight refers to it
    assert [report.batch for report in carried(flying, never)] == [None, None]


def test_only_touched_days_are_asked_for(flying: Line) -> None:
    """A late row names its own day in the pipeline's zone; inputs by day are read for it alone."""
    carried(flying, writes(ROW), only=1)
    asked: list[Mapping[str, Any]] = []

    def remember(name: str, zone: str, work: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        asked.extend(work)
        return writes((date(2013, 1, 1), "Boeing", 2, 8))(name, zone, work)

    flying.source(
        "INSERT INTO flights (id, at, tail, miles) VALUES (99, '2013-01-02 04:30Z', 'b', 5)"
    )
    carried(flying, remember, only=1)
    ((days, inputs),) = [(one["days"], one["inputs"]) for one in asked]
    assert days == ["2013-01-01"]
    spans = {one["name"]: one["spans"] for one in inputs}
    assert spans["planes"] == []
    assert spans["flights"] == [("2013-01-01T05:00:00+00:00", "2013-01-02T05:00:00+00:00")]
    target = flying.target(f"SELECT maker, flights FROM {flying.name}.by_maker")
    assert target == [("Boeing", 2)]  # the day's former row is gone
    [one, *_], site = flying.pipeline.transforms, flying.site()
    windows = [batch.windows for batch in history(site, one.group, one.group.tables[0], 9).batches]
    assert windows == [("2013-01-01",), ()]


def test_a_key_that_stands_on_another_day_is_refused(flying: Line) -> None:
    """It would take that day's row away, though the whole would have two of one key."""
    declared = DECLARED.replace("[day, maker]", "[maker]")
    flying.declare(
        f"fence_margin: 0s\ntime_zone: America/New_York\n{declared}",
        flights=SWEPT.replace("}, d", "}, event_time: at, d"), planes="{capture: diff}",
    )  # fmt: skip
    carried(flying, writes((date(2013, 1, 1), "Airbus", 1, 7)), only=1)
    flying.source(
        "INSERT INTO flights (id, at, tail, miles) VALUES (99, '2013-01-08 12:00Z', 'b', 5)"
    )
    [report] = carried(flying, writes((date(2013, 1, 8), "Airbus", 2, 8)), only=1)
    assert "the key maker=Airbus stands on another day as well" in str(report.error)
    assert flying.target(f"SELECT flights FROM {flying.name}.by_maker") == [(1,)]
    [report] = carried(flying, writes((date(2013, 1, 8), "Boeing", 2, 8)), only=1)
    assert report.error is None
    assert flying.target(f"SELECT flights FROM {flying.name}.by_maker ORDER BY 1") == [(1,), (2,)]


def test_a_late_driver_loses_its_race(flying: Line) -> None:
    """While one computes, another computes and commits: the first one's files are thrown away."""
    flying.run()

    def overtaken(name: str, zone: str, work: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        (other,) = carried(flying, writes((date(2013, 1, 1), "Boeing", 2, 8)), only=1)
        assert other.batch is not None
        return writes(ROW)(name, zone, work)

    (report,) = carried(flying, overtaken, only=1)
    assert (report.error, report.batch) == (None, None)
    assert len(flying.batches("by_maker")) == 1
    assert len(list((flying.landing_of("by_maker") / "data").iterdir())) == 1
    assert flying.target(f"SELECT maker FROM {flying.name}.by_maker") == [("Boeing",)]


def test_a_changed_program_computes_everything(flying: Line) -> None:
    """Though no input changed."""
    carried(flying, writes(ROW), only=1)
    (flying.home.pipelines / "by_maker.sql").write_text(SQL + "-- said otherwise\n")
    (report,) = carried(flying, writes(ROW), only=1)
    assert report.batch is not None
    assert report.batch.parts[0].why == "the program or its declaration changed"


def test_who_looks_sees_transforms(flying: Line) -> None:
    """Plan tells the days, status the inputs not seen, validate a lost program, reconcile all."""
    [one] = flying.pipeline.transforms[:1]
    site = flying.site()
    assert (found := plan_transform(site, one)).action == "nothing"
    assert "not captured yet" in found.why
    carried(flying, writes(ROW), only=1)
    assert plan_transform(site, one).action == "nothing"
    flying.source(
        "INSERT INTO flights (id, at, tail, miles) VALUES (99, '2013-01-02 04:30Z', 'b', 5)",
        "INSERT INTO flights (id, at, tail, miles) VALUES (98, '2013-01-03 04:30Z', 'b', 5)",
    )
    flying.run()
    found = plan_transform(site, one)
    assert (found.action, found.windows) == ("compute", ("2013-01-01..2013-01-02",))
    tables = {table.table: table for table in status(site).tables}
    assert tables["by_maker"].unseen == ("flights: 1 of 2",)
    assert (tables["by_maker"].batch, tables["by_maker"].target_batch) == (1, 1)
    assert [(v.against, v.ok) for v in reconcile(site, one.group)] == [("target", True)]
    flying.target(f"UPDATE {flying.name}.by_maker SET miles = miles + 1")
    assert [v.changed.count for v in reconcile(site, one.group)] == [1]

    checks = {check.table: check for check in validate(site)}
    assert (checks["by_maker"].problems, checks["by_maker"].columns) == ((), 4)
    (flying.home.pipelines / "by_maker.sql").unlink()
    for checks_of in (validate(site), declared(site.pipeline)):
        (check,) = [check for check in checks_of if check.table == "by_maker"]
        assert "by_maker.sql can't be read" in check.problems[0]
    site.close()


def test_a_bad_output_lands_nothing(flying: Line) -> None:
    """Two rows of one key, or no program: an error, no batch, no file left behind."""
    (report,) = carried(flying, writes(ROW, ROW), only=1)
    assert isinstance(report.error, DataError)
    assert "two rows have one key" in str(report.error)
    assert flying.batches("by_maker") == []
    assert list((flying.landing_of("by_maker") / "data").iterdir()) == []
    (flying.home.pipelines / "by_maker.sql").unlink()
    (report,) = carried(flying, never, only=1)
    assert isinstance(report.error, ConfigError)


def test_a_program_that_raises_lands_nothing(flying: Line, here: Submit) -> None:
    """The error says where in the program and what, and isn't tried again; the other one lands."""
    (flying.home.pipelines / "by_maker.sql").write_text("SELECT makr FROM planes")
    (flying.home.pipelines / "with_maker.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from pyspark.sql import functions as fn\n@dataclass\nclass Plane:\n    tail: str\n"
        "def maker(tail):\n    return {}[Plane(tail).tail]\n"
        "def transform(inputs):\n    bad = fn.udf(maker, 'string')\n"
        "    return inputs['flights'].select(fn.to_date('at').alias('day'), 'id',"
        " bad('tail').alias('maker'), 'at')\n"
    )
    query, function = carried(flying, here)
    for report, told in (
        (query, r"'by_maker': by_maker\.sql failed: AnalysisException: .*`makr` cannot be"),
        (function, r"'with_maker': with_maker\.py failed: line 8: KeyError: '[abc]'\. Nothing was"),
    ):
        assert isinstance(report.error, DataError)
        assert re.search(told, str(report.error)), report.error
        assert list((flying.landing_of(report.group) / "data").iterdir()) == []
    (flying.home.pipelines / "with_maker.py").write_text(
        "def transform(inputs):\n    return 1 / 0\n"
    )
    _, report = carried(flying, here)
    assert "line 2: ZeroDivisionError: division by zero" in str(report.error)


def test_what_may_pass_is_tried_again(flying: Line) -> None:
    """An executor that was lost, or a Spark that could not be started, is no program's mistake."""

    def lost(name: str, zone: str, work: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        del name, zone
        return {one["name"]: {"error": "Py4JJavaError: lost", "may_pass": True} for one in work}

    def away(name: str, zone: str, work: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        raise RetryableError("spark-submit ended with 1")

    for submit in (lost, away):
        (report,) = carried(flying, submit, only=1)
        assert isinstance(report.error, RetryableError)
        assert flying.batches("by_maker") == []
        assert list((flying.landing_of("by_maker") / "data").iterdir()) == []


def test_a_failure_after_the_commit_takes_no_file(flying: Line) -> None:
    """What went wrong behind the manifest is told; the batch stands, and the next run finds it."""

    def full(point: str) -> None:
        if point == "capture: after manifest" and flying.landing_of("by_maker").exists():
            raise StorageError("the disk is full")

    flying.run()
    site = flying.site()
    with listening(full):
        done = transform(site, flying.pipeline.transforms[:1], writes(ROW))
    site.close()
    assert "the disk is full" in str(done.errors["by_maker"])
    (report,) = carried(flying, never, only=1)
    assert (report.error, report.batch) == (None, None)
    assert flying.target(f"SELECT maker, miles FROM {flying.name}.by_maker") == [("Airbus", 7)]


PASSED = """
SELECT to_date(at) AS day, id, at, * EXCEPT (id, at) FROM times
"""


@pytest.fixture
def timed(line: Line) -> Line:
    """A table of times, no row yet, and a transform that passes all columns on."""
    line.source(
        "CREATE TABLE times (id int PRIMARY KEY, at timestamptz, modified_at timestamptz NOT NULL"
        " DEFAULT clock_timestamp())",
    )
    line.declare(
        "fence_margin: 0s\ntime_zone: America/New_York\ntransforms:\n"
        "  passed: {program: passed.sql, key: [day, id], day: day, inputs: {times: day}}",
        times=SWEPT.replace("}, d", "}, event_time: at, d"),
    )
    _ = line.pipeline  # writes the file
    (line.home.pipelines / "passed.sql").write_text(PASSED)
    return line


def passed(line: Line, columns: str = "id, at") -> list[tuple[Any, ...]]:
    """Return what arrived, once it is what the source holds."""
    query = f"SELECT (at AT TIME ZONE 'America/New_York')::date, {columns}"
    rows = line.target(f"SELECT day, {columns} FROM {line.name}.passed ORDER BY id")
    assert rows == line.source(f"{query} FROM times ORDER BY id")
    return rows


def test_days_of_another_length_and_microseconds(timed: Line, here: Submit) -> None:
    """No rows yet; then both sides of midnight on the days of 23 and 25 hours, to the last digit.

    The lake's files carry statistics, as readers need them.
    """
    (report,) = carried(timed, here)
    assert report.error is None
    assert report.batch is not None
    assert report.batch.parts[0].files == ()
    assert passed(timed) == []
    times = ["03-10 04:59:59.999999", "03-10 05:00:00.000001", "03-11 03:59:59.999999",
             "03-11 04:00:00", "11-03 03:59:59.123456", "11-03 04:00:00.654321",
             "11-04 04:59:59.999999", "11-04 05:00:00"]  # fmt: skip
    timed.source(*(f"INSERT INTO times VALUES ({n}, '2013-{at}Z')" for n, at in enumerate(times)))
    (report,) = carried(timed, here)
    assert report.error is None
    assert len(passed(timed)) == len(times)
    timed.source(
        "UPDATE times SET at = at + interval '1 microsecond', modified_at = clock_timestamp()"
        " WHERE id IN (0, 2, 6)",
        "DELETE FROM times WHERE id = 5",
    )
    (report,) = carried(timed, here)
    assert report.batch is not None
    assert report.batch.parts[0].kind == "window"
    assert len(passed(timed)) == len(times) - 1
    adds = pa.table(DeltaTable(str(timed.lake_of("passed"))).get_add_actions(flatten=True))
    assert None not in adds["num_records"].to_pylist()
    assert None not in adds["min.day"].to_pylist()


def test_a_column_that_an_input_gains_is_passed_on(timed: Line, here: Submit) -> None:
    """Everything is computed anew, since any row may have it; the target gains it too."""
    timed.source("INSERT INTO times VALUES (1, '2013-01-01 12:00Z'), (2, '2013-01-03 12:00Z')")
    carried(timed, here)
    timed.source("ALTER TABLE times ADD more text", "UPDATE times SET more = 'x',"
                 " modified_at = clock_timestamp() WHERE id = 2")  # fmt: skip
    (report,) = carried(timed, here)
    assert report.error is None
    assert report.batch is not None
    assert report.batch.parts[0].why == "times: its columns changed"
    assert passed(timed, "id, at, more")[1][3] == "x"


def test_a_program_of_other_days_is_refused(timed: Line, here: Submit) -> None:
    """One that takes UTC's day would lose rows where days are computed again one by one."""
    wrong = PASSED.replace("to_date(at)", "to_date(to_utc_timestamp(at, 'America/New_York'))")
    (timed.home.pipelines / "passed.sql").write_text(wrong)
    timed.source("INSERT INTO times VALUES (1, '2013-01-01 12:00Z'), (2, '2013-01-02 03:00Z')")
    carried(timed, here)
    timed.source("UPDATE times SET modified_at = clock_timestamp() WHERE id = 1")
    (report,) = carried(timed, here)
    assert isinstance(report.error, DataError)
    assert "made 1 rows of other days" in str(report.error)
    assert len(timed.batches("passed")) == 1
