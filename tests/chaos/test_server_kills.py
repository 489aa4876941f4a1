"""What happens in the servers: orphaned statements, ended sessions, a killed database server."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.errors import RetryableError
from naviglio.points import listening
from tests.chaos.scene import Scene, may_retry
from tests.chaos.victim import How, Way

FULL = bool(os.environ.get("NAVIGLIO_CHAOS_FULL"))
BIG = 24_000  # rows whose capture and staging take several batches
HOWS: tuple[How, ...] = ("kill", "stop")
IN_STAGING = "batch: load"
full_only = pytest.mark.skipif(not FULL, reason="the whole matrix runs by `make chaos`")


@contextmanager
def begun(cluster: Cluster, folder: Path, way: Way) -> Iterator[Scene]:
    """Make a table whose first run is done, with changes that no run has seen yet."""
    scene = Scene(cluster.urls(), folder, way)
    try:
        assert scene.run() is None
        scene.live()
        yield scene
    finally:
        scene.close()


def until(condition: Callable[[], object], limit_s: float = 30) -> None:
    """Wait for a condition."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.01)


# --- files and staging half written -------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS if FULL else HOWS[:1])
@pytest.mark.parametrize("where", ["batch: capture", IN_STAGING] if FULL else [IN_STAGING])
def test_struck_among_batches(where: str, how: How, cluster: Cluster, tmp_path: Path) -> None:
    """A file or a staging table that is half written is nothing, and goes away."""
    with begun(cluster, tmp_path, "stream") as scene:
        scene.insert(1_000, 1_000 + BIG, note_bytes=512)
        scene.newest = 1_000 + BIG
        with scene.victim(where, how, nth=2) as victim:
            assert victim.struck()
            if how == "stop":
                assert scene.run() is None
                before = scene.state()
                victim.wake()
                assert victim.end().well
                assert scene.state() == before
            assert victim.end().struck
        scene.heal()


# --- the target's server works on for a dead client ----------------------------------------------


def _waits(scene: Scene, condition: str) -> int | None:
    """Return the session of the warehouse that waits like this."""
    found = scene.admin.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = 'warehouse' AND application_name ="
        f" 'naviglio' AND state = 'active' AND {condition}".encode()
    ).fetchone()
    return found[0] if found else None


@pytest.mark.parametrize("how", HOWS if FULL else HOWS[:1])
def test_struck_while_the_server_merges(how: How, cluster: Cluster, tmp_path: Path) -> None:
    """The server finishes the statement of a client that is gone, and commits none of it."""
    with begun(cluster, tmp_path, "diff") as scene:
        with (
            scene.victim("", "", lock_wait_s=20) as victim,
            psycopg.connect(scene.urls["warehouse"]) as holder,
        ):
            holder.execute(f"LOCK TABLE kills.{scene.table} IN SHARE MODE")
            ledger = scene.state().ledger
            until(lambda: _waits(scene, "wait_event_type = 'Lock'"))
            victim.kill() if how == "kill" else victim.freeze()
            waited = scene.run(lock_wait_s=0.5)
            assert isinstance(waited, RetryableError), waited
            holder.rollback()
            if how == "stop":
                victim.wake()
                assert victim.end().well
            else:
                assert scene.state().ledger == ledger
        scene.heal()


@full_only
def test_the_server_notices_a_dead_client(cluster: Cluster, tmp_path: Path) -> None:
    """A statement that waits for a dead client's sake ends, with its locks, after some seconds."""
    with begun(cluster, tmp_path, "stream") as scene:
        with (
            scene.victim("", "", lock_wait_s=60) as victim,
            psycopg.connect(scene.urls["warehouse"]) as holder,
        ):
            holder.execute(f"LOCK TABLE kills.{scene.table} IN SHARE MODE")
            until(lambda: _waits(scene, "wait_event_type = 'Lock'"))
            orphan = _waits(scene, "wait_event_type = 'Lock'")
            victim.kill()
            assert isinstance(scene.run(lock_wait_s=0.5), RetryableError)
            until(lambda: _waits(scene, f"pid = {orphan}") is None, limit_s=20)
        scene.heal()


@pytest.mark.parametrize("how", HOWS if FULL else HOWS[1:])
def test_struck_while_the_server_commits(how: How, cluster: Cluster, tmp_path: Path) -> None:
    """A commit that the client never heard of counts; the next run finds it, and nothing to do."""
    with begun(cluster, tmp_path, "verify") as scene, _slow_commit(scene):
        before = scene.state()
        with scene.victim("", "") as victim:
            until(lambda: _waits(scene, "wait_event = 'PgSleep'"))
            victim.kill() if how == "kill" else victim.freeze()
            assert scene.run() is None  # waits for the lock, then finds that another was faster
            after = scene.state()
            assert after.ledger != before.ledger
            if how == "stop":
                victim.wake()
                end = victim.end()
                assert end.runs == (("NoneType", "object", "None"),)
            assert scene.state() == after
        scene.heal()


