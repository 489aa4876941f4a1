"""Airflow's connections become the URLs that adapters take."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from airflow.sdk import Connection
from psycopg.conninfo import conninfo_to_dict

from naviglio.connections.connections import Connections
from naviglio.connections.registry import open_source, open_target
from naviglio.errors import ConfigError
from naviglio_airflow.connections import AirflowConnections, url_of


def test_a_server_by_name() -> None:
    """User, password, host, port, database and options arrive, whatever letters they have."""
    url = url_of(
        Connection(
            conn_id="c", conn_type="postgres", host="db.example", port=5433, login="us er",
            password="p@ss/w:rd", schema="my db", extra=json.dumps({"sslmode": "require"}),
        )
    )  # fmt: skip
    assert conninfo_to_dict(url) == {
        "host": "db.example", "port": "5433", "user": "us er", "password": "p@ss/w:rd",
        "dbname": "my db", "sslmode": "require",
    }  # fmt: skip


def test_a_server_by_its_sockets_folder() -> None:
    """A host that is a folder can't stand in a URL's host."""
    url = url_of(
        Connection(
            conn_id="c", conn_type="postgres", host="/run/my pg", port=5432, login="u",
            password="p", schema="d",
        )
    )  # fmt: skip
    found = conninfo_to_dict(url)
    assert (found["host"], found["port"], found["dbname"]) == ("/run/my pg", "5432", "d")


def test_other_vendors_keep_their_scheme() -> None:
    """The scheme chooses the adapter, and an extra of the UI's form is no option."""
    url = url_of(
        Connection(
            conn_id="c", conn_type="mssql", host="h", schema="d", login="u",
            extra=json.dumps({"__form": "x"}),
        )
    )  # fmt: skip
    assert url == "mssql://u@h/d"


@pytest.mark.parametrize(
    ("said", "adapter"),
    [
        ({"conn_type": "postgres", "host": "h", "schema": "d", "login": "u"}, "postgres"),
        ({"conn_type": "mssql", "host": "h", "schema": "d", "login": "u"}, "mssql"),
        ({"conn_type": "mssqlpython", "host": "h", "schema": "d", "login": "u"}, "mssql"),
        ({"conn_type": "duckdb", "schema": "/srv/w.duckdb"}, "duckdb"),
        ("postgresql://u@h/d", "postgres"),
        ("mssql://u@h/d?encrypt=strict&pool=none", "mssql"),
        ("duckdb:///srv/w.duckdb", "duckdb"),
    ],
)
def test_any_vendor_by_its_connections_id_alone(
    monkeypatch: pytest.MonkeyPatch, said: str | dict[str, str], adapter: str
) -> None:
    """Source and target open as they are declared, by a form or by a URL; nobody is asked yet."""
    declared = said if isinstance(said, str) else json.dumps(said)
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", declared)
    connections = AirflowConnections(Connections({}, None))
    for opened in (open_source("shop", connections), open_target("shop", connections)):
        assert type(opened).__module__.startswith(f"naviglio.adapters.{adapter}.")
        opened.close()


def test_an_id_that_nobody_knows_names_the_known_ones(tmp_path: Path) -> None:
    """The environment of the core is asked after Airflow."""
    environ = {**os.environ, "NAVIGLIO_CONN_MINE": "postgresql://h/d"}
    connections = AirflowConnections(Connections(environ, tmp_path / "connections.yaml"))
    assert connections.url("mine") == "postgresql://h/d"
    with pytest.raises(ConfigError, match=r"known: .*mine"):
        connections.url("nobodys")
