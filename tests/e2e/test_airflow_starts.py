"""A real embedded Airflow: it starts, survives a kill, and ends whole."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from naviglio.config.home import Home
from naviglio.deployment import airflow
from naviglio.deployment.settings import Place
from naviglio.flows import embedded

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_airflow_starts_heals_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill -9 only the killed process is new; after a stop none is left."""
    monkeypatch.chdir(CHECKOUT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = Home(root=tmp_path, pipelines=CHECKOUT / "include" / "pipelines")
    place = Place(home=home, port=port)
    try:
        first = airflow.start(place, print)
        assert first.running
        scheduler = first.processes["scheduler"]
        assert scheduler is not None
        psutil.Process(scheduler).kill()
        again = airflow.start(place, print).processes
        changed = [name for name in airflow.NAMES if again[name] != first.processes[name]]
        assert changed == ["scheduler"]
    finally:
        airflow.stop(place)
        embedded.stop(home)
    assert not any(airflow.status(place).processes.values())
