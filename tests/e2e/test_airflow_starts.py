"""A real embedded Airflow: it runs the pipeline, survives a kill, and ends whole."""

from __future__ import annotations

import json
import socket
from datetime import date
from pathlib import Path

import psutil
import psycopg
import pytest

from naviglio.config.home import Home
from naviglio.demo.seed import seed
from naviglio.deployment import airflow
from naviglio.deployment.rest import Airflow
from naviglio.deployment.settings import Place
from naviglio.flows import embedded

CHECKOUT = Path(__file__).parents[2]


DAG = "naviglio_flights"
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


@pytest.mark.timeout(400)
def test_airflow_runs_the_pipeline_heals_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first run carries all and transforms it; a backfill reads its days again, changing nothing.

    After a kill -9 only the killed process is new; after a stop none is left.
    """
    monkeypatch.chdir(CHECKOUT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = Home(root=tmp_path, pipelines=CHECKOUT / "include" / "pipelines")
    place = Place(home=home, port=port)
    try:
        first = airflow.start(place, print)
        assert first.running
        seed(embedded.urls(home)["operations_app"], date(2013, 1, 3), lambda *_: None, reset=True)
        api = Airflow(place)
        api.ready(DAG)
        ran = api.ended(DAG, api.trigger(DAG))
        assert (ran.state, {*ran.tasks.values()}) == ("success", {"success"})
        before = _rows(home)
        with psycopg.connect(embedded.urls(home)["warehouse"]) as connection:
            told = connection.execute(
                "SELECT day, carrier, origin, flights, not_departed,"
                " round(mean_departure_delay::numeric, 9)"
                " FROM flights.daily_delays ORDER BY 1, 2, 3"
            ).fetchall()
        assert told == _delays_computed_otherwise(home)
        again = [api.ended(DAG, run) for run in api.runs_of(api.backfill(DAG, *DAYS), DAG)]
        assert [run.state for run in again] == ["success", "success"]
        assert [_windows(home, group) for group in ("flights", "weather")] == [[*DAYS], [*DAYS]]
        assert _windows(home, "registry") == []
        assert _rows(home) == before
        api.close()
        scheduler = first.processes["scheduler"]
        assert scheduler is not None
        victim = psutil.Process(scheduler)
        victim.kill()
        victim.wait(30)  # a signal takes its time
        healed = airflow.start(place, print).processes
        changed = [name for name in airflow.NAMES if healed[name] != first.processes[name]]
        assert changed == ["scheduler"]
    finally:
        airflow.stop(place)
        embedded.stop(home)
    assert not any(airflow.status(place).processes.values())
