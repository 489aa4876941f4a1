"""The comparisons, one function each: what `docs/benchmarks.md` promises and why."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from benchmarks.ground import INSERTS, UPDATES, Ground, load_tpch, make_base, make_changes
from benchmarks.measure import ROOT, Race, Result, Taken, show, take, take_by
from benchmarks.targets import duckdb, mssql
from benchmarks.wire import wiretap

if TYPE_CHECKING:
    from collections.abc import Iterator

_ORDERS_SHARE = "('x' || left(md5(o_orderkey::text), 7))::bit(28)::int % 100 = {}"
_CLI = "import sys; sys.argv[0] = 'naviglio'; from naviglio.cli import main; main()"


def extract(ground: Ground, rounds: int) -> list[Result]:
    """All rows of lineitem into exact-decimal Parquet, against a COPY to nothing."""
    load_tpch(ground, "lineitem")
    url = ground.url("operations")

    def ours(number: int) -> Taken:
        with _folder(ground, f"extract-{number}") as folder:
            return ground.take("extract", url=url, folder=str(folder))

    race = Race(
        ours=ours, copy=lambda _: ground.take("copy_to_nothing", url=url, table="lineitem")
    ).run(rounds)
    return [
        Result(
            what="extract lineitem to Parquet : binary COPY to nothing",
            values=race.ratio("ours", "copy"), bar=2.0, note=race.note("ours", "copy"),
        ),
        _rss("extract, peak RSS", [race.rss_mb("ours")], bar=300),
    ]  # fmt: skip


def diff(ground: Ground, rounds: int) -> list[Result]:
    """Capture by diff where nothing, then 1 % of the rows, changed, against a full read."""
    load_tpch(ground, "orders")
    url = ground.url("operations")
    ground.take("capture_table", table="orders")  # the first capture, or what is left of a run
    full_bytes = _wire_bytes(ground, url, "adbc_read", table="orders")

    def full(_: int) -> Taken:
        return ground.take("adbc_read", url=url, table="orders")

    def compared(_: int) -> Taken:
        return ground.take("adbc_compare", url=url, table="orders")

    def captured(_: int) -> Taken:
        return ground.take("capture_table", table="orders")

    still = Race(ours=captured, full=full, compared=compared).run(rounds)
    assert all(taken.told["upserts"] == 0 for taken in still.taken["ours"])
    still_bytes = _wire_bytes(ground, url, "capture_table", table="orders")

    def changed(number: int) -> Taken:
        _change_orders(ground, number)
        return captured(number)

    some = Race(ours=changed, full=full, compared=compared).run(rounds)
    assert all(taken.told["upserts"] > 0 for taken in some.taken["ours"])
    _change_orders(ground, rounds)
    some_bytes = _wire_bytes(ground, url, "capture_table", table="orders")
    results = []
    for what, race, moved, bars in (
        ("nothing changed", still, still_bytes, (0.65, 2.0)),
        ("1 % changed, spread", some, some_bytes, (0.9, 10.0)),
    ):
        results += [
            Result(
                what=f"diff of orders, {what} : full ADBC read",
                values=race.ratio("ours", "full"), bar=bars[0], note=race.note("ours", "full"),
            ),
            Result(
                what="the same : full ADBC read whose rows are hashed here", bar=bars[0],
                values=race.ratio("ours", "compared"), note=race.note("ours", "compared"),
            ),
            Result(
                what=f"diff of orders, {what}: bytes on the wire", unit="%", bar=bars[1],
                values=[100 * moved / full_bytes],
                note=f"{moved / 2**20:.1f} of {full_bytes / 2**20:.0f} MiB",
            ),
            _rss(f"diff of orders, {what}, peak RSS", [race.rss_mb("ours")], bar=400),
        ]  # fmt: skip
    return results


def staging(ground: Ground, rounds: int) -> list[Result]:
    """A Parquet file of changes into staging, against a COPY of the same rows encoded before."""
    load_tpch(ground, "lineitem")
    make_changes(ground)
    encoded = ground.files / "changes.copy"
    ground.take("encode", file=str(ground.changes), encoded=str(encoded))
    said = {"url": ground.url("warehouse"), "source": ground.url("operations")}
    race = Race(
        ours=lambda _: ground.take("stage", file=str(ground.changes), **said),
        copy=lambda _: ground.take("copy_encoded", encoded=str(encoded), **said),
    ).run(rounds)
    return [
        Result(
            what="Parquet to staging : encoded COPY",
            values=race.ratio("ours", "copy"), bar=1.5, note=race.note("ours", "copy"),
        )
    ]  # fmt: skip


def load(ground: Ground, rounds: int) -> list[Result]:
    """Changes into lineitem, staging and apply, against `dlt` and against COPY and MERGE."""
    load_tpch(ground, "lineitem")
    make_changes(ground)
    make_base(ground)
    source, file = ground.url("operations"), str(ground.changes)

    def ours(_: int) -> Taken:
        url = ground.fresh("bench_load", "bench_base")
        return _checked(ground, ground.take("upsert", url=url, file=file, source=source))

    def by_hand(_: int) -> Taken:
        url = ground.fresh("bench_load", "bench_base")
        return _checked(ground, ground.take("merge_by_hand", url=url, file=file))

    def by_dlt(_: int) -> Taken:
        url = ground.fresh("bench_load", "bench_base")
        command = [os.environ["NAVIGLIO_BENCH_PYTHON"], str(ROOT / "benchmarks/dlt_upsert.py")]
        return _checked(ground, take_by(command, {}, url=url, file=file, format="csv"))

    contenders = {"ours": ours, "by_hand": by_hand}
    if "NAVIGLIO_BENCH_PYTHON" in os.environ:
        contenders["dlt"] = by_dlt
    else:
        show(
            "NAVIGLIO_BENCH_PYTHON names no interpreter with dlt: not compared (`make bench` does)"
        )
    race = Race(**contenders).run(rounds)
    bars = {"by_hand": ("COPY and unsorted MERGE", 1.0), "dlt": ("dlt upsert", 0.5)}
    return [
        Result(
            what=f"changes into lineitem, staging and apply : {bars[other][0]}",
            values=race.ratio("ours", other), bar=bars[other][1], note=race.note("ours", other),
        )
        for other in contenders
        if other != "ours"
    ]  # fmt: skip


def first(ground: Ground, rounds: int) -> list[Result]:
    """All rows of lineitem into a target that was absent, against COPY and its index after."""
    load_tpch(ground, "lineitem")
    rows, source = ground.files / "rows.parquet", ground.url("operations")
    if not rows.exists():
        ground.take("write_rows", file=str(rows), source=source)
    ground.run(
        "admin",
        "DROP DATABASE IF EXISTS bench_empty WITH (FORCE)",
        "CREATE DATABASE bench_empty OWNER naviglio_target",
    )

    def taken(step: str) -> Taken:
        url = ground.fresh("bench_load", "bench_empty")
        return ground.take(step, url=url, file=str(rows), source=source)

    race = Race(ours=lambda _: taken("first_load"), copy=lambda _: taken("copy_then_index")).run(
        rounds
    )
    assert all(one.told == race.taken["ours"][0].told for one in race.taken["copy"])
    return [
        Result(
            what="first load of lineitem, staging and apply : COPY, then index",
            values=race.ratio("ours", "copy"), bar=1.1, note=race.note("ours", "copy"),
        )
    ]  # fmt: skip


def most(ground: Ground, rounds: int) -> list[Result]:
    """Half, a quarter and a tenth of lineitem changed: all rows swapped in, against a merge."""
    load_tpch(ground, "lineitem")
    make_base(ground)
    rows, source = ground.files / "rows.parquet", ground.url("operations")
    if not rows.exists():
        ground.take("write_rows", file=str(rows), source=source)
    results = []
    for percent in (50, 25, 10):
        changes, whole = ground.files / "share.parquet", ground.files / "whole.parquet"
        ground.take(
            "change_share", rows=str(rows), changes=str(changes), whole=str(whole), percent=percent
        )

        def taken(step: str, file: Path) -> Taken:
            url = ground.fresh("bench_load", "bench_base")
            return ground.take(step, url=url, file=str(file), source=source)

        race = Race(
            swap=lambda _, file=whole: taken("swap_in", file),  # type: ignore[misc]
            merge=lambda _, file=changes: taken("merge_share", file),  # type: ignore[misc]
        ).run(rounds)
        results.append(
            Result(
                what=f"{percent} % of lineitem changed, swapped in : merged",
                values=race.ratio("swap", "merge"), bar=1.0 if percent == 50 else None,
                note=race.note("swap", "merge"),
            )
        )  # fmt: skip
    return results


def idle(ground: Ground, rounds: int) -> list[Result]:
    """A run of the demo's five tables that finds nothing to do."""
    environ = {**ground.environ, "NAVIGLIO_PIPELINES": str(ROOT / "include/pipelines")}
    command = [sys.executable, "-c", _CLI]
    show("running the demo")
    take_by([sys.executable, "-m", "benchmarks.whole", *command, "demo", "run"], environ)
    whole = [*command, "run", "flights"]
    take_by([sys.executable, "-m", "benchmarks.whole", *whole], environ)  # what the demo left
    race = Race(
        within=lambda _: take("replicate_all", environ, pipeline="flights"),
        whole=lambda _: take_by([sys.executable, "-m", "benchmarks.whole", *whole], environ),
    ).run(rounds)
    assert all(taken.told["batches"] == 0 for taken in race.taken["within"])
    return [
        Result(
            what=f"a run that finds nothing to do, {what}, a table", unit="s", bar=0.3,
            values=[taken.seconds / 5 for taken in race.taken[name]],
            note=f"{race.seconds(name):.2f} s for 5 tables, {race.rss_mb(name):.0f} MB",
        )
        for name, what in (("whole", "whole process"), ("within", "within a process"))
    ]  # fmt: skip


