"""Batches become commits: in order, once, and equal to a replay of the landing."""

from __future__ import annotations

import resource
import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from deltalake import DeltaTable

from naviglio import points
from naviglio.errors import ConfigError, DataError, IdentityError, NaviglioError, StorageError
from naviglio.lake.table import LakeTable
from naviglio.model import TableSchema
from tests.unit.lake.landing import AT, SCHEMA, Landing, Mirror, at, column, row, rows_in, window

ODD = "a#b ü{x,y}'\"$~"


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    """Return an empty landing, in a folder whose name needs escaping."""
    return Landing(tmp_path / ODD / "my landing")


@pytest.fixture
def lake(tmp_path: Path) -> LakeTable:
    """Return a lake table that does not exist yet."""
    return LakeTable(str(tmp_path / ODD / "my lake" / "t"))


def test_nothing_is_a_lake_table_too(lake: LakeTable) -> None:
    """Without a table every question has an answer."""
    assert not lake.exists()
    assert (lake.applied(), lake.table_id(), lake.version()) == ((None, 0), None, None)
    assert lake.feed(None) is None
    assert list(lake.scan()) == []


def test_every_kind_of_part_adds_up_to_the_replay(lake: LakeTable, landing: Landing) -> None:
    """After each batch the lake equals the replay of the landing."""
    wider = TableSchema(columns=(*SCHEMA.columns, column("n", "timestamp[us]")), key=("id",))
    retyped = TableSchema(columns=(column("id", "string"), *SCHEMA.columns[1:]), key=("id",))
    days = {"event_time": "at", "windows": (window(4, 5), window(7, 8))}
    landing.add(None)
    landing.add("snapshot", [row(i, f"v{i}", i % 9 + 1) for i in range(1, 50)], why="first")
    landing.add("stream", [row(1, ""), {"id": 2, "_op": "delete"}, row(100, None)])
    landing.add("stream", [])
    landing.add("window", [row(3, "moved in", 4), row(200, "new", 4)], **days)
    landing.add("window", [], event_time="at", windows=(window(5, 6),))
    landing.add("stream", [row(1, "", n=datetime(2001, 1, 1))], schema=wider)  # noqa: DTZ001 - naive
    landing.add("stream", [row(5, "old schema again")], schema=SCHEMA)
    landing.add("snapshot", [row(i, f"v{i}", i % 8 + 1) for i in range(5, 45)], schema=SCHEMA)
    landing.add("snapshot", [])
    landing.add("snapshot", [row(1, "back")])
    landing.add("snapshot", [row("1", "text")], schema=retyped)  # type: ignore[arg-type]
    mirror, batches = Mirror(lake), list(landing.batches)
    for n in range(1, len(batches) + 1):
        landing.batches = batches[:n]
        landing.apply(lake, n)
        assert lake.number() == n
        assert rows_in(lake) == landing.replayed(), f"batch {n}"
        mirror.load()
        assert mirror.rows == landing.replayed(), f"feed of batch {n}"


def test_a_batch_is_applied_once(lake: LakeTable, landing: Landing) -> None:
    """A second apply commits nothing; a gap is refused and named."""
    for n in range(1, 4):
        landing.add("snapshot", [row(1, str(n))])
    (first, part), third = landing.batches[0], landing.batches[2]
    applied = lake.apply(first, part, str(landing.root))
    assert applied is not None
    assert (applied.batch, applied.version, applied.rows) == (1, lake.version(), 1)
    assert lake.apply(first, part, str(landing.root)) is None
    with pytest.raises(DataError, match=r"at batch 1; batch 3 can't follow"):
        lake.apply(*third, str(landing.root))
    assert (lake.number(), lake.version()) == (1, applied.version)


@pytest.mark.parametrize("kind", ["stream", "window", None])
def test_a_batch_without_changes_tells_its_own_version(
    lake: LakeTable, landing: Landing, kind: str | None
) -> None:
    """A commit of the number alone is a version, and the report names it."""
    days = {"event_time": "at", "windows": (window(1, 2),)}
    landing.add("snapshot", [row(1, "a", 1)])
    landing.apply(lake)
    landing.add(kind, [row(1, "a", 1)] if kind else [], **(days if kind == "window" else {}))  # type: ignore[arg-type]
    applied = lake.apply(*landing.batches[1], str(landing.root))
    assert applied is not None
    assert applied.version == lake.version() == 2


