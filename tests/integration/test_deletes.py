"""Deletes reach the target as the pipeline declares, and only so."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from naviglio.errors import DataError, RetryableError
from tests.integration.lines import DIFF, STREAM, SWEPT, Line

TABLE = (
    "CREATE TABLE t (id bigint PRIMARY KEY, name text, gone bool, gone_at timestamptz, "
    "modified_at timestamptz NOT NULL DEFAULT now())"
)
ROWS = "INSERT INTO t (id, name) SELECT n, 'name' FROM generate_series(1, 10) n"


def ids(line: Line) -> set[int]:
    """Return the ids in the target, having seen that the lake has the same rows."""
    assert line.lake_is_target()
    return {int(row[0] or 0) for row in line.target_rows()}


def test_none_leaves_deleted_rows_and_reconcile_counts_them(line: Line) -> None:
    """A stream without deletes keeps the rows; they are unseen deletes, not a failure."""
    line.declare(t=STREAM)
    line.source(TABLE, ROWS)
    line.run()
    line.source("DELETE FROM t WHERE id <= 2")
    line.run()
    assert ids(line) == set(range(1, 11))
    verdicts = line.reconcile()
    assert all(verdict.ok for verdict in verdicts)
    assert [v.unseen_deletes.count for v in verdicts] == [2, 0]


@pytest.mark.parametrize(("column", "mark"), [("gone", "true"), ("gone_at", "now()")])
def test_a_column_marks_rows_as_deleted_and_back(line: Line, column: str, mark: str) -> None:
    """A flag or a time: marked rows leave, unmarked ones return, in first captures and streams."""
    line.declare(t=f"{{capture: {{where: modified_at}}, deletes: {{column: {column}}}}}")
    line.source(TABLE, ROWS, f"UPDATE t SET {column} = {mark} WHERE id = 1")
    line.run()
    assert ids(line) == set(range(2, 11))
    line.source(f"UPDATE t SET {column} = {mark}, modified_at = now() WHERE id IN (2, 3)")
    line.run()
    assert ids(line) == set(range(4, 11))
    assert line.batches()[-1].parts[0].deletes == 2
    back = "false" if column == "gone" else "NULL"
    line.source(f"UPDATE t SET {column} = {back}, modified_at = now() WHERE id <= 2")
    line.run()
    assert ids(line) == {1, 2, *range(4, 11)}
    assert line.agrees(
        where=f"{column} IS DISTINCT FROM true" if column == "gone" else f"{column} IS NULL"
    )
    assert all(verdict.ok for verdict in line.reconcile())


@pytest.mark.parametrize("way", [SWEPT, DIFF])
def test_deletes_are_seen_at_the_next_run(line: Line, way: str) -> None:
    """Alone, beside changes, and of rows that came since the last key list."""
    line.declare(t=way)
    line.source(TABLE, ROWS)
    line.run()
    line.source("DELETE FROM t WHERE id = 1")
    line.run()
    assert line.agrees()
    line.source("INSERT INTO t (id) VALUES (11), (12)", "DELETE FROM t WHERE id = 2")
    line.run()
    assert line.agrees()
    line.source("DELETE FROM t WHERE id = 11", "INSERT INTO t (id) VALUES (13)")
    line.run()
    assert line.agrees()
    assert line.ledger().why_whole == ""


@pytest.mark.parametrize("way", [SWEPT, DIFF])
def test_a_key_comes_back_after_its_delete(line: Line, way: str) -> None:
    """Deleted and inserted again, between two runs or across them, with whatever values."""
    line.declare(t=way)
    line.source(TABLE, ROWS)
    line.run()
    line.source("DELETE FROM t WHERE id IN (1, 2)", "INSERT INTO t (id, name) VALUES (1, 'again')")
    line.run()
    assert line.agrees()
    line.source("INSERT INTO t (id, name) VALUES (2, 'back')")
    line.run()
    assert line.agrees()
    line.source("DELETE FROM t WHERE id = 2")
    line.run()
    assert line.agrees()


def test_a_key_that_changes_is_a_delete_and_an_insert(line: Line) -> None:
    """The old key leaves, the new one comes."""
    line.declare(t=DIFF, u=SWEPT)
    line.source(TABLE, ROWS, TABLE.replace("TABLE t", "TABLE u"), "INSERT INTO u TABLE t")
    line.run()
    for name in "tu":
        line.source(f"UPDATE {name} SET id = id + 100, modified_at = now() WHERE id < 4")
    line.run()
    assert line.agrees("t")
    assert line.agrees("u")


def test_a_sweep_waits_for_its_time(line: Line) -> None:
    """With an hour between two, deletes wait; changes don't."""
    line.declare(t="{capture: {where: modified_at}, deletes: {sweep: 1h}}")
    line.source(TABLE, ROWS)
    line.run()
    line.source("DELETE FROM t WHERE id = 1", "INSERT INTO t (id) VALUES (11)")
    line.run()
    assert ids(line) == set(range(1, 12))
    assert all(verdict.ok for verdict in line.reconcile())
    line.declare(t="{capture: {where: modified_at}, deletes: {sweep: 1ms}}")
    line.run()
    assert line.agrees()
    line.declare(t="{capture: {where: modified_at}, deletes: {sweep: 1h}}")
    line.source("DELETE FROM t WHERE id = 2")
    line.run()
    assert 2 in ids(line)


