"""A progressive load whose process is killed or frozen after some of its key ranges are committed.

Readers see those ranges; the ledger row says which they are and keeps the version that the rest
still has, so that whoever loads next does it all again.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.load import plan
from tests.chaos.scene import Row, Scene

BETWEEN = "load: between ranges"
RANGE = 50  # rows; the table has some 300


@pytest.fixture
def scene(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A table that was loaded once, of which every row is then changed."""
    monkeypatch.setattr(plan, "RANGE_ROWS", RANGE)
    made = Scene(cluster.urls(), tmp_path, "diff")
    made.errand = replace(made.errand, range_rows=RANGE)
    try:
        assert made.run() is None
        made.source.execute(f"UPDATE {made.table} SET counter = counter + 1")
        made.source.execute(f"DELETE FROM {made.table} WHERE id % 10 = 0")
        yield made
    finally:
        made.close()


def ledger(scene: Scene) -> dict[str, object]:
    """Return the target's ledger row."""
    with psycopg.connect(scene.urls["warehouse"], row_factory=dict_row) as reader:
        query = "SELECT * FROM naviglio.ledger WHERE target = %s"
        return reader.execute(query, (f"kills.{scene.table}",)).fetchone() or {}


def half_done(scene: Scene, before: dict[str, object], old: list[Row]) -> None:
    """Check that the first ranges are as the source has them, the others as they were."""
    row = ledger(scene)
    told = json.loads(str(row["ranges"]))
    assert told["key"] == "id"
    assert told["done"].startswith("2 of ")
    assert (row["version"], row["batch"]) == (before["version"], before["batch"])
    assert told["version"] > before["version"]
    below = int(told["below"])
    new = [one for one in scene.rows_of_source() if one[0] < below]
    assert len(new) > RANGE
    assert scene.rows_of_target() == new + [one for one in old if one[0] >= below]


def test_killed_between_ranges(scene: Scene) -> None:
    """Kill -9: the next load begins where the ledger still stands, and the target is the lake."""
    before, old = ledger(scene), scene.rows_of_target()
    with scene.victim(BETWEEN, "kill", nth=2) as victim:
        assert victim.struck()
        assert victim.end().signal == signal.SIGKILL
    half_done(scene, before, old)

    assert scene.run() is None

    row = ledger(scene)
    assert (row["ranges"], row["batch"]) == ("", 2)
    assert scene.rows_of_target() == scene.rows_of_lake() == scene.rows_of_source()
    scene.heal()


def test_a_zombie_between_ranges_is_refused(scene: Scene) -> None:
    """Frozen, overtaken and woken: its next range finds another ledger row, and changes nothing."""
    before, old = ledger(scene), scene.rows_of_target()
    with scene.victim(BETWEEN, "stop", nth=2) as victim:
        assert victim.struck()
        half_done(scene, before, old)
        scene.live()
        assert scene.run() is None
        state, rows = scene.state(), scene.rows_of_source()
        victim.wake()
        end = victim.end()
        assert end.struck
        assert end.well, end
    assert scene.state() == state
    assert scene.rows_of_target() == scene.rows_of_lake() == rows
    scene.heal()
