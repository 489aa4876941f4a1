"""A backfill of historical partitions beside live runs: nothing is doubled or moved back."""

from __future__ import annotations

import json
import subprocess
from datetime import date, timedelta
from typing import Any

import pytest

from naviglio.config.home import Home
from naviglio.demo.advance import advance
from naviglio.deployment import airflow
from tests.e2e.conftest import LAST_DAY, Running

DAG = "naviglio_flights"
FIRST_DAY = date(2013, 1, 1)
DAYS = [(FIRST_DAY + timedelta(days=n)).isoformat() for n in range((LAST_DAY - FIRST_DAY).days + 1)]
TABLES = ("flights", "weather", "planes", "airports", "airlines", "daily_delays", "aircraft_use")


def _batches(home: Home, group: str) -> list[dict[str, Any]]:
    """Return the manifests of a group, in order."""
    manifests = sorted((home.landing / "flights" / group / "manifests").glob("*.json"))
    return [json.loads(path.read_bytes()) for path in manifests]


def _streams(home: Home, table: str) -> list[int]:
    """Return the position of a log table after each of its batches."""
    return [m["position"]["tables"][table]["stream"] for m in _batches(home, table)]


def _windows(home: Home, table: str) -> list[str]:
    """Return the days that batches of a log table have read as windows, in order."""
    parts = [part for manifest in _batches(home, table) for part in manifest["parts"]]
    return sorted(window["start"][:10] for part in parts for window in part["windows"])


def _target(running: Running) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of the target as text."""
    return {
        table: running.rows("warehouse", f"SELECT t::text FROM flights.{table} t ORDER BY 1")
        for table in TABLES
    }


def _others(runs: set[str]) -> set[str]:
    return {run for run in runs if not run.startswith("backfill__")}


def _by_command(running: Running) -> int:
    """Create the backfill by Airflow's command line; return its id."""
    command, environ = airflow.command_of(running.place)
    said = subprocess.run(
        [command, "backfill", "create", "--dag-id", DAG, "--from-date", DAYS[0],
         "--to-date", f"{DAYS[-1]}T23:59:00", "--max-active-runs", "3"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    return running.api.newest_backfill(DAG)


@pytest.mark.timeout(6 * 3600 if len(DAYS) > 3 else 1200)
def test_a_backfill_beside_live_runs_changes_nothing(running: Running) -> None:
    """By the command line beside a played day; the completed again, by REST, beside a run.

    Days are read again, positions go on only, registry tables take no part. The second time the
    target's rows stay byte for byte.
    """
    home, api = running.home, running.api
    running.carried(DAG)
    api.ready(DAG)
    api.ready(f"{DAG}.watch")
    registry, known = len(_batches(home, "registry")), api.runs(DAG)

    first = _by_command(running)
    advance(running.url("operations_app"), 1)  # the watch starts a run beside
    api.until(lambda: bool(_others(api.runs(DAG) - known)), "the watch started no run")
    beside = _others(api.runs(DAG) - known)
    assert {api.ended(DAG, run).state for run in beside} == {"success"}
    once = set(api.runs_of(first, DAG))
    running.drained(DAG)
    running.agrees()

    before = _target(running)
    draining = api.trigger(DAG)
    again = set(api.runs_of(api.backfill(DAG, DAYS[0], DAYS[-1]), DAG)) - once
    assert api.ended(DAG, draining).state == "success"
    assert _target(running) == before

    assert (len(once), len(again)) == (len(DAYS), len(DAYS))
    ran = [api.ended(DAG, run) for run in once | again]
    assert {run.state for run in ran} == {"success"}
    assert {run.tasks["registry.capture"] for run in ran} == {"skipped"}
    assert len(_batches(home, "registry")) <= registry + 1  # what the played day changed
    for table in ("flights", "weather"):
        assert _windows(home, table) == sorted(2 * DAYS)
        streams = _streams(home, table)
        assert streams == sorted(streams)
    running.agrees()