@pytest.mark.parametrize("kind", ["snapshot", "stream", "window", None])
def test_racing_workers_commit_a_batch_once(lake: LakeTable, landing: Landing, kind: str) -> None:
    """Two workers stopped before the commit of one batch: one commits, the other finds it there."""
    landing.add("snapshot", [row(1, "a"), row(2, "b")])
    landing.apply(lake)
    more = {"event_time": "at", "windows": (window(1, 2),)} if kind == "window" else {}
    landing.add(kind, [row(1, "c"), row(3, "d")], **more)  # type: ignore[arg-type]
    before, barrier, results = lake.version() or 0, threading.Barrier(2, timeout=60), []

    def stop(name: str) -> None:
        if name == "apply: before commit":
            barrier.wait()

    def work() -> None:
        with points.listening(stop):
            try:
                results.append(lake.apply(*landing.batches[1], str(landing.root)))
            except (NaviglioError, threading.BrokenBarrierError) as error:
                results.append(error)  # type: ignore[arg-type]

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(r).__name__ for r in results) == ["Applied", "NoneType"]
    assert lake.version() == before + 1
    assert rows_in(lake) == landing.replayed()


def test_a_commit_survives_a_compaction_beside(lake: LakeTable, landing: Landing) -> None:
    """A compaction between open and commit costs a retry, no row."""
    landing.add("snapshot", [row(i, "a") for i in range(5)])
    landing.add("stream", [row(9, "b")])
    landing.apply(lake)
    landing.add("stream", [row(1, "c")])
    compacted: list[str] = []

    def compact(name: str) -> None:
        if name == "apply: before commit" and not compacted:
            compacted.append(name)
            DeltaTable(lake.uri).optimize.compact()

    with points.listening(compact):
        landing.apply(lake)
    assert compacted
    assert lake.number() == 3
    assert rows_in(lake) == landing.replayed()


def test_a_stranger_is_refused(lake: LakeTable, landing: Landing, tmp_path: Path) -> None:
    """A batch of another landing stops with both ids, nothing written."""
    landing.add("snapshot", [row(1, "a")])
    landing.apply(lake)
    other = Landing(tmp_path / "other", name="landing-2")
    other.add("snapshot", [row(2, "b")])
    other.add("snapshot", [row(2, "b")])
    version = lake.version()
    with pytest.raises(IdentityError, match=r"landing-1.*landing-2"):
        other.apply(lake, 2)
    assert (lake.applied()[0], lake.version()) == ("landing-1", version)


def test_a_damaged_landing_file_is_named(lake: LakeTable, landing: Landing) -> None:
    """A missing, cut or flipped file stops the apply before anything is written."""
    landing.add("snapshot", [row(1, "a"), row(2, "b")])
    part = landing.batches[0][1]
    assert part is not None
    file = landing.root / part.files[0].path
    content = file.read_bytes()
    flipped = bytes([*content[:40], content[40] ^ 1, *content[41:]])
    for damage in (
        lambda: file.write_bytes(flipped), lambda: file.write_bytes(content[:-9]), file.unlink,
    ):  # fmt: skip
        damage()
        with pytest.raises(StorageError, match=file.name):
            landing.apply(lake)
        assert lake.number() == 0
    file.write_bytes(content)
    landing.apply(lake)
    assert rows_in(lake) == landing.replayed()


def test_a_file_of_other_types_is_refused(lake: LakeTable, landing: Landing) -> None:
    """A file whose columns aren't the manifest's is a matter of data; the columns are named."""
    landing.add("snapshot", [row(1, "secret")])
    manifest, part = landing.batches[0]
    assert part is not None
    other = (SCHEMA.columns[0], column("at", "date32[day]", "date"), column("y", "string"))
    with pytest.raises(DataError, match=r"lacks columns \['at', 'y'\]") as raised:
        lake.apply(
            manifest, replace(part, schema=replace(SCHEMA, columns=other)), str(landing.root)
        )
    assert "secret" not in str(raised.value)
    assert lake.number() == 0