def memory(ground: Ground, _: int) -> list[Result]:
    """Peak RSS of each step: all of lineitem, then 8 % of it changed; and of half of it."""
    load_tpch(ground, "lineitem")
    _reset(ground)
    results = []
    for table in ("lineitem_half", "lineitem"):
        for what, how in (("first, whole", _nothing), ("8 % changed", _change_lineitem)):
            how(ground, table)
            for step in ("capture_table", "apply", "load"):
                ground.settle()
                taken = ground.take(step, table=table)
                show(f"  {table} {what} {step}: {taken.seconds:.2f} s, {taken.rss_mb:.0f} MB")
                name = f"{step.removesuffix('_table')} of {table}, {what}: peak RSS"
                bar = None if step == "apply" else 400
                results.append(
                    _rss(name, [taken.rss_mb], bar=bar, note=f"{taken.seconds:.1f} s {taken.told}")
                )
    return results


SUITES = {
    "extract": extract,
    "diff": diff,
    "staging": staging,
    "load": load,
    "first": first,
    "most": most,
    "idle": idle,
    "memory": memory,
    "duckdb": duckdb,
    "mssql": mssql,
}


def _rss(what: str, values: Sequence[float], *, bar: float | None, note: str = "") -> Result:
    return Result(what=what, values=values, bar=bar, unit="MB", note=note)


