"""Streams along what is no time with a zone: times in UTC, and integers that grow."""

from __future__ import annotations

from contextlib import closing

import pytest

from naviglio.flows.status import status
from naviglio.flows.validate import validate
from tests.integration.lines import Line, error_of

LOCAL = (
    "CREATE TABLE t (id bigint PRIMARY KEY, name text,"
    " modified_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'))"
)
IN_UTC = "{capture: {where: modified_at, zone: UTC}, deletes: none}"
COUNTED = "CREATE TABLE t (id bigint PRIMARY KEY, name text, version int)"
BY_NUMBER = "{capture: {where: version, lag: 3}, deletes: none}"


def test_times_without_a_zone_are_carried_once_their_zone_is_declared(line: Line) -> None:
    """Fenced as instants are: a transaction that commits late is not lost."""
    line.declare(t=IN_UTC)
    line.source(LOCAL, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 10) n")
    line.run()
    with line.open_source() as late:
        late.execute("INSERT INTO t VALUES (100, 'late')")
        line.source("INSERT INTO t VALUES (101, 'early')")
        line.run()
        assert all(verdict.ok for verdict in line.reconcile())
        late.commit()
    line.run()
    assert line.agrees()
    assert all(verdict.ok for verdict in line.reconcile())


def test_without_the_declaration_they_are_refused(line: Line) -> None:
    """At the run and by `validate --connect`, with what to write."""
    line.declare(t="{capture: {where: modified_at}, deletes: none}")
    line.source(LOCAL)
    assert "zone: UTC" in str(error_of(line.try_run()))
    with closing(line.site()) as site:
        [check] = validate(site)
    assert "zone: UTC" in check.problems[0]


def test_late_numbers_within_the_lag_are_not_lost(line: Line) -> None:
    """Pain 1 of the peers, late commits under the watermark: here the pipeline says how late."""
    line.declare(t=BY_NUMBER)
    line.source(COUNTED, "INSERT INTO t SELECT n, 'a', n FROM generate_series(1, 10) n")
    line.run()
    position = line.batches()[-1].position.tables["t"]
    assert position.stream == 8  # 7 and all below are settled
    assert line.batches()[-1].fence.numbers["t"].lag == 3
    assert line.batches()[-1].fence.point is None  # no time was asked for
    with line.open_source() as late:
        late.execute("INSERT INTO t VALUES (11, 'late', 11)")
        line.source("INSERT INTO t VALUES (12, 'early', 12), (13, 'early', 13)")
        line.run()
        late.commit()
    line.source(
        "UPDATE t SET name = 'b', version = 14 WHERE id = 1",
        "INSERT INTO t VALUES (17, 'after', 17)",
    )
    line.run()
    assert line.agrees(where="version <= 14")
    assert all(verdict.ok for verdict in line.reconcile())


def test_an_integer_without_a_lag_is_refused(line: Line) -> None:
    """Nothing says which numbers are still written."""
    line.declare(t="{capture: {where: version}, deletes: none}")
    line.source(COUNTED)
    assert "lag" in str(error_of(line.try_run()))


def test_an_empty_table_and_one_that_lost_its_highest_rows_go_on(line: Line) -> None:
    """The first number is below all; a highest number that falls moves nothing back."""
    line.declare(t="{capture: {where: version, lag: 0}, deletes: none}")
    line.source(COUNTED)
    line.run()
    line.source("INSERT INTO t VALUES (1, 'a', -5), (2, 'a', 7)")
    line.run()
    assert line.agrees()
    line.source("DELETE FROM t WHERE id = 2")
    line.run()
    line.source("INSERT INTO t VALUES (3, 'a', 8)")
    line.run()
    assert {row[0] for row in line.target_rows()} == {"1", "2", "3"}


def test_a_group_of_both_has_both_bounds(line: Line) -> None:
    """One fence, a point of time and a number, both on record; `status` shows each its own."""
    line.declare(
        head="fence_margin: 0s\ngroups: {both: [t, u]}", t=BY_NUMBER,
        u="{capture: {where: modified_at, zone: UTC}, deletes: none}",
    )  # fmt: skip
    line.source(
        COUNTED, LOCAL.replace("TABLE t", "TABLE u"),
        "INSERT INTO t VALUES (1, 'a', 40)", "INSERT INTO u VALUES (1, 'a')",
    )  # fmt: skip
    line.run()
    fence = line.batches("both")[-1].fence
    assert fence.point is not None
    assert fence.numbers["t"].point == 38
    with closing(line.site()) as site:
        shown = {table.table: table for table in status(site).tables}
    assert (shown["t"].position, shown["t"].fence, shown["t"].behind_s) == ("38", "38", None)
    assert str(shown["u"].position).startswith("20")


@pytest.mark.parametrize("nulls", ["refuse", "read", "ignore"])
def test_a_null_update_key_loads_as_declared(line: Line, nulls: str) -> None:
    """Pain 3 of the peers, a NULL update key never loads: refused, read or left out."""
    line.declare(t=f"{{capture: {{where: version, lag: 0}}, deletes: none, nulls: {nulls}}}")
    line.source(COUNTED, "INSERT INTO t VALUES (1, 'a', 1)")
    line.run()
    line.source("INSERT INTO t VALUES (2, 'a', NULL), (3, 'a', 3)")
    if nulls == "refuse":
        assert "'version' is NULL in 1 of its rows" in str(error_of(line.try_run()))
        return
    line.run()
    assert line.agrees(where="true" if nulls == "read" else "version IS NOT NULL")


def test_ties_at_the_bound_are_never_parted(line: Line) -> None:
    """Pain 2 of the peers, an operator that skips ties: rows of one number come together."""
    line.declare(t="{capture: {where: version, lag: 1}, deletes: none}")
    line.source(COUNTED, "INSERT INTO t SELECT n, 'a', 5 FROM generate_series(1, 4) n")
    line.run()
    line.source("INSERT INTO t SELECT n, 'a', 5 FROM generate_series(5, 9) n",
                "INSERT INTO t VALUES (10, 'a', 6)")  # fmt: skip
    line.run()
    assert line.agrees(where="version <= 5")


def test_a_number_is_no_time_however_large(line: Line) -> None:
    """Nothing of it lies in the future, and one that falls is no clock set back."""
    line.declare(t="{capture: {where: version, lag: 0}, deletes: none}")
    line.source(COUNTED.replace("version int", "version bigint"),
                f"INSERT INTO t VALUES (1, 'a', {2**63 - 2})")  # fmt: skip
    line.run()
    line.source("DELETE FROM t", "INSERT INTO t VALUES (2, 'a', 5)")
    line.run()
    line.source(f"INSERT INTO t VALUES (3, 'a', {2**63 - 1})")
    line.run()
    assert {row[0] for row in line.target_rows()} == {"1", "3"}
