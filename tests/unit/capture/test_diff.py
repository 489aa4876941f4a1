"""Hash files and the changes on top of them: the same as if all were written anew each time."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from naviglio.capture import diff
from naviglio.model import HashState
from tests.unit.flows.test_losses import Line


def state(line: Line) -> HashState:
    """Return the hash state of the newest manifest."""
    manifest = line.site().landing(line.group).head().manifest
    assert manifest is not None
    found = manifest.position.tables["rows"].hashes
    assert found is not None
    return found


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """A diff of 200 rows that was captured once."""
    line = Line(tmp_path, way="diff")
    for key in range(200):
        line.put(key)
    assert line.run().error is None
    return line


def test_a_change_lands_its_hashes_and_writes_no_others(line: Line) -> None:
    """The files that were there stay; the change's own file holds what to compare with next."""
    before = state(line)
    line.put(7)
    line.run()
    after = state(line)
    assert after.files == before.files
    assert [file.rows for file in after.later] == [1]
    assert (after.rows, after.batch) == (200, 2)
    assert line.run().batch is None


def test_rows_that_come_change_go_and_come_again_are_each_seen_once(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through many captures, hashes written anew between, each finds just what changed."""
    monkeypatch.setattr(diff, "_MOST_FILES", 5)
    chance = random.Random(5)  # what is drawn stays the same
    anew = 0
    for _ in range(16):
        before, files = dict(line.database.rows), state(line).files
        writer = line.database.begin()
        for key in chance.sample(range(210), 4):
            if key in line.database.rows and chance.random() < 0.6:
                line.database.delete(writer, key)
            else:
                line.database.put(writer, key, day=1)
        line.database.commit(writer)
        now = line.database.rows
        assert line.run().error is None
        manifest = line.site().landing(line.group).head().manifest
        assert manifest is not None
        (part,) = manifest.parts
        assert part.deletes == len(before.keys() - now.keys())
        assert part.upserts == sum(before.get(key) != row for key, row in now.items())
        found = state(line)
        assert found.rows == len(now)
        assert len(found.later) <= 5
        anew += found.files != files
        assert line.run().batch is None
        assert line.keys() == set(now)
    assert anew == 2


def test_hashes_are_written_anew_once_many_rows_changed(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the rows: finding the last of each key would cost more at every capture."""
    monkeypatch.setattr(diff, "_FEW", 0)
    for key in range(20):
        line.put(key)
    line.run()
    assert sum(file.rows for file in state(line).later) == 20
    line.put(30)
    line.run()
    found = state(line)
    assert found.later == ()
    (path,) = [file.path for file in found.files]
    root = line.site().landing(line.group).store.root
    assert pq.read_metadata(Path(root, path)).num_rows == 200
