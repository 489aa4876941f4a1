"""The embedded Airflow: its secrets, its environment, its processes, its port."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest

from naviglio.config.home import Home
from naviglio.deployment import airflow, declared, settings, users
from naviglio.deployment.processes import Process
from naviglio.errors import ConfigError
from naviglio.transform.spark import has_java

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# Start a child, and say its id: in a session of its own, as Spark is, or with a title of its own,
# which overwrites its environment, as Airflow's workers are.
OWN_SESSION = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
      start_new_session=True).pid, flush=True)
time.sleep(60)
"""
OWN_TITLE = """
import os, time, setproctitle
child = os.fork()
if not child:
    setproctitle.setproctitle("x" * 5000)
    print(os.getpid(), flush=True)
time.sleep(60)
"""
CHILDREN = pytest.mark.parametrize("child", [OWN_SESSION, OWN_TITLE], ids=["session", "title"])


def _place(folder: Path, port: int = 8080) -> settings.Place:
    home = Home(root=folder, pipelines=folder / "pipelines")
    return settings.Place(home=home, port=port)


def test_secrets_are_made_once_for_the_owner_only(tmp_path: Path) -> None:
    """A second start finds the same secrets, in files that nobody else can read."""
    place = _place(tmp_path)
    assert settings.make_secrets(place) == settings.make_secrets(place)
    for name in ("secrets.json", "passwords.json"):
        assert stat.S_IMODE((place.folder / name).stat().st_mode) == 0o600
    assert len(users.password(place)) >= 20


def test_the_environment_is_the_homes(tmp_path: Path) -> None:
    """Airflow sees this home and database, and no setting of another Airflow."""
    place = _place(tmp_path, 8099)
    url = "postgresql://a:b@/airflow?host=/s"
    made = settings.inherited({"AIRFLOW__CORE__DAGS_FOLDER": "x", "LANG": "C"})
    assert "AIRFLOW__CORE__DAGS_FOLDER" not in made
    made |= settings.environment(place, url)
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
    Process(tmp_path, "p").start(SLEEP, os.environ, {"A": "1"})
    assert Process(tmp_path, "p").found() is not None
    assert Process(tmp_path, "p").told({"A": "1"})
    assert not Process(tmp_path, "p").told({"A": "2"})
    assert Process(tmp_path, "p").stop()
    assert Process(tmp_path, "p").found() is None


def test_a_large_log_is_moved_away_while_it_is_written(tmp_path: Path) -> None:
    """What it held is kept beside it; the process goes on in the same file, from its start."""
    process = Process(tmp_path, "p")
    program = "import sys, time\nwhile True: print('x' * 99, flush=True); time.sleep(0.002)"
    process.start([sys.executable, "-c", program], os.environ, {})
    deadline = time.monotonic() + 20
    while process.log.stat().st_size < 5000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.bound_log(10**9)
    assert not process.log.with_suffix(".log.1").exists()
    process.bound_log(4000)
    moved = process.log.with_suffix(".log.1").stat().st_size
    assert moved >= 5000
    while not process.log.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.log.read_bytes()[:1] == b"x"  # no hole: it appends
    assert process.stop()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """The message says which port is taken and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"{port}.*NAVIGLIO_AIRFLOW_PORT"):
            airflow._check_port(_place(tmp_path, port))


def test_a_socket_connection_becomes_airflows() -> None:
    """A URL over a socket folder names it as the host, with the password decoded."""
    url = "postgresql://u:a%2Fb@/w?host=%2Frun%2Fs&port=5432"
    made = declared.connections({"warehouse": url}, "local[*]", print)
    assert made["warehouse"]["host"] == "/run/s"
    assert made["warehouse"]["password"] == "a/b"
    assert made["spark_default"]["host"] == "local[*]"


def test_options_and_other_kinds_become_airflows() -> None:
    """Options of a URL are the extra; an unclear URL is named by its id, and left out."""
    urls = {
        "shop": "postgresql://u:p@db.example:5433/shop?sslmode=require",
        "dwh": "mssql://sa:x@sql.example/dwh",
        "file": "duckdb:///srv/w/warehouse.duckdb?threads=2",
        "odd": "postgresql://u:p/q@[bad/x",
    }
    said: list[str] = []
    made = declared.connections(urls, "spark://m:7077", said.append)
    assert made["shop"] == {
        "conn_type": "postgres", "host": "db.example", "port": 5433, "login": "u", "password": "p",
        "schema": "shop", "extra": {"sslmode": "require"},
    }  # fmt: skip
    assert (made["dwh"]["conn_type"], made["dwh"]["port"]) == ("mssql", 1433)
    assert made["file"] == {
        "conn_type": "duckdb", "host": "", "login": "", "password": "",
        "schema": "srv/w/warehouse.duckdb", "extra": {"threads": "2"},
    }  # fmt: skip
    assert made["spark_default"]["host"] == "spark://m:7077"
    assert "odd" not in made
    assert len(said) == 1
    assert "odd" in said[0]
    assert "p/q" not in said[0]


def test_sparks_connection_is_declared_with_its_options() -> None:
    """As the provider names them; one that isn't known is refused, and no other is invented."""
    urls = {"spark_default": "yarn?queue=etl&proxy-user=ann"}
    made = declared.connections(urls, "local[*]", print)
    assert made == {
        "spark_default": {
            "conn_type": "spark", "host": "yarn",
            "extra": {"deploy-mode": "client", "queue": "etl", "proxy-user": "ann"},
        }
    }  # fmt: skip
    with pytest.raises(ConfigError, match="'mesos://m'; known"):
        declared.connections({}, "mesos://m", print)