@contextmanager
def _slow_commit(scene: Scene) -> Iterator[None]:
    """Let the commits of this target's loads take a second and a half."""
    name = f"slow_{scene.table}"
    scene.admin.execute(
        f"CREATE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END$$".encode()
    )
    scene.admin.execute(
        f"CREATE CONSTRAINT TRIGGER {name} AFTER INSERT OR UPDATE ON naviglio.ledger DEFERRABLE"
        f" INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.target = 'kills.{scene.table}')"
        f" EXECUTE FUNCTION public.{name}()".encode()
    )
    try:
        yield
    finally:
        scene.admin.execute(f"DROP FUNCTION public.{name} CASCADE".encode())


# --- sessions that the server ends ---------------------------------------------------------------

ENDED = [
    ("capture: after head", "diff"), ("capture: after snapshot", "stream"),
    ("capture: after files", "diff"), ("load: after staging", "verify"),
    ("load: before commit", "stream"), ("load: after commit", "diff"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "way"), ENDED if FULL else ENDED[1:2])
def test_the_server_ends_the_sessions(
    where: str, way: Way, cluster: Cluster, tmp_path: Path
) -> None:
    """A run whose sessions an administrator ends may be tried again, or needs them no more."""
    with begun(cluster, tmp_path, way) as scene:
        with scene.victim(where, "stop") as victim:
            assert victim.struck()
            scene.admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name LIKE 'naviglio%'"
            )
            victim.wake()
            assert victim.end().well
        scene.heal()


# --- the whole server, killed --------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A server that nobody else uses."""
    home = Path(tempfile.mkdtemp(prefix="naviglio-kills-"))
    made = Cluster(home)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(home)


def _crash(cluster: Cluster) -> None:
    """Kill the server as a power cut would, and start it again."""
    line = (cluster.home / "data" / "postmaster.pid").read_text().splitlines()[0]
    os.kill(int(line), signal.SIGKILL)
    until(lambda: not cluster.running())  # the signal takes a moment
    cluster.start()


CRASHED = [
    ("load: before commit", "stream"), ("capture: after snapshot", "diff"),
    ("batch: capture", "stream"), ("capture: after manifest", "stream"),
    ("load: after staging", "verify"), ("load: after commit", "diff"),
]  # fmt: skip


@full_only
@pytest.mark.parametrize(("where", "way"), CRASHED)
def test_the_server_is_killed(where: str, way: Way, own_cluster: Cluster, tmp_path: Path) -> None:
    """After a crash of source and target the run may be tried again, and the next one heals."""
    with begun(own_cluster, tmp_path, way) as scene:
        with scene.victim(where, "stop") as victim:
            assert victim.struck()
            _crash(own_cluster)
            victim.wake()
            assert victim.end().well
        scene.connect()
        scene.heal()


def test_a_crash_does_not_look_like_a_restored_source(own_cluster: Cluster, tmp_path: Path) -> None:
    """What the source's server had not written yet when it crashed was no part of its history."""
    with begun(own_cluster, tmp_path, "diff") as scene, _lazy_log(scene):
        with psycopg.connect(scene.urls["operations_app"]) as unfinished:

            def happen(point: str) -> None:
                if point == "capture: after fence":
                    unfinished.execute(
                        f"INSERT INTO {scene.table} (id, day, counter, note)"
                        " SELECT i, now(), 0, 'never' FROM generate_series(100001, 103000) i"
                    )
                elif point == "capture: after manifest":
                    _crash(own_cluster)

            with listening(happen):
                assert may_retry(scene.run())
            unfinished.close()
        scene.connect()
        assert scene.run() is None
        scene.heal()


@contextmanager
def _lazy_log(scene: Scene) -> Iterator[None]:
    """Let the server write its log only when a commit asks for it, as a busy one may."""
    settings = {"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
    for name, setting in settings.items():
        scene.admin.execute(f"ALTER SYSTEM SET {name} = '{setting}'".encode())
    scene.admin.execute("SELECT pg_reload_conf()")
    time.sleep(0.5)  # the log's writer finishes its last sleep
    try:
        yield
    finally:
        for name in settings:
            scene.admin.execute(f"ALTER SYSTEM RESET {name}".encode())
        scene.admin.execute("SELECT pg_reload_conf()")
