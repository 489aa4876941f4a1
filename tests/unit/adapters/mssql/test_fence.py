"""The fence: which transactions hold it, when they began, and what is said where none is known.

The query over the server's views runs in DuckDB, translated, over tables in their place. What only
a server can show is in tests/contract/test_mssql_source.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import mssql_python
import pytest
import sqlglot

from naviglio.adapters.mssql import fence
from naviglio.adapters.mssql.fence import read_fence, read_version
from naviglio.adapters.mssql.snapshot import MARK
from naviglio.errors import ConfigError
from naviglio.model import Fence
from tests.unit.adapters.mssql.recorder import Recorder
from tests.unit.adapters.mssql.tsql import parsed

NOW = 1_357_041_600_000_000_000  # 2013-01-01 12:00 UTC
S = 10**9
HERE, THERE = 5, 9  # databases
VIEWS = """
CREATE SCHEMA sys;
CREATE TABLE sys.dm_tran_active_transactions (transaction_id BIGINT, transaction_begin_time
  TIMESTAMP, transaction_type INT, transaction_state INT);
CREATE TABLE sys.dm_tran_database_transactions (transaction_id BIGINT, database_id INT,
  database_transaction_state INT);
CREATE TABLE sys.dm_tran_session_transactions (transaction_id BIGINT, session_id INT);
CREATE TABLE sys.dm_exec_sessions (session_id INT, database_id INT, original_login_name TEXT,
  context_info TEXT, program_name TEXT);
CREATE MACRO DB_ID() AS 5; CREATE MACRO CURRENT_TRANSACTION_ID() AS 99;
CREATE MACRO ORIGINAL_LOGIN() AS 'reader';
"""


class Server:
    """The views that the query reads, in DuckDB."""

    def __init__(self) -> None:
        self.database = duckdb.connect()
        self.database.execute(VIEWS)
        (text,) = sqlglot.transpile(fence.OLDEST, read="tsql", write="duckdb")
        mark = fence.SNAPSHOT_MARK
        for there, here in (
            ("TIMESTAMP(7)", "TIMESTAMP"), ("$$SPID", "51"), ("N''", "''"),
            (f"UNHEX('{mark.hex()}')", f"'{mark.decode()}'"),
        ):  # fmt: skip
            assert there in text
            text = text.replace(there, here)
        self.query = text
        self.zone("UTC")

    def zone(self, name: str) -> None:
        """Set the zone of the server's clock."""
        self.database.execute(
            f"CREATE OR REPLACE MACRO CURRENT_TIMEZONE_ID() AS '{name}'; SET TimeZone = 'UTC'"
        )

    def begin(
        self, number: int, at: str, *, session: int | None = 60, of: int = HERE, kind: int = 1,
        state: int = 2, touches: int | None = None, who: tuple[str, str] = ("app", ""),
    ) -> None:  # fmt: skip
        """Open a transaction at a local time, of a session in database `of`: its login and mark."""
        add = self.database.execute
        add("INSERT INTO sys.dm_tran_active_transactions VALUES (?, ?, ?, ?)",
            [number, at, kind, state])  # fmt: skip
        if touches is not None:
            add("INSERT INTO sys.dm_tran_database_transactions VALUES (?, ?, 4)", [number, touches])
        if session is not None:
            add("INSERT INTO sys.dm_tran_session_transactions VALUES (?, ?)", [number, session])
            add("INSERT INTO sys.dm_exec_sessions VALUES (?, ?, ?, ?, 'shop')",
                [session, of, *who])  # fmt: skip

    def oldest(self) -> tuple[Any, ...] | None:
        """Ask."""
        return self.database.execute(self.query).fetchone()

    def clear(self) -> None:
        """End all."""
        for name in ("active", "database", "session"):
            self.database.execute(f"DELETE FROM sys.dm_tran_{name}_transactions")


@pytest.fixture
def server() -> Iterator[Server]:
    """Have no transaction open."""
    made = Server()
    yield made
    made.database.close()