def test_only_what_changed_is_declared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection at first, then those whose URL changed; pools once; no password kept.

    One that became unclear is taken out: a run by the old one would load another warehouse.
    """
    calls: list[tuple[str, set[str]]] = []

    def imported(arguments: list[str], environ: object) -> None:
        del environ
        what, how, *_, last = arguments
        named = {last} if how == "delete" else set(json.loads(Path(last).read_text()))
        calls.append((what if how == "import" else how, named))

    monkeypatch.setattr(declared, "run", imported)
    mark = tmp_path / "declared.json"
    urls = {"a": "postgresql://u:s3cret@h/a", "b": "postgresql://u:s3cret@h/b"}
    other, unclear = "postgresql://u:s3cret@other/b", "postgresql://u:p/q@[bad/x"
    for changed in ({}, {}, {"b": other}, {"c": "postgresql://h/c"}, {"c": unclear}, {}):
        urls |= changed
        declared.declare(mark, urls, {}, lambda _: None)
    assert calls == [
        ("connections", {"spark_default", "a", "b"}),
        ("pools", set(declared.POOLS)),
        ("connections", {"b"}),
        ("connections", {"c"}),
        ("delete", {"c"}),
    ]
    assert "s3cret" not in mark.read_text()


@CHILDREN
def test_what_outlives_a_killed_process_is_ended(tmp_path: Path, child: str) -> None:
    """After a kill -9 its children, in sessions of their own too, are ended by the next start."""
    process = Process(tmp_path, "p")
    orphan = _orphan_of(process, child)
    process.start(SLEEP, os.environ, {})
    assert not orphan.is_running()
    assert process.found() is not None
    assert process.stop()


@CHILDREN
def test_a_stop_ends_orphans_too(tmp_path: Path, child: str) -> None:
    """A stop after a kill -9 leaves nothing, and says that something lived."""
    process = Process(tmp_path, "p")
    orphan = _orphan_of(process, child)
    assert process.stop()
    assert not orphan.is_running()
    assert not process.stop()


def test_the_port_is_remembered(tmp_path: Path) -> None:
    """The port of the last start holds for all commands, unless another one is named."""
    home = Home(root=tmp_path, pipelines=tmp_path)
    assert settings.place_of(home, None, {}).port == 8080
    place = settings.place_of(home, 8099, {})
    place.folder.mkdir()
    settings.remember_port(place)
    assert settings.place_of(home, None, {}).port == 8099
    assert settings.place_of(home, None, {"NAVIGLIO_AIRFLOW_PORT": "8077"}).port == 8077
    assert settings.place_of(home, 8066, {"NAVIGLIO_AIRFLOW_PORT": "8077"}).port == 8066


def _orphan_of(process: Process, program: str) -> psutil.Process:
    """Return the child of a process that was killed."""
    process.start([sys.executable, "-c", program], os.environ, {})
    parent = process.found()
    assert parent is not None
    orphan = psutil.Process(_number_in(process.log))
    parent.kill()
    parent.wait(10)
    assert orphan.is_running()
    return orphan


def _number_in(log: Path) -> int:
    deadline = time.monotonic() + 20
    while not log.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(log.read_text())


def test_a_missing_java_is_seen_before_a_transform_needs_it(tmp_path: Path) -> None:
    """Java counts on the path or in JAVA_HOME; an empty JAVA_HOME is none."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.touch(0o755)
    nothing = str(tmp_path / "nothing")
    assert has_java({"PATH": str(java.parent)})
    assert has_java({"PATH": nothing, "JAVA_HOME": str(tmp_path)})
    assert not has_java({"PATH": nothing, "JAVA_HOME": ""})