def test_another_way_of_deletes_may_be_declared_later(line: Line) -> None:
    """From none to sweep, to diff and back: what was unseen before is gone then."""
    line.declare(t=STREAM)
    line.source(TABLE, ROWS)
    line.run()
    for number, way in enumerate((SWEPT, DIFF, STREAM, SWEPT), start=1):
        line.source(f"DELETE FROM t WHERE id = {number}")
        line.declare(t=way)
        line.run()
        assert line.agrees(), way


def test_deletes_are_left_alone_from_when_none_is_declared(line: Line) -> None:
    """No sweep goes on behind the declaration's back; back to sweep, what came between is known."""
    line.declare(t=SWEPT)
    line.source(TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 10) n")
    line.run()
    line.declare(t=STREAM)
    line.source("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (11, 'between')")
    line.run()
    line.run()
    assert len(line.lake_rows()) == 11
    line.declare(t=SWEPT)
    line.run()
    line.source("DELETE FROM t WHERE id = 11")
    line.run()
    assert line.agrees()


def test_a_table_captured_together_is_deleted_together(line: Line) -> None:
    """Parent and child leave in one batch, under one snapshot."""
    line.declare(head="fence_margin: 0s\ngroups: {both: [t, u]}", t=DIFF, u=SWEPT)
    line.source(TABLE, ROWS, TABLE.replace("TABLE t", "TABLE u"), "INSERT INTO u TABLE t")
    line.run()
    line.source("DELETE FROM t WHERE id = 1; DELETE FROM u WHERE id = 1")
    line.run()
    last = line.batches("both")[-1]
    assert {part.table: part.deletes for part in last.parts} == {"t": 1, "u": 1}
    assert line.agrees("t")
    assert line.agrees("u")