def test_the_oldest_of_the_database_is_found(server: Server) -> None:
    """Of sessions here, whether they touched a table or not, and of others that came here."""
    assert server.oldest() is None
    server.begin(1, "2013-01-01 11:59:00", session=60)
    server.begin(2, "2013-01-01 11:00:00", session=61, of=THERE, touches=THERE)
    assert server.oldest() == (0, 60, "shop", NOW - 60 * S)
    server.begin(3, "2013-01-01 11:58:00", session=62, of=THERE, touches=HERE)
    assert server.oldest() == (0, 62, "shop", NOW - 120 * S)


@pytest.mark.parametrize(
    "other",
    [
        {"number": 99},  # of this very query
        {"session": 51},  # its session
        {"kind": 3},  # the system's
        {"who": ("reader", "naviglio reads")},  # our own snapshot
    ],
)
def test_what_writes_no_row_does_not_hold_it(server: Server, other: dict[str, Any]) -> None:
    """Nor does another database's; only a session of our own login can say it is our snapshot."""
    server.begin(**{"number": 1, "at": "2013-01-01 11:00:00", "touches": HERE, **other})
    assert server.oldest() is None
    server.clear()
    server.begin(2, "2013-01-01 11:00:00", session=70, who=("someone", "naviglio reads"))
    server.begin(3, "2013-01-01 11:30:00", session=71, who=("reader", "naviglio"))
    assert server.oldest() == (0, 70, "shop", NOW - 3600 * S)


@pytest.mark.parametrize("left", [{"state": 5}, {"kind": 4, "session": None}])
def test_a_prepared_or_orphaned_transaction_comes_first(
    server: Server, left: dict[str, Any]
) -> None:
    """However late it says that it began: after a restart that is the restart's time."""
    server.begin(1, "2013-01-01 10:00:00")
    server.begin(**{"number": 2, "at": "2013-01-01 11:59:00", "session": 61, "touches": HERE,
                    **left})  # fmt: skip
    found = server.oldest()
    assert found is not None
    assert found[0] == 1


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
)
def test_a_local_begin_is_never_taken_for_a_later_moment(server: Server, zone: str) -> None:
    """Over a year's changes of the clock: the moment, or at most an hour before, once a year.

    DuckDB takes the later moment of an hour that exists twice, SQL Server documents the earlier.
    """
    server.zone(zone)
    changes = list(changes_of(zone, 2013)) or [datetime(2013, 6, 1, tzinfo=UTC)]
    early: set[timedelta] = set()
    for change in changes:
        for minute in range(-200, 200, 13):
            moment = change + timedelta(minutes=minute, seconds=1)
            local = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
            server.clear()
            server.begin(1, local.isoformat(), session=60)
            found = server.oldest()
            assert found is not None
            told = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=found[3] // 1000)
            assert moment - timedelta(hours=1) <= told <= moment
            early |= {moment - told} if abs(minute) > 121 else set()
    assert early == {timedelta(0)}


def changes_of(zone: str, year: int) -> Iterator[datetime]:
    """Yield the moments of a year at which a zone's offset changes."""
    at = datetime(year, 1, 1, tzinfo=UTC)
    while at.year == year:
        after = at + timedelta(minutes=30)
        if (
            at.astimezone(ZoneInfo(zone)).utcoffset()
            != after.astimezone(ZoneInfo(zone)).utcoffset()
        ):
            yield after
        at = after


def test_every_statement_is_tsql() -> None:
    """Read as such; the clock comes before the transactions."""
    for statement in (fence.CLOCK, fence.OLDEST, fence.VERSION, MARK):
        parsed(statement)


# --- what comes of it ---------------------------------------------------------------------------


def asked(
    *oldest: tuple[Any, ...], edition: int = 3, version: int = 16, denied: str = "",
    updateability: str = "READ_WRITE", margin_s: float = 1.0, safety_lag_s: float | None = None,
) -> Fence:  # fmt: skip
    """Read a fence from a server that answers so."""
    connection = answering(oldest, edition, version, updateability, denied)
    found = read_fence(connection, "database 'x'", margin_s, safety_lag_s)  # type: ignore[arg-type]  # the recorder stands in for the driver's connection
    assert connection.calls[0] == fence.CLOCK
    return found


