"""One real Airflow for all tests of this folder, over the demo's pipeline and a follower."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import pytest

from naviglio.config.home import Home
from naviglio.config.pipeline import load_pipeline
from naviglio.connections.connections import Connections, variable_of
from naviglio.demo.seed import seed
from naviglio.deployment import airflow, users
from naviglio.deployment.rest import Airflow
from naviglio.deployment.settings import Place, make_secrets
from naviglio.flows import embedded
from naviglio.flows.reconcile import reconcile
from naviglio.flows.site import open_site

CHECKOUT = Path(__file__).parents[2]
# The month of January 2013 takes an hour: `NAVIGLIO_E2E_MONTH=1 pytest tests/e2e/test_backfill.py`.
LAST_DAY = date(2013, 1, 31 if os.environ.get("NAVIGLIO_E2E_MONTH") else 3)
VIEWER = "ann"
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
    """An Airflow at work, with its API; the source holds the first days of 2013."""

    home: Home
    place: Place
    api: Airflow

    def url(self, name: str) -> str:
        """Return a URL of the embedded server."""
        return embedded.urls(self.home)[name]

    def rows(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        """Ask the embedded server as a role of its own."""
        with psycopg.connect(self.url(name)) as connection:
            return connection.execute(statement.encode()).fetchall()

    def drained(self, dag: str, **form: Any) -> None:
        """Let a DAG run once by hand, and well."""
        self.api.ready(dag)
        ran = self.api.ended(dag, self.api.trigger(dag, **form))
        assert ran.state == "success", ran

    def carried(self, dag: str) -> None:
        """Have a DAG's tables at the target, whichever test comes first."""
        if ("ledger",) not in self.rows("warehouse", "SELECT tablename::text FROM pg_tables"):
            self.drained(dag)

    def agrees(self, *groups: str) -> None:
        """Source, lake and target hold the same, row by row; of transforms lake and target."""
        pipeline = load_pipeline(self.home.pipelines / "flights.yaml")
        environ = {variable_of(name): url for name, url in embedded.urls(self.home).items()}
        wanted = [g for g in pipeline.landings if not groups or g.name in groups]
        with open_site(pipeline, self.home, Connections(environ, None)) as site:
            verdicts = [v for group in wanted for v in reconcile(site, group)]
        assert [v for v in verdicts if not v.ok] == []
        assert len(verdicts) == (2 * len(groups) or 5 + 5 + 2)


@pytest.fixture(scope="package")  # it would slow all other tests down
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
    api, before = Airflow(place, limit_s=7200 if LAST_DAY.day > 3 else 600), Path.cwd()
    os.chdir(CHECKOUT)  # as the commands run: Airflow finds dags/ and plugins/ there
    try:
        make_secrets(place)
        users.add(place, VIEWER, "viewer")
        assert airflow.start(place, print).running
        made = Running(home=home, place=place, api=api)
        seed(made.url("operations_app"), LAST_DAY, lambda *_: None, reset=True)
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