@pytest.mark.parametrize("way", [DIFF, SWEPT])
def test_float_keys_that_change_their_sign_of_zero_stay(
    line: Line, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the target the old key and the new are one: the delete of the old takes no row away."""
    line.declare(t=way)
    line.source(
        "CREATE TABLE t (x float8, n int, modified_at timestamptz NOT NULL DEFAULT now(), "
        "PRIMARY KEY (x, n))",
        "INSERT INTO t VALUES ('0', 1), (1, 1), (2, 2)",
    )
    line.run()
    line.source("UPDATE t SET x = '-0', modified_at = now() WHERE x = 0")
    feed = DeltaTable.load_cdf

    def old_first(table: DeltaTable, **asked: Any) -> pa.Table:  # Delta's order is any
        told = pa.RecordBatchReader.from_stream(feed(table, **asked)).read_all()
        return told.take(sorted(range(told.num_rows), key=lambda n: str(told["x"][n]) == "-0.0"))

    monkeypatch.setattr(DeltaTable, "load_cdf", old_first)
    line.run()
    assert line.agrees()


KEYED = (
    "CREATE TABLE t (k float8 PRIMARY KEY, name text, "
    "modified_at timestamptz NOT NULL DEFAULT now())"
)
RESPELLED = "UPDATE t SET k = '-0', name = 'renamed', modified_at = now() WHERE k = 0"


def test_a_new_key_that_the_target_takes_for_another_waits_for_the_delete(line: Line) -> None:
    """The lake has both until the sweep, the target could hold one only: it keeps what it has.

    Loaded one after the other, the delete of the old key would take the new row with it.
    """
    line.declare(t="{capture: {where: modified_at}, deletes: {sweep: 1h}}")
    line.source(KEYED, "INSERT INTO t (k, name) VALUES (0, 'named'), (1, 'one')")
    line.run()
    before = line.target_rows()
    line.source(RESPELLED)
    with pytest.raises(DataError, match="key"):
        line.run()
    assert (line.target_rows(), line.ledger().batch) == (before, 1)
    with pytest.raises(RetryableError, match="holds batch 1 of the lake's 2"):
        line.reconcile()
    line.declare(t="{capture: {where: modified_at}, deletes: {sweep: 1ms}}")
    line.run()
    assert line.agrees()
    assert {name for _, name, _ in line.target_rows()} == {"renamed", "one"}


def test_where_no_delete_will_come_a_resnapshot_goes_on(line: Line) -> None:
    """With `deletes: none` the lake would keep both keys for ever."""
    line.declare(t=STREAM)
    line.source(KEYED, "INSERT INTO t (k, name) VALUES (0, 'named'), (1, 'one')")
    line.run()
    line.source(RESPELLED)
    with pytest.raises(DataError, match="naviglio resnapshot"):
        line.run()
    line.resnapshot()
    assert line.agrees()


def test_rows_that_somebody_else_took_from_the_target_come_back(line: Line) -> None:
    """When a load would add more rows than the lake gained, all rows are loaded; it says why."""
    line.declare(t=SWEPT)
    line.source(TABLE, ROWS)
    line.run()
    line.target("DELETE FROM t WHERE id <= 2")
    line.source("UPDATE t SET name = 'new', modified_at = now() WHERE id = 1")
    line.run()
    assert line.agrees()
    assert line.ledger().why_whole == "changes gave the target +1 rows, the lake +0"


MARKED = "{capture: {where: modified_at}, deletes: {column: gone}}"


def test_marks_made_before_they_were_declared_count(line: Line) -> None:
    """Rows that landed as living are read again, once, as changes: what is absent stays."""
    line.declare(t=STREAM)
    line.source(
        TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 50) n",
        "UPDATE t SET gone = true WHERE id <= 10",
    )  # fmt: skip
    line.run()
    line.source("DELETE FROM t WHERE id = 50")  # the source keeps less than the target does
    line.declare(t=MARKED)
    assert line.plan().rows == 49
    line.run()
    [part] = line.batches()[-1].parts
    assert (part.kind, part.deletes, part.why) == (
        "stream", 10, "another column marks deletes, or none does any more",
    )  # fmt: skip
    kept = {row for row in line.target_rows() if row[0] == "50"}
    assert len(kept) == 1
    assert line.target_rows() - kept == line.source_rows(where="gone IS NOT TRUE")
    line.source("INSERT INTO t VALUES (60, 'x')")
    line.run()
    assert line.batches()[-1].parts[0].upserts < 10


def test_a_mark_that_no_capture_saw_is_told(line: Line) -> None:
    """Whoever set it forgot the time: not the same as a row that is simply gone."""
    line.declare(t=MARKED)
    line.source(
        TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 50) n",
    )  # fmt: skip
    line.run()
    line.source("INSERT INTO t VALUES (60, 'x')")
    line.run()
    line.source("DELETE FROM t WHERE id = 50")
    [lake, _] = line.reconcile()
    assert (lake.ok, lake.unseen_deletes.keys) == (True, ("50",))
    line.source("UPDATE t SET gone = true WHERE id IN (7, 8)")
    line.source("UPDATE t SET gone = true, modified_at = now() WHERE id = 9")  # the next run's
    [lake, _] = line.reconcile()
    assert (lake.ok, lake.extra.keys) == (False, ("7", "8"))
    assert (lake.unseen_deletes.count, lake.in_flight.keys) == (1, ("9",))


def test_a_clock_that_was_ahead_keeps_no_sweep(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep dated next year holds back none of this year's."""

    class Ahead:
        """The host's clock, a year ahead."""

        @staticmethod
        def now(zone: tzinfo) -> datetime:
            return datetime.now(zone) + timedelta(days=365)

    line.declare(t="{capture: {where: modified_at}, deletes: {sweep: 1s}}")
    line.source(TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 50) n")
    with monkeypatch.context() as patched:
        patched.setattr("naviglio.flows.capture.datetime", Ahead)
        line.run()
    line.source("DELETE FROM t WHERE id <= 10")
    line.run()
    assert line.agrees()


def test_marks_that_count_no_more_bring_their_rows_back(line: Line) -> None:
    """And once they count again, also those go that a day has brought back meanwhile."""
    timed = "event_time: gone_at, "
    marked = MARKED.replace("deletes", f"{timed}deletes")
    line.declare(t=marked)
    line.source(
        TABLE, "INSERT INTO t SELECT n, 'a', n <= 10, '2013-01-05 12:00Z' FROM "
        "generate_series(1, 50) n",
    )  # fmt: skip
    line.run()
    assert len(ids(line)) == 40
    line.declare(t=STREAM.replace("deletes", f"{timed}deletes"))
    line.partitions("2013-01-05")
    assert len(ids(line)) == 50
    line.declare(t=marked)
    line.run()
    assert len(ids(line)) == 40
    line.declare(t=STREAM.replace("deletes", f"{timed}deletes"))
    line.run()
    assert len(ids(line)) == 50
