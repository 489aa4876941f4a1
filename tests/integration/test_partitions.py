"""Runs of partitions, gaps and verification: windows of event time beside stream and diff."""

from __future__ import annotations

from datetime import timedelta

import pytest

from naviglio.capture.table import Wish
from naviglio.model import Window
from tests.integration.lines import DIFF, Line

TABLE = (
    "CREATE TABLE t (id bigint PRIMARY KEY, name text, day timestamptz NOT NULL, "
    "modified_at timestamptz NOT NULL DEFAULT now())"
)
STREAM = "{capture: {where: modified_at}, deletes: none, event_time: day}"
ZONE = "fence_margin: 0s\ntime_zone: America/New_York"


def hours(line: Line, first: str, number: int) -> None:
    """Fill the table with a row an hour."""
    line.source(
        TABLE,
        f"INSERT INTO t SELECT n, 'a', timestamptz '{first}' + n * interval '1 hour' "
        f"FROM generate_series(0, {number - 1}) n",
    )


def test_days_around_clock_changes_are_whole(line: Line) -> None:
    """A spring day has 23 hours, an autumn day 25; days side by side neither overlap nor gap."""
    line.declare(head=ZONE, t=STREAM)
    for month, day, length in ((3, 10, 23), (11, 3, 25)):
        line.source("DROP TABLE IF EXISTS t")
        hours(line, f"2013-{month:02}-{day - 1:02} 00:00 America/New_York", 75)
        line.partitions(f"2013-{month:02}-{day:02}")
        part = line.batches()[-1].parts[0]
        assert part.upserts == length
        [window] = part.windows
        assert window.end - window.start == timedelta(hours=length)
        line.partitions(f"2013-{month:02}-{day - 1:02}", f"2013-{month:02}-{day + 1:02}")
        last = [batch.parts[0] for batch in line.batches()[-3:]]
        assert [p.upserts for p in last] == [24, length, 24]
        assert [p.windows[0].start for p in last[1:]] == [p.windows[0].end for p in last[:-1]]


def test_a_backfill_before_the_first_run(line: Line) -> None:
    """The lake holds the days that were asked for; the first run then reads all."""
    line.declare(t=STREAM)
    hours(line, "2013-01-01 00:00+00", 72)
    line.partitions("2013-01-02")
    assert len(line.lake_rows()) == 24
    assert line.lake_is_target()
    line.run()
    assert line.agrees()


@pytest.mark.parametrize("first", [True, False])
def test_a_day_without_data_changes_nothing(line: Line, *, first: bool) -> None:
    """Before the first run or after it: a batch is on record, rows stay."""
    line.declare(t=STREAM)
    hours(line, "2013-01-01 00:00+00", 24)
    if not first:
        line.run()
    line.partitions("2014-01-01")
    assert line.batches()[-1].parts[0].upserts == 0
    assert len(line.lake_rows()) == (0 if first else 24)
    line.run()
    assert line.agrees()


def test_rows_gone_from_a_window_are_deletes(line: Line) -> None:
    """Even where the stream sees no deletes; other days keep theirs."""
    line.declare(t=STREAM)
    hours(line, "2013-01-01 00:00+00", 48)
    line.run()
    line.source("DELETE FROM t WHERE id IN (1, 2, 30)")
    line.partitions("2013-01-01")
    assert {int(row[0] or 0) for row in line.target_rows()} == set(range(48)) - {1, 2}
    assert line.ledger().deleted == 2
    line.partitions("2013-01-02")
    assert line.agrees()


def test_rows_that_move_between_windows_are_kept_once(line: Line) -> None:
    """Either day read first, alone or after the other: nothing is lost or doubled at the end."""
    line.declare(t=STREAM)
    hours(line, "2013-01-01 00:00+00", 48)
    line.run()
    for first, second in (("2013-01-01", "2013-01-02"), ("2013-01-02", "2013-01-01")):
        line.source(
            "UPDATE t SET day = day + interval '1 day' WHERE id = 3",
            "UPDATE t SET day = day - interval '1 day' WHERE id = 40",
        )
        line.partitions(first)
        assert line.lake_is_target()
        line.partitions(second)
        assert line.agrees()
        line.source(
            "UPDATE t SET day = day - interval '1 day' WHERE id = 3",
            "UPDATE t SET day = day + interval '1 day' WHERE id = 40",
        )
        line.partitions("2013-01-01", "2013-01-02")
        assert line.agrees()


def test_windows_do_not_move_the_stream(line: Line) -> None:
    """What changed before a backfill, in other days, still comes with the next run."""
    line.declare(t=STREAM)
    hours(line, "2013-01-01 00:00+00", 48)
    line.run()
    before = line.batches()[-1].position.tables["t"].stream
    line.source("UPDATE t SET name = 'b', modified_at = now() WHERE id IN (5, 30)")
    line.partitions("2013-01-01")
    assert line.batches()[-1].position.tables["t"].stream == before
    assert {row[0] for row in line.lake_rows() if row[1] == "b"} == {"5"}
    line.run()
    assert line.agrees()


