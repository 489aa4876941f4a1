"""Which sessions are kept, for whom, how long they wait, and that a lost one is made again."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.adapters.postgres.session import SNAPSHOT_NAME
from naviglio.adapters.postgres.snapshot import PostgresSnapshot
from naviglio.adapters.postgres.source import PostgresSource
from naviglio.adapters.postgres.target import PostgresTarget
from naviglio.capture.table import Wish
from naviglio.errors import ConfigError, ContentionError, NaviglioError, RetryableError
from naviglio.flows.replicate import replicate
from naviglio.flows.site import open_site
from naviglio.model import TableName
from naviglio.points import listening
from naviglio.ports import Scan
from tests.integration.lines import DIFF, STREAM, Line, new_line

BIG = "CREATE TABLE big (id int PRIMARY KEY, a text)"


@pytest.fixture
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server of one's own, to restart."""
    made = Cluster(tmp_path_factory.mktemp("fragile"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def source(cluster: Cluster, **said: object) -> PostgresSource:
    """Open the source with these parameters in its URL."""
    more = "".join(f"&{name}={value}" for name, value in said.items())
    return PostgresSource(cluster.urls()["operations"] + more)


def asked(snapshot: PostgresSnapshot, query: str) -> Any:
    """Ask the server something in a snapshot's own session."""
    ((value,),) = snapshot._columns(f"SELECT {query} AS v")
    return value


def pid_of(opened: PostgresSource) -> int:
    """Return the process that serves a snapshot."""
    with opened.snapshot() as snapshot:
        return int(asked(snapshot, "pg_backend_pid()"))


def states(cluster: Cluster) -> list[tuple[Any, ...]]:
    """Return what the server says of all sessions that snapshots have, once it says so twice."""
    query = (
        "SELECT state, xact_start, backend_xmin::text FROM pg_stat_activity"
        f" WHERE application_name = '{SNAPSHOT_NAME}'"
    )
    with psycopg.connect(cluster.urls()["admin"], autocommit=True) as admin:
        for _ in range(100):
            found = admin.execute(query.encode()).fetchall()
            time.sleep(0.02)
            if found == admin.execute(query.encode()).fetchall():
                break
        return found


KEPT = {"none": "", "own": "again", "shared": "again, other"}


@pytest.mark.parametrize("pool", KEPT)
def test_whose_sessions_are_kept(cluster: Cluster, pool: str) -> None:
    """By nobody; by one client for itself; or by the process for all, beyond their end too."""
    again, other = "again" in KEPT[pool], "other" in KEPT[pool]
    one, two = (source(cluster, pool=pool, application_name="x") for _ in range(2))
    first = pid_of(one)
    assert (pid_of(one) == first) is again
    assert (pid_of(two) == first) is other
    one.close()
    two.close()
    three = source(cluster, pool=pool, application_name="x")
    assert (pid_of(three) == first) is other
    three.close()
    left = [state for state, *_ in states(cluster)]
    assert left == (["idle"] if other else [])


def test_a_session_that_rests_holds_nothing(cluster: Cluster) -> None:
    """No transaction, no snapshot: it holds neither a fence nor a vacuum."""
    opened = source(cluster)
    pid_of(opened)
    assert ("idle", None, None) in states(cluster)
    fence = opened.fence(0.0, None)
    assert fence.held_by == ""
    opened.close()


def test_a_snapshot_stands_from_its_own_begin(cluster: Cluster, line: Line) -> None:
    """Not from when its session was opened or asked whether it is alive."""
    line.source(BIG)
    opened = source(cluster)
    pid_of(opened)
    line.source("INSERT INTO big VALUES (1, 'a')")
    name = TableName(schema=line.name, table="big")
    scan = Scan(table=name, schema=opened.describe(name, ()))
    with opened.snapshot() as snapshot:
        line.source("INSERT INTO big VALUES (2, 'b')")
        assert snapshot.count(scan) in (1, 2)
        counted = snapshot.count(scan)
        line.source("INSERT INTO big VALUES (3, 'c')")
        assert snapshot.count(scan) == counted
    opened.close()


def test_after_an_error_no_session_is_lent_again(cluster: Cluster, line: Line) -> None:
    """Nor after a read that its consumer left: its cancel may hit what comes next."""
    line.source(BIG, "INSERT INTO big SELECT n, repeat('x', 1000) FROM generate_series(1, 60000) n")
    opened = source(cluster)
    name = TableName(schema=line.name, table="big")
    scan = Scan(table=name, schema=opened.describe(name, ()))
    pids = []
    for error in (None, "SELECT no_such_function()", "left"):
        try:
            with opened.snapshot() as snapshot:
                pids.append(asked(snapshot, "pg_backend_pid()"))
                if error == "left":
                    next(iter(snapshot.read(scan)))
                elif error:
                    snapshot._execute(error)
        except NaviglioError:
            assert error is not None
    assert pids[0] == pids[1] != pids[2]
    assert pid_of(opened) not in pids
    opened.close()


def test_a_kept_session_is_its_login_again(cluster: Cluster) -> None:
    """Also where a statement in it took a role, inside the transaction or beside it."""
    opened = source(cluster)
    with psycopg.connect(cluster.urls()["admin"], dbname="operations", autocommit=True) as admin:
        admin.execute("CREATE ROLE taken NOLOGIN")
        admin.execute("GRANT taken TO naviglio_source")
        try:
            with opened.snapshot() as snapshot:
                first = asked(snapshot, "pg_backend_pid()")
                snapshot._execute("SET ROLE taken")
                assert asked(snapshot, "current_user::text") == "taken"
            with opened._asking.session() as asking:
                asking.execute("SET ROLE taken")
            with opened.snapshot() as snapshot, opened._asking.session() as asking:
                assert asked(snapshot, "pg_backend_pid()") == first
                assert asked(snapshot, "current_user::text") == "naviglio_source"
                found = asking.execute("SELECT current_user::text AS me").fetchone()
                assert found == {"me": "naviglio_source"}
        finally:
            opened.close()
            admin.execute("DROP ROLE taken")


def test_a_full_pool_is_told_and_starves_no_other_client(cluster: Cluster) -> None:
    """Who shares waits for who shares; a client of its own doesn't."""
    said = {"pool": "shared", "pool_size": 2, "login_timeout": 1}
    greedy, waiting, own = source(cluster, **said), source(cluster, **said), source(cluster)
    with greedy.snapshot(), greedy.snapshot():
        with (
            pytest.raises(RetryableError, match="all 2 sessions of the pool are in use"),
            waiting.snapshot(),
        ):
            pass
        assert pid_of(own)
    assert pid_of(waiting)
    for opened in (greedy, waiting, own):
        opened.close()


def test_waiting_ends_as_the_url_says(cluster: Cluster, line: Line) -> None:
    """For a lock and for a statement, reading and writing."""
    line.source(BIG)
    name = TableName(schema=line.name, table="big")
    patient = source(cluster)
    scan = Scan(table=name, schema=patient.describe(name, ()))
    patient.close()
    hasty = source(cluster, lock_timeout=1)
    with line.open_source() as holder:
        holder.execute("LOCK TABLE big IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ContentionError), hasty.snapshot() as snapshot:
            snapshot.count(scan)
    hasty.close()
    short = source(cluster, statement_timeout=1)
    with pytest.raises(RetryableError, match="57014"), short.snapshot() as snapshot:
        snapshot._columns("SELECT 1 AS v FROM pg_sleep(30)")
    short.close()
    url = cluster.urls()["warehouse"]
    target = PostgresTarget(url + "&lock_timeout=1&statement_timeout=2")
    settings = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    assert target._connection().execute(settings).fetchone() == ("1s", "2s")
    target.close()


def test_one_session_reads_all_groups_of_a_run(cluster: Cluster, line: Line) -> None:
    """The gain: opening one takes longer than reading a small table."""
    tables = [f"t{n}" for n in range(4)]
    line.source(*(f"CREATE TABLE {name} (id int PRIMARY KEY)" for name in tables))
    line.declare(**dict.fromkeys(tables, DIFF))
    seen: set[int] = set()

    def look(point: str) -> None:
        if point == "capture: after snapshot":
            with psycopg.connect(cluster.urls()["admin"]) as admin:
                query = (
                    "SELECT pid FROM pg_stat_activity WHERE application_name = "
                    f"'{SNAPSHOT_NAME}' AND xact_start IS NOT NULL"
                )
                seen.update(pid for (pid,) in admin.execute(query.encode()))

    with listening(look):
        line.run()
    assert len(seen) == 1


def test_a_server_that_restarts_between_steps_is_met_again(
    fragile: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One open site; source and warehouse restart after capture and after apply; nothing fails."""
    line = new_line(fragile, tmp_path_factory.mktemp("home"))
    line.declare(t=STREAM)
    line.source(
        "CREATE TABLE t (id bigint PRIMARY KEY, name text, modified_at timestamptz DEFAULT now())",
        "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 20) n",
    )
    restarts: list[str] = []

    def restart(point: str) -> None:
        if point in ("capture: after manifest", "apply: after commit"):
            fragile.stop()
            fragile.start()
            restarts.append(point)

    site = line.site()
    with open_site(site.pipeline, site.home, site.connections) as opened, listening(restart):
        (group,) = opened.pipeline.groups
        for change in ("SELECT 1", "UPDATE t SET name = 'b', modified_at = now() WHERE id < 4"):
            line.source(change)
            report = replicate(opened, group, Wish())
            assert report.error is None
    assert restarts == ["capture: after manifest", "apply: after commit"] * 2
    assert line.agrees()


@pytest.fixture
def without_tls() -> Iterator[int]:
    """A port where somebody answers as a PostgreSQL without TLS does; nobody may log in."""
    with socket.create_server(("127.0.0.1", 0)) as listening_at:

        def answer() -> None:
            while True:
                try:
                    client, _ = listening_at.accept()
                except OSError:
                    return
                with client:
                    client.recv(8)
                    client.sendall(b"N")

        threading.Thread(target=answer, daemon=True).start()
        yield listening_at.getsockname()[1]


def test_the_tls_that_a_url_asks_for_is_never_left_out(without_tls: int) -> None:
    """Reading and writing; which is for the configuration, and no password goes over the line."""
    url = f"postgresql://u:secret@127.0.0.1:{without_tls}/d?sslmode=require&login_timeout=5"
    opened = PostgresSource(url)
    questions: list[Callable[[], object]] = [
        lambda: opened.fence(0.0, None),
        lambda: opened.snapshot().__enter__(),
        lambda: PostgresTarget(url).ledger(),
    ]
    for ask in questions:
        with pytest.raises(ConfigError, match="does not support SSL") as caught:
            ask()
        assert "secret" not in str(caught.value)


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    """A login ends after `login_timeout`, reading and writing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d?login_timeout=2"
        begun = time.monotonic()
        with pytest.raises(RetryableError, match="timeout expired"):
            PostgresSource(url).fence(0.0, None)
        with pytest.raises(RetryableError, match="timeout expired"):
            PostgresTarget(url).ledger()
        assert time.monotonic() - begun < 30


def test_a_parameter_that_is_wrong_is_told_without_the_url(cluster: Cluster) -> None:
    """Which one, and what it may be."""
    url = cluster.urls()["operations"]
    secret = conninfo_to_dict(url).get("password") or "-"
    wrong = {
        "pool=mine": "pool is one of none, own, shared",
        "pool_size=1": "pool_size is 2 or more",
        "lock_timeout=soon": "lock_timeout is a number of whole seconds",
    }
    for more, why in wrong.items():
        with pytest.raises(NaviglioError, match=why) as caught:
            PostgresSource(f"{url}&{more}")
        assert str(secret) not in str(caught.value)