def answering(
    oldest: tuple[tuple[Any, ...], ...], edition: int, version: int, updateability: str, denied: str
) -> Recorder:
    """Return a connection that answers so."""

    def answer(statement: str) -> Any:
        if statement == fence.CLOCK:
            return [(NOW, updateability, edition, version, "re]ader", "us]er")]
        if statement == fence.OLDEST and denied:
            return mssql_python.ProgrammingError("denied", denied)
        return {fence.OLDEST: oldest, fence.VERSION: [(2001,)]}[statement]

    return Recorder(answer)


def test_without_open_transactions_only_the_margin_holds_it() -> None:
    """Never less than a `datetime`'s tick and the step of Windows' clocks."""
    free = asked(margin_s=1.0)
    assert (free.point, free.latest, free.held_by) == (NOW - S, NOW - S, "")
    assert asked(margin_s=0.0).point == NOW - 20_000_000


def test_an_open_transaction_holds_it() -> None:
    """At its begin less the margin; people are told which one, and where it could be else."""
    held = asked((0, 60, "shop", NOW - 90 * S))
    assert (held.point, held.latest) == (NOW - 91 * S, NOW - S)
    assert held.held_by == "transaction of session 60 (shop), open for 90.0 s"
    assert asked((0, 60, "shop", NOW - S // 2)).held_by == ""
    assert asked((0, 60, "shop", NOW + 5 * S)).point == NOW - S


def test_a_prepared_transaction_stops_it() -> None:
    """Nothing moves until it has ended."""
    held = asked((1, None, "", NOW))
    assert (held.point, held.latest) == (None, NOW - S)
    assert "prepared" in held.held_by


def test_a_declared_lag_is_kept_beside_what_is_known() -> None:
    """The lesser of the two counts, and the lag is on record."""
    assert asked(safety_lag_s=60).point == NOW - 60 * S
    held = asked((0, 60, "shop", NOW - 90 * S), safety_lag_s=60)
    assert (held.point, held.safety_lag_s) == (NOW - 91 * S, 60)


SERVER = "VIEW SERVER STATE permission was denied on object 'server', database 'master'."
CLOUD = "VIEW DATABASE STATE permission denied in database 'x'."


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"denied": SERVER}, r"USE master; GRANT VIEW SERVER STATE TO \[re\]\]ader\]"),
        (
            {"denied": CLOUD, "edition": 5, "version": 12},
            r"GRANT VIEW DATABASE STATE TO \[us\]\]er",
        ),
        ({"version": 15}, "before 2022"),
        ({"updateability": "READ_ONLY"}, "Connect to the primary"),
    ],
)
def test_what_can_not_be_known_needs_a_lag(how: dict[str, Any], told: str) -> None:
    """The error names the next step; a declared lag takes its place, and says so."""
    with pytest.raises(ConfigError, match=told) as refused:
        asked(**how)
    assert "safety_lag" in str(refused.value)
    lagging = asked(**how, safety_lag_s=600.0)
    assert (lagging.point, lagging.held_by) == (NOW - 600 * S, "safety_lag")
    assert lagging.safety_lag_s == 600.0


def test_azure_tells_its_zone_whatever_its_version() -> None:
    """It calls itself version 12."""
    assert asked(edition=5, version=12).point == NOW - S
    assert asked(edition=8, version=12).point == NOW - S


def test_a_row_version_needs_no_right() -> None:
    """The server bounds it; where it can only be read, its writers are elsewhere."""
    connection = answering((), 3, 13, "READ_WRITE", "")
    assert read_version(connection, "x") == 2001  # type: ignore[arg-type]  # as above
    assert fence.OLDEST not in connection.calls
    with pytest.raises(ConfigError, match="primary"):
        read_version(answering((), 3, 16, "READ_ONLY", ""), "x")  # type: ignore[arg-type]  # as above


def test_the_mark_begins_with_the_projects_name() -> None:
    """A DBA finds all sessions by their first eight bytes."""
    digits = re.search(r"0x([0-9a-f]+)", MARK)
    assert digits is not None
    assert bytes.fromhex(digits[1]).startswith(b"naviglio")
