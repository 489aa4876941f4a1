"""One real Airflow for all tests of this folder, over the demo's pipeline and a follower."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from naviglio.config.home import Home
from naviglio.demo.seed import seed
from naviglio.deployment import airflow
from naviglio.deployment.rest import Airflow
from naviglio.deployment.settings import Place
from naviglio.flows import embedded

CHECKOUT = Path(__file__).parents[2]
ONLY_AIRFLOW = "mart_warehouse"  # a connection that Airflow alone knows
MART = f"""
source: warehouse
target: {ONLY_AIRFLOW}
target_schema: mart
schedule: {{assets: [warehouse/flights.daily_delays]}}
tables: {{delays: {{source: flights.daily_delays, capture: diff}}}}
"""


@dataclass(frozen=True, kw_only=True)
class Running:
    """An Airflow at work, with its API; the source holds three days of 2013."""

    home: Home
    place: Place
    api: Airflow

    def url(self, name: str) -> str:
        """Return a URL of the embedded server."""
        return embedded.urls(self.home)[name]


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start everything; stop it at the end, and find no process left."""
    folder = tmp_path_factory.mktemp("e2e")
    for name in ("pipelines", "spark_jobs"):
        shutil.copytree(CHECKOUT / "include" / name, folder / name)
    (folder / "pipelines" / "mart.yaml").write_text(MART)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = Home(root=folder / "home", pipelines=folder / "pipelines")
    place = Place(home=home, port=port)
    api, before = Airflow(place), Path.cwd()
    os.chdir(CHECKOUT)  # as the commands run: Airflow finds dags/ and plugins/ there
    try:
        assert airflow.start(place, print).running
        made = Running(home=home, place=place, api=api)
        seed(made.url("operations_app"), date(2013, 1, 3), lambda *_: None, reset=True)
        api.call("POST", "connections", _connection(ONLY_AIRFLOW, made.url("warehouse")))
        yield made
    finally:
        api.close()
        airflow.stop(place)
        embedded.stop(home)
        os.chdir(before)
    assert not any(airflow.status(place).processes.values())


def _connection(conn_id: str, url: str) -> dict[str, object]:
    """Return a connection as a person would fill Airflow's form for it."""
    parts = urlsplit(url)
    (folder,) = parse_qs(parts.query)["host"]
    return {
        "connection_id": conn_id, "conn_type": "postgres", "host": folder,
        "login": unquote(parts.username or ""), "password": unquote(parts.password or ""),
        "schema": parts.path.lstrip("/"),
    }  # fmt: skip