@contextmanager
def _folder(ground: Ground, name: str) -> Iterator[Path]:
    folder = ground.files / name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wire_bytes(ground: Ground, url: str, step: str, **said: object) -> int:
    """Return the bytes between one step and the source, counted outside of the timed rounds."""
    with wiretap(url) as wire:
        if step == "adbc_read":
            said["url"] = wire.url
        take(step, {**ground.environ, "NAVIGLIO_CONN_OPERATIONS": wire.url}, **said)
        return wire.bytes


def _change_orders(ground: Ground, number: int) -> None:
    share = _ORDERS_SHARE.format(number % 100)
    ground.run(
        "operations_app",
        f"UPDATE orders SET o_shippriority = o_shippriority + 1 WHERE {share}",
        "VACUUM (ANALYZE) orders",
    )
    ground.settle()


def _checked(ground: Ground, taken: Taken) -> Taken:
    """See that the target holds what it should, whoever loaded it."""
    wanted = "SELECT count(*), count(*) FILTER (WHERE updated_at > %s) FROM bench.lineitem"
    with (
        psycopg.connect(ground.url("warehouse", "bench_base")) as base,
        psycopg.connect(ground.url("warehouse", "bench_load")) as loaded,
    ):
        (before, last) = base.execute(
            "SELECT count(*), max(updated_at) FROM bench.lineitem"
        ).fetchone() or (0, None)
        found = loaded.execute(wanted, (last,)).fetchone()
    updates, inserts = round(UPDATES * ground.scale), round(INSERTS * ground.scale)
    assert found == (before + inserts, updates + inserts), found
    return taken


def _reset(ground: Ground) -> None:
    """Make lineitem_half anew, and forget what a kept home has captured of both."""
    ground.run(
        "operations_app",
        "DROP TABLE IF EXISTS lineitem_half",
        "CREATE TABLE lineitem_half (LIKE lineitem INCLUDING ALL)",
        "INSERT INTO lineitem_half SELECT * FROM lineitem WHERE l_orderkey % 2 = 0",
        "VACUUM (FREEZE, ANALYZE) lineitem_half",
    )
    for table in ("lineitem", "lineitem_half"):
        shutil.rmtree(ground.home.landing / "bench" / table, ignore_errors=True)
        shutil.rmtree(ground.home.lake / "bench" / table, ignore_errors=True)
        ground.run("warehouse", f"DROP TABLE IF EXISTS bench.{table}")
    with psycopg.connect(ground.url("warehouse"), autocommit=True) as connection:
        if connection.execute("SELECT to_regclass('naviglio.ledger')").fetchone() != (None,):
            connection.execute("DELETE FROM naviglio.ledger WHERE pipeline = 'bench'")


def _nothing(ground: Ground, table: str) -> None:
    """Change nothing."""
    del ground, table


def _change_lineitem(ground: Ground, table: str) -> None:
    share = "('x' || left(md5(l_orderkey::text || l_linenumber), 7))::bit(28)::int % 100 < 8"
    ground.run(
        "operations_app",
        f"UPDATE {table} SET l_quantity = l_quantity + 1, updated_at = clock_timestamp()"
        f" WHERE {share}",
        f"VACUUM (ANALYZE) {table}",
        "SELECT pg_sleep(1.5)",  # past the fence's margin
    )
