"""A real embedded Airflow: it runs the pipeline, and survives kills."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psutil
import pytest

from naviglio.demo.advance import advance
from naviglio.deployment import airflow
from tests.e2e.conftest import LAST_DAY, Running
from tests.e2e.sweep import leaks

DAG, FOLLOWER = "naviglio_flights", "naviglio_mart"


def _delays_computed_otherwise(running: Running) -> list[tuple[object, ...]]:
    """Compute what the transform should say, in the source's database from the source's rows."""
    return running.rows(
        "operations_app",
        "SELECT (time_hour AT TIME ZONE 'America/New_York')::date, carrier, origin, count(*),"
        " count(*) FILTER (WHERE dep_time IS NULL), round(avg(dep_delay), 9)"
        " FROM flights GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )


def _spark_of(task: psutil.Process) -> list[psutil.Process]:
    found = task.children(recursive=True) if task.is_running() else []
    return [child for child in found if "java" in child.name()]


def _agrees(running: Running) -> None:
    """Source, lake and target hold the same, and the transform is what it should be."""
    running.agrees()
    told = running.rows(
        "warehouse",
        "SELECT day, carrier, origin, flights, not_departed,"
        " round(mean_departure_delay::numeric, 9) FROM flights.daily_delays ORDER BY 1, 2, 3",
    )
    assert told == _delays_computed_otherwise(running)


@pytest.mark.timeout(600)
def test_airflow_runs_the_pipeline_and_heals(running: Running) -> None:
    """Runs by hand, by a watch and by assets; a task and the scheduler are killed.

    A killed task is tried again. After a kill -9 only the killed process is new, and its workers
    are gone, though two starts came at once. No log, XCom or other trace of it all shows a
    password.
    """
    home, place, api = running.home, running.place, running.api
    first = airflow.start(place, print)
    for dag in (DAG, FOLLOWER):
        api.ready(dag)
    ran = api.ended(DAG, api.trigger(DAG))
    assert (ran.state, {*ran.tasks.values()}) == ("success", {"success"})
    _agrees(running)
    api.until(lambda: api.keys(FOLLOWER) >= {"2013-01-01", "2013-01-03"}, "the follower lags")

    known, next_day = api.runs(DAG), (LAST_DAY + timedelta(days=1)).isoformat()
    api.ready(f"{DAG}.watch")
    advance(running.url("operations_app"), 1)
    started = api.next_run(DAG, known)
    psutil.Process(api.running(DAG, started, "transforms.transform")).kill()
    healed_run = api.ended(DAG, started)
    assert (healed_run.state, {*healed_run.tasks.values()}) == ("success", {"success"})
    _agrees(running)
    api.until(lambda: next_day in api.keys(FOLLOWER), "the follower lags")

    known = api.runs(DAG)
    advance(running.url("operations_app"), 1)
    ended = api.next_run(DAG, known)
    task = psutil.Process(api.running(DAG, ended, "transforms.transform"))
    api.until(lambda: bool(_spark_of(task)), "no Spark was started")
    at_work = [task, *_spark_of(task)]
    api.fail(DAG, ended, "transforms.transform")
    assert psutil.wait_procs(at_work, timeout=60)[1] == []  # nothing is left behind
    assert api.ended(DAG, ended).state == "failed"
    assert api.ended(DAG, api.trigger(DAG)).state == "success"
    _agrees(running)

    scheduler = first.processes["scheduler"]
    assert scheduler is not None
    victim = psutil.Process(scheduler)
    workers = victim.children(recursive=True)
    victim.kill()
    victim.wait(30)  # a signal takes its time
    with ThreadPoolExecutor() as at_once:
        starts = list(at_once.map(lambda _: airflow.start(place, print), range(2)))
    healed = starts[0].processes
    assert starts[1].processes == healed
    changed = [name for name in airflow.NAMES if healed[name] != first.processes[name]]
    assert changed == ["scheduler"]
    assert workers
    assert [worker for worker in workers if worker.is_running()] == []
    assert leaks(home) == set()