def test_columns_that_differ_in_case_are_refused(lake: LakeTable, landing: Landing) -> None:
    """Delta can't hold them, from the start or later; both names are told."""
    landing.add("snapshot", [row(1, "a")])
    wider = replace(SCHEMA, columns=(*SCHEMA.columns, column("X", "string")))
    landing.add("stream", [row(1, "b", X="c")], schema=wider)
    with pytest.raises(ConfigError, match=r"'x' and 'X'|'X' and 'x'"):
        landing.apply(lake)
    assert (lake.number(), lake.schema()) == (1, SCHEMA)


def test_a_key_that_stands_twice_is_refused(lake: LakeTable, landing: Landing) -> None:
    """Two changes of one row in a part are a matter of data; no value is told."""
    landing.add("snapshot", [row(1, "a")])
    landing.add("stream", [row(1, "secret"), row(1, "other")])
    with pytest.raises(DataError, match="more than one row of a key") as raised:
        landing.apply(lake)
    assert "secret" not in str(raised.value)
    assert lake.number() == 1


def test_a_disk_without_room_is_told(lake: LakeTable, landing: Landing) -> None:
    """What the disk says stands in the error, and nothing of the batch is visible."""
    landing.add("snapshot", [row(1, "a")])
    landing.apply(lake)
    landing.add("stream", [row(i, f"secret {i * 7919}") for i in range(20_000)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(StorageError, match=r"\(DeltaError: File too large\)") as raised:
            landing.apply(lake)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "secret" not in str(raised.value)
    assert lake.number() == 1
    landing.apply(lake)
    assert rows_in(lake) == landing.replayed()


def test_only_a_snapshot_changes_a_type(lake: LakeTable, landing: Landing) -> None:
    """A stream with another carrier is refused; a longer text is only relabelled."""
    landing.add("snapshot", [row(1, "a")])
    longer = TableSchema(
        columns=(*SCHEMA.columns[:2], column("x", "string", length=9)), key=("id",)
    )
    landing.add("stream", [row(1, "b")], schema=longer)
    landing.apply(lake)
    feed = lake.feed(None)
    assert feed is not None
    assert feed.schema == longer
    retyped = TableSchema(
        columns=(*SCHEMA.columns[:2], column("x", "binary", "bytes")), key=("id",)
    )
    landing.add("stream", [row(1, b"c")], schema=retyped)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="resnapshot"):
        landing.apply(lake)
    assert lake.number() == 2


CASES = {
    "int16": (-32768, 32767), "int32": (-(2**31), 1), "int64": (2**63 - 1, 0),
    "bool": (True, False), "float": (0.5, -0.0), "double": (0.0, -0.0),
    "string": ("", "ünï\n'\"\\"), "binary": (b"", b"\0\xff"),
    "decimal128(38, 10)": (Decimal("1234567890123456789012345678.0123456789"), Decimal("-0.1")),
    "decimal128(5, 2)": (Decimal("999.99"), Decimal("0.10")),
    "date32[day]": (date(1, 1, 1), date(9999, 12, 31)),
    "timestamp[us]": (datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)),  # noqa: DTZ001
    AT: (datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, 1, 2, 3, 4, tzinfo=UTC)),
}  # fmt: skip


def test_every_carrier_survives_lake_and_feed(lake: LakeTable, landing: Landing) -> None:
    """Values of every carrier pass append, merge, scan and feed bit for bit, under odd names."""
    columns = [column(f'C "{n}".a`b {c}', c) for n, c in enumerate(CASES)]
    schema = TableSchema(columns=(column("Id", "string"), *columns), key=("Id",))
    rows = [
        {"Id": f"k{i}", **{c.name: v[i] for c, v in zip(columns, CASES.values(), strict=True)}}
        for i in (0, 1)
    ]
    mirror = Mirror(lake)
    landing.add("snapshot", [{"Id": "k0"}, rows[1]], schema=schema)
    landing.apply(lake)
    mirror.load()
    landing.add(
        "stream", [{**rows[1], "Id": "k0"}, {**rows[0], "Id": "k1"}, {**rows[0], "Id": "k2"}]
    )
    landing.apply(lake)
    feed = mirror.load()
    assert feed is not None
    assert feed.why_whole == ""
    assert (
        repr(_sorted(mirror.rows))
        == repr(_sorted(rows_in(lake)))
        == repr(_sorted(landing.replayed()))
    )


