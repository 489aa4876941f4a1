"""Compactions move rows and change none, also beside other writers and each other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from deltalake import DeltaTable

from naviglio import points
from naviglio.errors import RetryableError
from naviglio.lake.compact import only_compaction
from naviglio.lake.table import LakeTable
from tests.unit.lake.landing import Landing, Mirror, row, rows_in


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    """Return a landing of twelve small batches."""
    landing = Landing(tmp_path / "landing")
    landing.add("snapshot", [row(0, "first")], why="first")
    for n in range(1, 12):
        landing.add("stream", [row(n, f"v{n}")])
    return landing


@pytest.fixture
def lake(tmp_path: Path, landing: Landing) -> LakeTable:
    """Return a lake table that has applied them, one by one."""
    lake = LakeTable(str(tmp_path / "my lake"))
    landing.apply(lake)
    return lake


def test_fewer_files_hold_the_same_rows(lake: LakeTable, landing: Landing) -> None:
    """A compaction keeps rows and number, no target loads for it, and the next finds nothing."""
    mirror = Mirror(lake)
    mirror.load()
    number = lake.number()
    found = lake.compact()
    assert found is not None
    assert (found.files_before, found.files_after) == (12, 1)
    assert rows_in(lake) == landing.replayed()
    assert lake.number() == number
    feed = lake.feed(mirror.ledger)
    assert feed is not None
    assert feed.why_whole == ""
    assert list(feed.batches) == []
    assert lake.compact() is None


def test_two_compactions_never_run_at_once(lake: LakeTable) -> None:
    """While one runs the other is told to come back: both would commit, and double every row."""
    before, refused = rows_in(lake), []

    def other() -> None:
        try:
            lake.compact()
        except RetryableError as error:
            refused.append(str(error))

    def beside(name: str) -> None:
        if name == "compact: before commit":
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

    with points.listening(beside):
        assert lake.compact() is not None
    assert "compacted by another process" in refused[0]
    assert rows_in(lake) == before


def test_a_batch_beside_a_compaction_is_kept(lake: LakeTable, landing: Landing) -> None:
    """A batch that commits in between costs a second try, and no row."""
    landing.add("stream", [row(3, "changed"), {"id": 4, "_op": "delete"}])
    done: list[str] = []

    def beside(name: str) -> None:
        if name == "compact: before commit" and not done:
            done.append(name)
            landing.apply(lake, len(landing.batches))

    with points.listening(beside):
        assert lake.compact() is not None
    assert lake.number() == len(landing.batches)
    assert rows_in(lake) == landing.replayed()


def test_the_lock_ends_with_its_holder(lake: LakeTable) -> None:
    """Nothing is left to clean up: a compaction after one that failed simply runs."""
    with pytest.raises(RuntimeError), only_compaction(lake.uri):
        raise RuntimeError
    assert lake.compact() is not None
    assert DeltaTable(lake.uri).version() == lake.version()
