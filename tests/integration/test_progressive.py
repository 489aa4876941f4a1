"""Progressive loads: key ranges committed one by one, whatever happens between them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from naviglio.errors import DataError, RetryableError
from naviglio.load import plan
from naviglio.points import listening
from tests.integration.lines import Line, without_times

PROGRESSIVE = "{capture: diff, load: {visibility: progressive}}"
ROWS = 40
TABLE = "CREATE TABLE t (id int, part text, a text, PRIMARY KEY (part, id))"


@pytest.fixture
def loaded(line: Line, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line with 40 rows in source and target, of which a load may merge 10 at once."""
    monkeypatch.setattr(plan, "RANGE_ROWS", 10)
    line.declare("fence_margin: 0s\nmass_delete: {fraction: 1}", t=PROGRESSIVE)
    line.source(
        TABLE,
        f"INSERT INTO t SELECT n, 'p' || lpad(n::text, 2, '0'), 'old' "
        f"FROM generate_series(1, {ROWS}) n",
    )
    line.run()
    return line


def change(line: Line) -> None:
    """Change most rows: update, delete, insert."""
    line.source(
        "UPDATE t SET a = 'new'",
        "DELETE FROM t WHERE id % 4 = 0",
        "INSERT INTO t VALUES (100, 'p00', 'new'), (101, 'p99', 'new')",
    )


def at(point: str, act: Callable[[int], None]) -> Callable[[str], None]:
    """Act at each reaching of a point, told how often it was reached."""
    reached: list[str] = []

    def listener(name: str) -> None:
        if name == point:
            reached.append(name)
            act(len(reached))

    return listener


def test_readers_see_range_after_range(loaded: Line) -> None:
    """Each range at its commit; the ledger says which are done, and in the end nothing of it."""
    change(loaded)
    before = loaded.ledger()
    seen: list[tuple[int, str]] = []

    def look(_: int) -> None:
        ((new,),) = loaded.target("SELECT count(*) FROM t WHERE a = 'new'")
        row = loaded.ledger()
        assert (row.version, row.batch) == (before.version, before.batch)
        told = json.loads(row.ranges)
        assert (told["key"], told["version"] > row.version) == ("part", True)
        ((beyond,),) = loaded.target(
            f"SELECT count(*) FROM t WHERE a = 'new' AND part >= '{told['below']}'"
        )
        assert beyond == 0
        seen.append((new, told["done"]))

    with listening(at("load: between ranges", look)):
        loaded.run()

    assert [done for _, done in seen] == ["1 of 5", "2 of 5", "3 of 5", "4 of 5"]
    assert sorted({new for new, _ in seen}) == [new for new, _ in seen]
    row = loaded.ledger()
    assert (row.ranges, row.inserted, row.updated, row.deleted) == ("", 2, 30, 10)
    assert loaded.agrees()


def test_a_load_that_died_between_ranges_is_done_again(loaded: Line) -> None:
    """From the version that the ledger still names, with what came meanwhile."""
    change(loaded)

    def die(reached: int) -> None:
        if reached == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(at("load: between ranges", die)):
        loaded.run()
    half = loaded.ledger()
    assert json.loads(half.ranges)["done"] == "2 of 5"
    with pytest.raises(RetryableError, match="is loaded in part"):
        loaded.reconcile()
    loaded.source("UPDATE t SET a = 'newer' WHERE id < 9", "DELETE FROM t WHERE id = 101")

    loaded.run()

    row = loaded.ledger()
    assert (row.ranges, row.why_whole) == ("", "")
    assert loaded.agrees()


def test_two_progressive_loads_never_mix(loaded: Line) -> None:
    """The one that another overtook is refused at its next range, and begins anew."""
    change(loaded)
    rows: list[object] = []

    def overtake(reached: int) -> None:
        if reached == 1:
            loaded.source("UPDATE t SET a = 'newest'")
            with listening(lambda _: None):
                loaded.run()
            rows.append(without_times(loaded.ledger()))

    with listening(at("load: between ranges", overtake)):
        loaded.run()

    assert [without_times(loaded.ledger())] == rows
    assert loaded.agrees()


def test_a_respelled_key_never_goes_back(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that hold its new row stay; the load of all rows is one transaction, and refused."""
    monkeypatch.setattr(plan, "RANGE_ROWS", 10)
    said = "{capture: {where: at}, deletes: {sweep: %s}, load: {visibility: progressive}}"
    line.declare(t=said % "1h")
    line.source(
        "CREATE TABLE t (k float8 PRIMARY KEY, a text, at timestamptz NOT NULL DEFAULT now())",
        f"INSERT INTO t SELECT n, 'old' FROM generate_series(0, {ROWS}) n",
    )
    line.run()
    line.source(
        "UPDATE t SET a = 'new', at = now() WHERE k > 0",
        "UPDATE t SET k = '-0', a = 'renamed', at = now() WHERE k = 0",
    )
    for _ in range(2):
        with pytest.raises(DataError, match=r"two rows have one key.*resnapshot"):
            line.run()
        assert line.target("SELECT a FROM t WHERE k = 0") == [("renamed",)]
    line.declare(t=said % "1ms")
    line.run()
    assert line.agrees()


def test_all_rows_by_ranges(loaded: Line) -> None:
    """A whole comparison deletes within its range only."""
    change(loaded)
    loaded.target("INSERT INTO t VALUES (7, 'a before all', 'x'), (8, 'z after all', 'x')")
    loaded.target(f"UPDATE naviglio.ledger SET lake_table = 'x' WHERE target = '{loaded.name}.t'")

    loaded.run()

    row = loaded.ledger()
    assert (row.why_whole, row.deleted) == ("another lake table", 12)
    assert loaded.agrees()
