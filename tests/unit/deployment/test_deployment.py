"""The embedded Airflow: its secrets, its environment, its processes, its port."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from naviglio.config.home import Home
from naviglio.deployment import airflow, settings
from naviglio.deployment.processes import Process
from naviglio.errors import ConfigError


def _place(folder: Path, port: int = 8080) -> settings.Place:
    home = Home(root=folder, pipelines=folder / "pipelines")
    return settings.Place(home=home, port=port)


def test_secrets_are_made_once_for_the_owner_only(tmp_path: Path) -> None:
    """A second start finds the same secrets, in files that nobody else can read."""
    place = _place(tmp_path)
    assert settings.make_secrets(place) == settings.make_secrets(place)
    for name in ("secrets.json", "passwords.json"):
        assert stat.S_IMODE((place.folder / name).stat().st_mode) == 0o600
    assert len(settings.password(place)) >= 20


def test_the_environment_is_the_homes(tmp_path: Path) -> None:
    """Airflow sees this home and database, and no setting of another Airflow."""
    place = _place(tmp_path, 8099)
    url = "postgresql://a:b@/airflow?host=/s"
    made = settings.environment(place, url, {"AIRFLOW__CORE__EXECUTOR": "x", "LANG": "C"})
    assert made["NAVIGLIO_HOME"] == str(tmp_path)
    assert made["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert made["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg://a:b@/")
    assert made["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert made["LANG"] == "C"


def test_a_stranger_with_the_noted_id_is_not_ours(tmp_path: Path) -> None:
    """A process id that went to another process is neither shown as running nor ended."""
    (tmp_path / "scheduler.pid").write_text(json.dumps({"pid": os.getpid(), "started": 1.0}))
    process = Process(tmp_path, "scheduler")
    assert process.found() is None
    assert not process.stop()


def test_a_process_is_started_found_and_ended(tmp_path: Path) -> None:
    """What was started is found by another caller and gone after its end."""
    Process(tmp_path, "p").start([sys.executable, "-c", "import time; time.sleep(60)"], os.environ)
    assert Process(tmp_path, "p").found() is not None
    assert Process(tmp_path, "p").stop()
    assert Process(tmp_path, "p").found() is None


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """The message says which port is taken and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"{port}.*NAVIGLIO_AIRFLOW_PORT"):
            airflow._check_port(_place(tmp_path, port))


def test_a_socket_connection_becomes_airflows() -> None:
    """A URL over a socket folder names it as the host, with the password decoded."""
    made = airflow.connections({"warehouse": "postgresql://u:a%2Fb@/w?host=%2Frun%2Fs&port=5432"})
    assert made["warehouse"]["host"] == "/run/s"
    assert made["warehouse"]["password"] == "a/b"
    assert made["spark_default"]["host"] == "local[*]"
