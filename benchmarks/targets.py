"""Loads into DuckDB and SQL Server, each against the best that the same engine does by hand."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from benchmarks.ground import INSERTS, UPDATES, Ground
from benchmarks.measure import Race, Result, Taken, show, take_by

MSSQL = "NAVIGLIO_TEST_MSSQL"


def duckdb(ground: Ground, rounds: int) -> list[Result]:
    """Changes into lineitem in a DuckDB file, against its own MERGE INTO from the same Parquet."""
    base, _, changes = _make_base(ground)

    def taken(step: str) -> Taken:
        file = ground.files / "duck" / "load.duckdb"
        shutil.copyfile(base, file)
        found = _take(step, file=str(file), changes=str(changes))
        file.unlink()
        return found

    race = Race(ours=lambda _: taken("duck_load"), merge=lambda _: taken("duck_merge")).run(rounds)
    wanted = round(UPDATES * ground.scale) + round(INSERTS * ground.scale)
    assert all(one.told["changed"] == wanted for each in race.taken.values() for one in each)
    return [
        Result(
            what="changes into DuckDB's lineitem, staging and merge : its MERGE INTO",
            values=race.ratio("ours", "merge"), bar=1.3, note=race.note("ours", "merge"),
        )
    ]  # fmt: skip


def mssql(ground: Ground, rounds: int) -> list[Result]:
    """All rows of lineitem into SQL Server's staging, against a bare bulk copy of them."""
    url = os.environ.get(MSSQL, "")
    if not url:
        show(f"{MSSQL} names no server (a mssql:// URL): not measured")
        return []
    base, rows, _ = _make_base(ground)

    def taken(step: str) -> Taken:
        return _take(step, url=url, file=str(base), rows=str(rows))

    race = Race(ours=lambda _: taken("mssql_stage"), bare=lambda _: taken("mssql_bare")).run(rounds)
    assert all(one.told == race.taken["ours"][0].told for one in race.taken["bare"])
    return [
        Result(
            what="Arrow to SQL Server's staging, compared with what was sent : bare bulk copy",
            values=race.ratio("ours", "bare"), bar=1 / 0.9, note=race.note("ours", "bare"),
        )
    ]  # fmt: skip


def _make_base(ground: Ground) -> tuple[Path, Path, Path]:
    """Return the file that loads start from, its rows and their changes; made once."""
    folder = ground.files / "duck"
    base, rows = folder / "base.duckdb", folder / "lineitem.parquet"
    changes = folder / "changes.parquet"
    if not changes.exists():
        show(f"making lineitem in DuckDB at scale {ground.scale:g}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _take("generate", folder=str(folder), scale=ground.scale)
        _take(
            "duck_base", file=str(base), rows=str(rows), changes=str(changes),
            updates=round(UPDATES * ground.scale), inserts=round(INSERTS * ground.scale),
        )  # fmt: skip
    return base, rows, changes


def _take(step: str, **said: object) -> Taken:
    return take_by([sys.executable, "-m", "benchmarks.target_steps", step], {}, **said)
