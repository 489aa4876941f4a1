"""A real embedded Airflow: it runs the pipeline, and survives kills."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import psutil
import psycopg
import pytest

from naviglio.config.home import Home
from naviglio.config.pipeline import load_pipeline
from naviglio.connections.connections import Connections, variable_of
from naviglio.demo.advance import advance
from naviglio.deployment import airflow
from naviglio.flows import embedded
from naviglio.flows.reconcile import reconcile
from naviglio.flows.site import open_site
from tests.e2e.conftest import Running
from tests.e2e.sweep import leaks

DAG, FOLLOWER = "naviglio_flights", "naviglio_mart"
DAYS = ("2013-01-01", "2013-01-02")


def _windows(home: Home, group: str) -> list[str]:
    """Return the days that batches of a group have read as windows, in order."""
    manifests = sorted((home.landing / "flights" / group / "manifests").glob("*.json"))
    parts = [part for path in manifests for part in json.loads(path.read_bytes())["parts"]]
    return sorted(w["start"][:10] for part in parts for w in part["windows"])


def _rows(home: Home) -> list[tuple[object, ...]]:
    with psycopg.connect(embedded.urls(home)["warehouse"]) as connection:
        return [
            *connection.execute("SELECT * FROM flights.daily_delays ORDER BY 1, 2, 3"),
            *connection.execute("SELECT * FROM flights.flights ORDER BY 1, 2, 3"),
        ]


def _delays_computed_otherwise(home: Home) -> list[tuple[object, ...]]:
    """Compute what the transform should say, in the source's database from the source's rows."""
    with psycopg.connect(embedded.urls(home)["operations_app"]) as connection:
        return connection.execute(
            "SELECT (time_hour AT TIME ZONE 'America/New_York')::date, carrier, origin, count(*),"
            " count(*) FILTER (WHERE dep_time IS NULL), round(avg(dep_delay), 9)"
            " FROM flights GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ).fetchall()


def _spark_of(task: psutil.Process) -> list[psutil.Process]:
    found = task.children(recursive=True) if task.is_running() else []
    return [child for child in found if "java" in child.name()]


def _agrees(home: Home) -> None:
    """Source, lake and target hold the same, and the transform is what it should be."""
    pipeline = load_pipeline(home.pipelines / "flights.yaml")
    environ = {variable_of(name): url for name, url in embedded.urls(home).items()}
    with open_site(pipeline, home, Connections(environ, None)) as site:
        verdicts = [v for group in pipeline.landings for v in reconcile(site, group)]
    assert [v for v in verdicts if not v.ok] == []
    assert len(verdicts) == 5 + 5 + 2
    with psycopg.connect(embedded.urls(home)["warehouse"]) as connection:
        told = connection.execute(
            "SELECT day, carrier, origin, flights, not_departed,"
            " round(mean_departure_delay::numeric, 9) FROM flights.daily_delays ORDER BY 1, 2, 3"
        ).fetchall()
    assert told == _delays_computed_otherwise(home)


@pytest.mark.timeout(600)
def test_airflow_runs_the_pipeline_and_heals(running: Running) -> None:
    """Runs by hand, by a watch, by assets and of a backfill; a task and the scheduler are killed.

    A backfill reads its days again, changing nothing. A killed task is tried again. After a kill -9
    only the killed process is new, and its workers are gone, though two starts came at once. No
    log, XCom or other trace of it all shows a password.
    """
    home, place, api = running.home, running.place, running.api
    first = airflow.start(place, print)
    for dag in (DAG, FOLLOWER):
        api.ready(dag)
    ran = api.ended(DAG, api.trigger(DAG))
    assert (ran.state, {*ran.tasks.values()}) == ("success", {"success"})
    _agrees(home)
    api.until(lambda: api.keys(FOLLOWER) == {*DAYS, "2013-01-03"}, "the follower lags")

    before = _rows(home)
    again = [api.ended(DAG, run) for run in api.runs_of(api.backfill(DAG, *DAYS), DAG)]
    assert [run.state for run in again] == ["success", "success"]
    assert [_windows(home, group) for group in ("flights", "weather")] == [[*DAYS], [*DAYS]]
    assert _windows(home, "registry") == []
    assert _rows(home) == before

    known = api.runs(DAG)
    api.ready(f"{DAG}.watch")
    advance(running.url("operations_app"), 1)
    started = api.next_run(DAG, known)
    psutil.Process(api.running(DAG, started, "transforms.transform")).kill()
    healed_run = api.ended(DAG, started)
    assert (healed_run.state, {*healed_run.tasks.values()}) == ("success", {"success"})
    _agrees(home)
    api.until(lambda: "2013-01-04" in api.keys(FOLLOWER), "the follower lags")

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
    _agrees(home)

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