def test_registry_tables_take_no_part(line: Line) -> None:
    """A partition run of a group leaves those without event time as they are."""
    line.declare(head="groups: {both: [t, u]}\nfence_margin: 0s", t=STREAM, u=DIFF)
    hours(line, "2013-01-01 00:00+00", 24)
    line.source("CREATE TABLE u (id int PRIMARY KEY, name text)", "INSERT INTO u VALUES (1, 'a')")
    line.run()
    line.source("UPDATE u SET name = 'b'", "UPDATE t SET name = 'b'")
    line.partitions("2013-01-01")
    assert [part.table for part in line.batches("both")[-1].parts] == ["t"]
    assert line.target_rows("u") == {("1", "a")}
    line.run()
    assert line.agrees("u")
    assert line.agrees("t")


@pytest.fixture
def daily(line: Line) -> Line:
    """A table captured by windows: five days, the last one is today."""
    [(since,)] = line.source("SELECT (now() - interval '4 days')::date::text")
    line.declare(t=f"{{capture: windows, event_time: day, since: {since}}}")
    line.source(
        TABLE,
        f"INSERT INTO t SELECT n, 'a', timestamptz '{since} 00:00+00' + n * interval '1 hour' "
        "FROM generate_series(0, 95) n",
    )
    line.run()
    return line


def read_last(line: Line) -> list[Window]:
    """Return the days that the last batch read."""
    last = line.batches()[-1]
    return [c.window for c in last.position.tables["t"].coverage if c.batch == last.number]


def test_gaps_are_filled_and_nothing_else_is_read(daily: Line) -> None:
    """Finished days are read once; an unfinished one waits."""
    assert len(daily.batches()) == 1
    assert len(read_last(daily)) == 4
    assert daily.run().batch is None
    assert daily.agrees()
    daily.source("INSERT INTO t VALUES (500, 'today', now())")
    assert daily.run().batch is None
    assert [v.in_flight.count for v in daily.reconcile()] == [1, 0]


def test_verify_reads_exactly_the_windows_that_changed(daily: Line) -> None:
    """Late rows, changed values, swapped values and gone rows: each names its window."""
    windows = read_last(daily)
    for number, change in enumerate(
        (
            "INSERT INTO t SELECT 600, 'late', day FROM t WHERE id = 30",
            "UPDATE t SET name = 'changed' WHERE id = 50",
            "UPDATE t SET id = CASE id WHEN 80 THEN -80 ELSE id END WHERE id = 80",
            "DELETE FROM t WHERE id = 3",
        )
    ):
        daily.source(change)
        assert daily.run().batch is None
        assert not all(verdict.ok and not verdict.in_flight.count for verdict in daily.reconcile())
        daily.verify()
        assert read_last(daily) == [windows[(number + 1) % 4]]
        assert daily.agrees()
    assert daily.verify().batch is None


def test_a_row_that_moves_between_days_is_verified(daily: Line) -> None:
    """Both days are read again in one batch, and the row stands once."""
    daily.source("UPDATE t SET day = day + interval '2 days' WHERE id = 5")
    daily.verify()
    assert len(read_last(daily)) == 2
    assert daily.agrees()


def test_a_table_that_turns_to_windows_reads_each_day_once(daily: Line) -> None:
    """Days that a run of partitions had read count no more, nor twice: another way, all anew."""
    windows = daily.pipeline.tables[0].since
    daily.declare(t="{capture: {where: modified_at}, event_time: day, deletes: none}")
    daily.run()
    first = daily.batches()[0].position.tables["t"].coverage[0].window
    daily.run(Wish(windows=(first,)))
    daily.declare(t=f"{{capture: windows, event_time: day, since: {windows}}}")
    daily.source("ALTER TABLE t ADD COLUMN extra text DEFAULT 'x'")
    assert daily.plan().windows
    daily.verify()
    assert len(read_last(daily)) == 4
    assert daily.agrees()
    assert daily.plan().action == "nothing"
    assert daily.run().batch is None
    assert daily.verify().batch is None


def test_an_earlier_since_is_a_gap(daily: Line) -> None:
    """Declared to begin earlier, the days before are read, the others not again."""
    [(since,)] = daily.source("SELECT (now() - interval '6 days')::date::text")
    daily.source(f"INSERT INTO t VALUES (700, 'old', '{since} 12:00+00')")
    daily.declare(t=f"{{capture: windows, event_time: day, since: {since}}}")
    daily.run()
    assert len(read_last(daily)) == 2
    assert daily.agrees()


def test_a_column_that_comes_with_no_row_reaches_the_target(line: Line) -> None:
    """A day whose rows are all the same brings an added column, and reconcile can compare."""
    line.declare(t=STREAM)
    line.source(
        TABLE, "INSERT INTO t SELECT n, 'a', '2013-01-05 12:00Z' FROM generate_series(1, 5) n"
    )
    line.run()
    line.source("ALTER TABLE t ADD COLUMN more text")
    line.partitions("2013-01-05")
    assert line.agrees()
    assert all(verdict.ok for verdict in line.reconcile())
