"""A DuckDB warehouse that is set back: its older ledger came along."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import duckdb

from tests.integration.lines import DIFF, Line


def test_an_older_copy_of_the_file_catches_up(line: Line, tmp_path: Path) -> None:
    """By the changes since its own version, not by all rows; then it is the source again."""
    file, kept = tmp_path / "warehouse.duckdb", tmp_path / "kept.duckdb"
    line.source(
        "CREATE TABLE t (id int PRIMARY KEY, a text)",
        "INSERT INTO t SELECT n, 'old' FROM generate_series(1, 50) n",
    )
    line.declare("mass_delete: {fraction: 1}", t=DIFF)
    moved = replace(line, urls={**line.urls, "warehouse": f"duckdb://{file}"}, reports=[])
    moved.run()
    shutil.copyfile(file, kept)
    line.source("UPDATE t SET a = 'new' WHERE id < 9", "DELETE FROM t WHERE id = 20")
    moved.run()

    shutil.copyfile(kept, file)
    line.source("INSERT INTO t VALUES (99, 'newer')")
    moved.run()

    with duckdb.connect(file, config={"autoinstall_known_extensions": "false"}) as outside:
        rows = outside.execute(f"SELECT id, a FROM {line.name}.t ORDER BY id").fetchall()
        [counts] = outside.execute(
            "SELECT batch, why_whole, inserted, updated, deleted FROM naviglio.ledger"
        ).fetchall()
    assert rows == line.source("SELECT id, a FROM t ORDER BY id")
    assert counts == (3, "", 1, 8, 1)
