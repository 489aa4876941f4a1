"""What the embedded cluster promises about its life, its settings and its roles."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import adbc_driver_postgresql.dbapi
import psutil
import psycopg
import pytest
from psycopg import errors

from naviglio.adapters.postgres import embedded
from naviglio.adapters.postgres.account import Account
from naviglio.adapters.postgres.embedded import Cluster
from naviglio.errors import ConfigError

INCLUDE = str(Path(__file__).parents[2] / "include")
START = "import sys, pathlib; from naviglio.adapters.postgres.embedded import Cluster;"
START += "c = Cluster(pathlib.Path(sys.argv[1])); c.start(); print(c.urls()['admin'], flush=True);"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster for one test, not started."""
    made = Cluster(tmp_path / "pg")
    yield made
    made.stop()


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A folder that every account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="naviglio-open-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def ask(url: str, statement: str, **connection: str) -> str:
    """Return the one value of a query."""
    with psycopg.connect(url, **connection) as session:  # type: ignore[arg-type]
        row = session.execute(statement.encode()).fetchone()
    assert row is not None
    return str(row[0])


def do(url: str, *statements: str) -> None:
    """Execute statements, each in a transaction of its own."""
    with psycopg.connect(url, autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


def starter(home: Path, then: str = "", **variables: str) -> subprocess.Popen[str]:
    """Start a cluster from a process in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", START + then, str(home)],
        env={"PYTHONPATH": INCLUDE, "PATH": os.defpath, **variables},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def postmaster(cluster: Cluster) -> int:
    """Return the server's process id."""
    return int((cluster.home / "data" / "postmaster.pid").read_text().splitlines()[0])


def kill(cluster: Cluster) -> None:
    """End the server as a power cut would, its children not asked."""
    pid = postmaster(cluster)
    os.kill(pid, signal.SIGKILL)
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def as_nobody(act: Callable[[], object]) -> str:
    """Do something in a forked process of an ordinary user; return its result or error as text."""
    nobody = pwd.getpwnam("nobody")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
            os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
            os.write(writing, str(act()).encode())
        except BaseException as problem:  # noqa: BLE001 - told to the parent
            os.write(writing, f"{type(problem).__name__}: {problem}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


# --- life -----------------------------------------------------------------------------------------


def test_processes_that_start_at_once_share_one_cluster(own: Cluster) -> None:
    """Whoever comes first creates it; all get the same passwords and the same server."""
    starters = [starter(own.home) for _ in range(3)]
    answers = {process.communicate()[0].strip() for process in starters}

    assert answers == {own.urls()["admin"]}
    assert ask(own.urls()["admin"], "SELECT 1") == "1"


def test_the_server_outlives_its_starter_and_its_terminal(own: Cluster) -> None:
    """Killing the whole session of the process that started it does not reach the server."""
    process = starter(own.home, "import time; time.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    assert own.running()
    assert ask(own.urls()["operations"], "SELECT 1") == "1"


def test_stop_leaves_no_process_and_keeps_the_data(own: Cluster) -> None:
    """After a stop nothing runs; after the next start everything is there; both may be repeated."""
    own.start()
    do(own.urls()["operations_app"], "CREATE TABLE kept AS SELECT 7 AS n")
    server = psutil.Process(postmaster(own))
    family = [server, *server.children()]

    own.stop()
    own.stop()

    gone, alive = psutil.wait_procs(family, timeout=5)
    assert len(gone) == len(family)
    assert not alive
    assert not own.running()
    assert not list((own.home / "socket").iterdir())
    own.start()
    own.start()
    assert ask(own.urls()["operations"], "SELECT n FROM kept") == "7"


def test_a_killed_server_starts_again_with_what_was_committed(own: Cluster) -> None:
    """Neither kill -9 nor its process id, given to a stranger since, is in the way."""
    own.start()
    do(own.urls()["operations_app"], "CREATE TABLE kept AS SELECT 7 AS n")
    kill(own)
    assert not own.running()
    pid_file = own.home / "data" / "postmaster.pid"
    _, _, rest = pid_file.read_text().partition("\n")
    pid_file.write_text(f"{os.getpid()}\n{rest}")
    assert not own.running()

    own.start()

    assert ask(own.urls()["operations"], "SELECT n FROM kept") == "7"


def test_no_second_server_beside_children_of_a_killed_one(own: Cluster) -> None:
    """While a session of the killed server can still write, the new one waits for its end."""
    own.start()
    session = psycopg.connect(own.urls()["operations_app"])
    backend = session.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    kill(own)
    starting = threading.Thread(target=own.start)
    starting.start()
    try:
        time.sleep(0.7)
        assert not own.running()
    finally:
        os.kill(backend, signal.SIGKILL)
        starting.join(20)
        session.close()
    assert own.running()


@pytest.mark.parametrize("name", ["d" * 60 + "/" + "e" * 60, "a comma, 'quotes' & more"])
def test_any_folder_will_do(tmp_path: Path, name: str) -> None:
    """Too long or oddly named for a socket: it lives elsewhere, and every process agrees where."""
    odd = Cluster(tmp_path / name)
    odd.start()
    try:
        with starter(odd.home, TMPDIR="/var/tmp") as other:  # noqa: S108 - another one than here
            assert other.communicate()[0].strip() == odd.urls()["admin"]
        assert ask(odd.urls()["warehouse"], "SELECT 1") == "1"
        sockets = Path(ask(odd.urls()["admin"], "SHOW unix_socket_directories").strip('"'))
        assert sockets.stat().st_mode & 0o777 == 0o700
    finally:
        odd.stop()
    assert not sockets.exists()


def test_a_stopped_cluster_may_be_moved(own: Cluster, tmp_path: Path) -> None:
    """Nothing in the folder depends on where it lies."""
    own.start()
    own.stop()
    moved = Cluster(own.home.rename(tmp_path / "moved"))
    moved.start()
    try:
        assert ask(moved.urls()["warehouse"], "SELECT 1") == "1"
    finally:
        moved.stop()


def test_a_cleared_socket_folder_is_made_again(own: Cluster) -> None:
    """A server that nobody can reach any more is replaced by one that answers."""
    own.start()
    shutil.rmtree(own.home / "socket")

    own.start()

    assert ask(own.urls()["operations"], "SELECT 1") == "1"


# --- accounts -------------------------------------------------------------------------------------


@needs_root
def test_an_ordinary_user_has_a_cluster_that_root_runs_as_that_user(open_home: Path) -> None:
    """The server runs as the owner of its data, whoever starts it."""
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(open_home, nobody, -1)
    its = Cluster(open_home / "pg")

    def live() -> str:
        its.start()
        answer = ask(its.urls()["operations"], "SELECT current_user")
        its.stop()
        return answer

    assert as_nobody(live) == "naviglio_source"
    its.start()
    try:
        assert psutil.Process(postmaster(its)).uids().real == nobody
        assert ask(its.urls()["warehouse"], "SELECT 1") == "1"
    finally:
        its.stop()


@needs_root
def test_a_folder_of_another_user_is_refused(own: Cluster, open_home: Path) -> None:
    """An ordinary user who meets root's cluster is told whose it is, or that it is closed."""
    theirs = Cluster(open_home / "pg")
    theirs.start()
    theirs.stop()

    assert as_nobody(theirs.start).startswith("ConfigError")
    assert as_nobody(theirs.urls).startswith("ConfigError")


@needs_root
def test_root_without_user_namespaces_runs_it_as_nobody(
    open_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data and socket are that account's; passwords stay root's; a closed folder is named."""
    nobody = pwd.getpwnam("nobody")
    chosen = Account(nobody.pw_uid, nobody.pw_gid)
    monkeypatch.setattr(embedded, "account_for", lambda _data: chosen)
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match="cannot enter this folder"):
        Cluster(tmp_path / "pg").start()
    reached = Cluster(open_home / "pg")
    reached.start()
    try:
        assert psutil.Process(postmaster(reached)).uids().real == nobody.pw_uid
        assert ask(reached.urls()["operations"], "SELECT 1") == "1"
        assert (reached.home / "passwords.json").stat().st_uid == 0
        assert as_nobody(reached.urls).startswith("ConfigError")
    finally:
        reached.stop()


# --- settings and rights --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("wal_level", "logical"),
        ("max_prepared_transactions", "16"),
        ("track_commit_timestamp", "on"),
        ("max_connections", "100"),
        ("fsync", "on"),
        ("listen_addresses", ""),
        ("password_encryption", "scram-sha-256"),
        ("TimeZone", "UTC"),
        ("server_encoding", "UTF8"),
    ],
)
def test_settings_are_in_effect(cluster: Cluster, setting: str, value: str) -> None:
    """What the capture ways rely on is on from the first start."""
    assert ask(cluster.urls()["operations"], f"SHOW {setting}") == value


def test_every_url_serves_both_drivers(cluster: Cluster) -> None:
    """The same URL opens psycopg and ADBC."""
    for url in cluster.urls().values():
        with (
            adbc_driver_postgresql.dbapi.connect(url) as session,
            session.cursor() as cursor,
        ):
            cursor.execute("SELECT current_user::text")
            assert cursor.fetchone() == (ask(url, "SELECT current_user"),)


def test_a_wrong_password_fails(cluster: Cluster) -> None:
    """No role is trusted, the superuser least of all."""
    for url in cluster.urls().values():
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            ask(url, "SELECT 1", password="guessed")


def test_secrets_are_for_the_owner_alone(cluster: Cluster) -> None:
    """Passwords, data and socket are closed to others, and no log holds a password."""
    for name, mode in {"passwords.json": 0o600, "data": 0o700, "socket": 0o700}.items():
        assert (cluster.home / name).stat().st_mode & 0o777 == mode
    log = (cluster.home / "server.log").read_text()
    assert "SCRAM" not in log
    assert "PASSWORD" not in log


def test_the_source_role_reads_and_nothing_else(cluster: Cluster) -> None:
    """It sees present and future tables and others' transactions, and can make or change none."""
    urls = cluster.urls()
    do(urls["operations_app"], "CREATE TABLE embedded_rights (n int)")
    with psycopg.connect(urls["operations_app"]) as application:
        application.execute("SELECT 1")
        held = ask(
            urls["operations"],
            "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL"
            f" AND pid = {application.info.backend_pid}",
        )
    assert held == "1"
    assert ask(urls["operations"], "SELECT count(*) FROM embedded_rights") == "0"
    for statement in (
        "INSERT INTO embedded_rights VALUES (1)",
        "UPDATE embedded_rights SET n = 2",
        "DELETE FROM embedded_rights",
        "TRUNCATE embedded_rights",
        "DROP TABLE embedded_rights",
        "CREATE TABLE mine (n int)",
        "CREATE TEMPORARY TABLE mine (n int)",
        "CREATE SCHEMA mine",
        "CREATE DATABASE mine",
        "SET ROLE operations_app",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            do(urls["operations"], statement)
    do(urls["operations_app"], "DROP TABLE embedded_rights")


@pytest.mark.parametrize(
    ("role", "closed"),
    [
        ("operations", ["warehouse", "airflow", "postgres", "template1"]),
        ("operations_app", ["warehouse", "airflow", "postgres", "template1"]),
        ("warehouse", ["operations", "airflow", "postgres", "template1"]),
        ("airflow_db", ["operations", "warehouse", "postgres", "template1"]),
    ],
)
def test_a_role_enters_its_own_database_only(
    cluster: Cluster, role: str, closed: list[str]
) -> None:
    """Nobody but the superuser connects to two databases."""
    for database in closed:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            ask(cluster.urls()[role], "SELECT 1", dbname=database)


def test_the_target_role_makes_schemas_and_tables_but_no_roles(cluster: Cluster) -> None:
    """It owns its staging schema and creates targets; the server itself is closed to it."""
    url = cluster.urls()["warehouse"]
    for name in ("naviglio.embedded_rights", "public.embedded_rights"):
        do(url, f"CREATE TABLE {name} (n int)", f"DROP TABLE {name}")
    do(url, "CREATE SCHEMA embedded_rights", "DROP SCHEMA embedded_rights")
    for statement in ("CREATE ROLE mine", "ALTER SYSTEM SET fsync = off", "CREATE DATABASE mine"):
        with pytest.raises(errors.InsufficientPrivilege):
            do(url, statement)
