"""Loads by swap: a target whose rows mostly change is filled beside and takes its place."""

from __future__ import annotations

import threading

import psycopg
import pytest

from naviglio.load import plan
from naviglio.points import listening
from tests.integration.lines import DIFF, Line

ROWS = 200


@pytest.fixture
def loaded(line: Line, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line with rows in source and target, and an index that only the target has."""
    monkeypatch.setattr(plan, "SWAP_ROWS", 0)
    line.declare("fence_margin: 0s\nmass_delete: {fraction: 1}", t=DIFF)
    line.source(
        "CREATE TABLE t (id int PRIMARY KEY, a text, n numeric(9,2))",
        f"INSERT INTO t SELECT n, 'old', n FROM generate_series(1, {ROWS}) n",
    )
    line.run()
    line.target("CREATE INDEX by_a ON t (a)", "GRANT SELECT ON t TO naviglio_source")
    return line


def number(line: Line) -> int:
    """Return the number by which the server tells the target from others."""
    ((oid,),) = line.target("SELECT 't'::regclass::oid::int")
    return int(oid)


def belongings(line: Line) -> list[object]:
    """Return indexes and grants of the target."""
    return [
        line.target(
            "SELECT indexdef FROM pg_indexes WHERE indexname ~ '^(t_pkey|by_a)' ORDER BY 1"
        ),
        line.target("SELECT relacl::text FROM pg_class WHERE oid = 't'::regclass"),
    ]


def test_a_target_whose_rows_mostly_change_is_swapped(loaded: Line) -> None:
    """All rows come from the lake; what belongs to the target stays."""
    before, had = number(loaded), belongings(loaded)
    loaded.source("UPDATE t SET a = 'new' WHERE id > 60", "DELETE FROM t WHERE id = 200")

    loaded.run()

    row = loaded.ledger()
    assert number(loaded) != before
    assert (row.inserted, row.deleted) == (ROWS - 1, ROWS)
    assert row.why_whole == "most rows change: 140 of 199"
    assert belongings(loaded) == had
    assert loaded.agrees()


def test_few_changes_leave_the_target_in_its_place(loaded: Line) -> None:
    """Below half of the rows."""
    before = number(loaded)
    loaded.source("UPDATE t SET a = 'new' WHERE id <= 90")
    loaded.run()
    assert number(loaded) == before
    assert loaded.ledger().updated == 90
    assert loaded.agrees()


def test_what_a_swap_would_lose_keeps_the_target(loaded: Line) -> None:
    """A view on it: merged."""
    loaded.target("CREATE VIEW v AS SELECT id FROM t")
    before = number(loaded)
    loaded.source("UPDATE t SET a = 'new'")
    loaded.run()
    assert number(loaded) == before
    assert loaded.ledger().updated == ROWS
    assert loaded.agrees()


def test_a_swap_that_does_not_commit_changes_nothing(loaded: Line) -> None:
    """Killed after the swap and before the commit: the old table is there, and nothing beside."""
    before, had = number(loaded), belongings(loaded)
    loaded.source("UPDATE t SET a = 'new'")

    def die(name: str) -> None:
        if name == "load: before commit":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(die):
        loaded.run()

    assert (number(loaded), belongings(loaded)) == (before, had)
    assert loaded.target("SELECT DISTINCT a FROM t") == [("old",)]
    left = "SELECT relname FROM pg_class WHERE relnamespace = 'naviglio'::regnamespace"
    loaded.run()
    assert loaded.agrees()
    assert [name for (name,) in loaded.target(left) if name.startswith("s_")] == []


def test_a_load_that_another_overtook_swaps_nothing(loaded: Line) -> None:
    """Its table was filled from an older ledger row: thrown away, and loaded anew."""
    loaded.source("UPDATE t SET a = 'new'")
    once = threading.Event()

    def overtake(name: str) -> None:
        if name == "load: after staging" and not once.is_set():
            once.set()
            loaded.source("UPDATE t SET a = 'newest'")
            with listening(lambda _: None):
                loaded.run()

    with listening(overtake):
        loaded.run()
    assert loaded.agrees()


def test_a_reader_that_holds_the_table_is_not_waited_for(
    loaded: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do other readers wait behind the load: it merges what it has staged."""
    monkeypatch.setattr("naviglio.adapters.postgres.swap._READERS_WAIT", "50ms")
    before = number(loaded)
    loaded.source("UPDATE t SET a = 'new'")
    with psycopg.connect(loaded.urls["warehouse"]) as reader:
        reader.execute(f"SELECT count(*) FROM {loaded.name}.t".encode())
        loaded.run()
    assert (number(loaded), loaded.ledger().updated) == (before, ROWS)
    assert loaded.agrees()
