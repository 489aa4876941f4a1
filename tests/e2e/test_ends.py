"""Tasks that are ended or killed in the middle: what they leave, and what comes nonetheless."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import psycopg
import pytest

from naviglio.demo.advance import advance
from naviglio.deployment.rest import Run
from naviglio.errors import TargetError
from tests.e2e.conftest import Running

DAG = "naviglio_flights"
TABLES = ["flights"]  # alone: no Spark then
LATE_S = 30.0  # a server asks every 10 s whether its client is still there


@contextmanager
def _locked(url: str, table: str) -> Iterator[None]:
    """Keep everybody else out of a table."""
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield
        connection.rollback()


def _sessions(running: Running) -> list[tuple[object, ...]]:
    """Return what Naviglio's sessions at source and target do, as the server sees it."""
    return running.rows(
        "operations",  # who may see others' sessions
        "SELECT datname, application_name, state FROM pg_stat_activity"
        " WHERE application_name LIKE 'naviglio%' AND backend_type = 'client backend'",
    )


def _ended_by_the_button(running: Running, task: str, url: str, table: str) -> None:
    """Let a task wait for a lock, mark it as failed, and see that nothing of it is left."""
    api = running.api
    advance(running.url("operations_app"), 1)
    with _locked(url, table):
        run = api.trigger(DAG, tables=TABLES)
        process = psutil.Process(api.running(DAG, run, task))
        api.until(lambda: _waits(running), f"{task} does not wait for {table}")
        api.fail(DAG, run, task)
        assert psutil.wait_procs([process], timeout=60)[1] == []
        end = time.monotonic() + LATE_S
        while _sessions(running) and time.monotonic() < end:
            time.sleep(0.5)
        assert _sessions(running) == []
    assert api.ended(DAG, run).state == "failed"


def _waits(running: Running) -> bool:
    return bool(
        running.rows(
            "operations",
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND application_name LIKE 'naviglio%'",
        )
    )


@pytest.mark.timeout(600)
def test_the_button_leaves_no_session_file_or_staging_table(running: Running) -> None:
    """A capture and a load, marked as failed while their server holds them; the next run heals."""
    running.api.ready(DAG)
    running.api.pause(f"{DAG}.watch")  # one run at a time
    running.drained(DAG, tables=TABLES)
    _ended_by_the_button(
        running, "flights.capture", running.url("operations_app"), "public.flights"
    )
    _ended_by_the_button(running, "flights.load", running.url("warehouse"), "flights.flights")
    running.drained(DAG, tables=TABLES)
    landing = running.home.landing / "flights" / "flights"
    folders = {path.name.split("-")[0] for path in (landing / "data").iterdir()}
    assert folders == {path.stem for path in (landing / "manifests").glob("*.json")}
    assert running.rows("warehouse", _STAGING) == []
    running.agrees("flights")


_STAGING = "SELECT tablename FROM pg_tables WHERE schemaname = 'naviglio' AND tablename ~ '^s_'"


@pytest.mark.timeout(600)
def test_a_kill_between_the_loads_commit_and_its_event_loses_no_event(running: Running) -> None:
    """The ledger moved, Airflow never heard of it: the retry has nothing to load, and publishes."""
    api = running.api
    api.ready(DAG)
    api.pause(f"{DAG}.watch")
    running.drained(DAG, tables=TABLES)
    told = len(_events(running))
    (day,) = advance(running.url("operations_app"), 1)
    time.sleep(1.2)  # what is younger than the fence's margin waits for the next run
    run = api.trigger(DAG, tables=TABLES)
    before = _version(running)
    task = psutil.Process(api.running(DAG, run, "flights.load"))
    while _version(running) == before:
        time.sleep(0.002)
    task.kill()
    ended: Run = api.ended(DAG, run)
    assert ended.state == "success"
    tried = api.call("GET", f"dags/{DAG}/dagRuns/{run}/taskInstances/flights.load")["try_number"]
    assert tried == 2, "it was killed too late: try again"
    events = _events(running)[told:]
    assert day.day.isoformat() in {event["partition_key"] for event in events}
    for event in events:
        extra = event["extra"]
        assert (extra["table"], extra["version"]) == ("flights", _version(running))
        assert extra["batch"] > 1
        assert extra["rows"] == running.rows("warehouse", _ROWS)[0][0]


_ROWS = "SELECT count(*) FROM flights.flights"


def _version(running: Running) -> int:
    found = running.rows(
        "warehouse", "SELECT version FROM naviglio.ledger WHERE target = 'flights.flights'"
    )
    return int(str(found[0][0]))


def _events(running: Running) -> list[dict[str, Any]]:
    """Return the events of the target of flights, oldest first."""
    name = "warehouse%2Fflights.flights"
    [asset] = running.api.every(f"assets?name_pattern={name}", "assets")
    return running.api.every(
        f"assets/events?asset_id={asset['id']}&order_by=timestamp", "asset_events"
    )


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"tables": ["flight"]}, "'flight' is not one of ['flights', 'weather'"),
        ({"day": "2013-02-30"}, "'2013-02-30' is not a 'date'"),
        ({"verify": "twice"}, "not of type 'boolean'"),
    ],
)
def test_the_form_refuses_what_it_does_not_know(
    running: Running, form: dict[str, Any], said: str
) -> None:
    """Before a run is made, with the values that it knows; a word it lacks fails the run."""
    running.api.ready(DAG)
    with pytest.raises(TargetError, match="Invalid input for param") as refused:
        running.api.trigger(DAG, **form)
    assert said in str(refused.value)


def test_a_misspelt_word_of_the_form_fails_the_run(running: Running) -> None:
    """Airflow takes it; the first tasks don't, and nothing is captured."""
    running.api.ready(DAG)
    ended = running.api.ended(DAG, running.api.trigger(DAG, tabels=["flights"]))
    assert ended.state == "failed"
    assert ended.tasks["flights.capture"] == "failed"