def _sorted(rows: dict[tuple[object, ...], dict[str, object]]) -> object:
    return sorted((k, sorted(row.items())) for k, row in rows.items())


def test_floats_are_compared_by_bytes(lake: LakeTable, landing: Landing) -> None:
    """-0.0 replaces 0.0; NaN replaces nothing but another value."""
    schema = TableSchema(columns=(column("id", "int64"), column("f", "double")), key=("id",))
    landing.add("snapshot", [{"id": 1, "f": 0.0}, {"id": 2, "f": float("nan")}], schema=schema)
    landing.add("snapshot", [{"id": 1, "f": -0.0}, {"id": 2, "f": float("nan")}])
    landing.apply(lake, 1)
    applied = lake.apply(*landing.batches[1], str(landing.root))
    assert applied is not None
    assert repr(rows_in(lake)[1,]["f"]) == "-0.0"


def test_rebuild_is_one_commit(lake: LakeTable, landing: Landing) -> None:
    """A rebuild undoes what others wrote: same table, same number, one commit, no folder left."""
    landing.add("snapshot", [row(i, "a") for i in range(9)])
    landing.add("stream", [row(1, "b"), {"id": 2, "_op": "delete"}])
    landing.apply(lake)
    DeltaTable(lake.uri).delete("id > 4")
    before = (lake.table_id(), (lake.version() or 0) + 1, 2)
    lake.rebuild(landing.batches, str(landing.root))
    assert (lake.table_id(), lake.version(), lake.number()) == before
    assert rows_in(lake) == landing.replayed()
    assert [p.name for p in Path(lake.uri).parent.iterdir()] == ["t"]


@pytest.mark.parametrize("damage", ["absent", "log"])
def test_rebuild_heals_a_lost_table(lake: LakeTable, landing: Landing, damage: str) -> None:
    """Without a table, or with a log that can't be read, the replay becomes the table."""
    landing.add("snapshot", [row(1, "a")])
    if damage == "log":
        landing.apply(lake)
        (Path(lake.uri) / "_delta_log" / f"{0:020}.json").write_text("{no json")
        with pytest.raises(StorageError, match="rebuild"):
            lake.number()
    lake.rebuild(landing.batches, str(landing.root))
    assert rows_in(lake) == landing.replayed()
    assert lake.number() == 1


def test_a_window_is_half_open(lake: LakeTable, landing: Landing) -> None:
    """Windows on dates and instants end before their end; the next day stays."""
    for n, kind in enumerate((AT, "timestamp[us]", "date32[day]")):
        schema = TableSchema(columns=(column("id", "int64"), column("at", kind)), key=("id",))
        table = LakeTable(f"{lake.uri}{n}")
        other = Landing(landing.root / str(n), schema=schema)
        moments = [at(d) if kind == AT else at(d).replace(tzinfo=None) for d in (4, 5, 6)]
        values = [m.date() if "date" in kind else m for m in moments]
        other.add("snapshot", [{"id": i, "at": v} for i, v in enumerate(values)])
        other.add("window", [], event_time="at", windows=(window(5, 6),))
        other.apply(table)
        assert sorted(rows_in(table)) == [(0,), (2,)]


@pytest.mark.parametrize(
    ("carrier", "first", "end"),
    [
        (AT, at(2), at(3)),
        ("timestamp[us]", datetime(2013, 1, 2), datetime(2013, 1, 3)),  # noqa: DTZ001 - naive
        ("date32[day]", date(2013, 1, 2), date(2013, 1, 3)),
    ],
)
def test_rows_of_a_window_are_counted(
    lake: LakeTable, landing: Landing, carrier: str, first: date, end: date
) -> None:
    """Whatever the type of the event time; half open, none without a time or a table."""
    assert lake.held("at", window(2, 3)) == 0
    landing.schema = TableSchema(
        columns=(column("id", "int64", "int64"), column("at", carrier)), key=("id",)
    )
    times = (first, end, None, first)
    landing.add("snapshot", [{"id": n, "at": time} for n, time in enumerate(times)])
    landing.apply(lake)
    assert lake.held("at", window(2, 3)) == 2
    assert lake.held("at", window(1, 9)) == 3
    assert lake.held("nothing", window(1, 9)) == 0
