"""After every kind of lake commit a target that believes its feed equals the lake."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from naviglio.errors import RetryableError, StorageError
from naviglio.lake.table import LakeTable
from naviglio.model import TableSchema
from tests.unit.lake.landing import SCHEMA, Landing, Mirror, column, row, rows_in, window


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    """Return a landing with a snapshot and a stream batch."""
    landing = Landing(tmp_path / "landing")
    landing.add("snapshot", [row(i, f"v{i}", i % 9 + 1) for i in range(1, 30)], why="first")
    landing.add("stream", [row(1, "b"), {"id": 2, "_op": "delete"}])
    return landing


@pytest.fixture
def lake(tmp_path: Path, landing: Landing) -> LakeTable:
    """Return a lake table at batch 2."""
    lake = LakeTable(str(tmp_path / "lake"))
    landing.apply(lake)
    return lake


@pytest.fixture
def mirror(lake: LakeTable) -> Mirror:
    """Return a target that is up to date."""
    mirror = Mirror(lake)
    feed = mirror.load()
    assert feed is not None
    assert feed.why_whole == "first load"
    assert mirror.load() is None
    return mirror


Act = Callable[[LakeTable, Landing], object]


def _vacuum(lake: LakeTable) -> None:
    DeltaTable(lake.uri).vacuum(
        retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True
    )


def _stream(lake: LakeTable, landing: Landing) -> None:
    landing.add("stream", [row(3, "c"), {"id": 4, "_op": "delete"}, row(99, "new")])
    landing.apply(lake)


def _window(lake: LakeTable, landing: Landing) -> None:
    landing.add("window", [row(5, "in", 4)], event_time="at", windows=(window(3, 6),))
    landing.apply(lake)


def _snapshot(lake: LakeTable, landing: Landing) -> None:
    landing.add("snapshot", [row(7, "only"), row(8, "v8", 9)])
    landing.apply(lake)


def _add_column(lake: LakeTable, landing: Landing) -> None:
    schema = TableSchema(columns=(*SCHEMA.columns, column("n", "int32")), key=("id",))
    landing.add("stream", [row(1, "n", n=7)], schema=schema)
    landing.apply(lake)


def _compact(lake: LakeTable, landing: Landing) -> None:
    _stream(lake, landing)
    DeltaTable(lake.uri).optimize.compact()


def _compact_and_vacuum(lake: LakeTable, landing: Landing) -> None:
    DeltaTable(lake.uri).optimize.compact()
    _vacuum(lake)


def _twice(lake: LakeTable, landing: Landing) -> None:
    _stream(lake, landing)
    landing.add(
        "stream", [{"id": 3, "_op": "delete"}, row(4, "again"), {"id": 77, "_op": "delete"}]
    )
    landing.apply(lake)


def _checkpoint(lake: LakeTable, landing: Landing) -> None:
    DeltaTable(lake.uri).create_checkpoint()
    _stream(lake, landing)


def _nothing(lake: LakeTable, landing: Landing) -> None:
    landing.add(None)
    landing.apply(lake)


PLAIN: dict[str, Act] = {
    "merge": _stream,
    "two merges": _twice,
    "window replace": _window,
    "snapshot merge": _snapshot,
    "schema add": _add_column,
    "compaction": _compact,
    "checkpoint": _checkpoint,
    "data-free": _nothing,
    "compaction and vacuum alone": _compact_and_vacuum,
}


@pytest.mark.parametrize("act", PLAIN.values(), ids=PLAIN.keys())
def test_a_plain_commit_feeds_changes(
    lake: LakeTable, landing: Landing, mirror: Mirror, act: Act
) -> None:
    """The feed of our own commits and of compactions is changes, not all rows."""
    act(lake, landing)
    feed = mirror.load()
    assert feed is not None
    assert feed.why_whole == ""
    assert feed.batch == len(landing.batches)
    assert mirror.rows == rows_in(lake) == landing.replayed()
    assert mirror.load() is None
    assert feed.rows == len(mirror.rows)


def test_a_feed_counts_what_changed_before_it_is_read(
    lake: LakeTable, landing: Landing, mirror: Mirror
) -> None:
    """Each touched row of each commit; moved rows and rows that are the same already are none."""
    _compact(lake, landing)  # after a stream batch of three changes
    moved = mirror.load()
    _stream(lake, landing)
    same = lake.feed(mirror.ledger)
    assert (moved and moved.changed_rows, same and same.changed_rows) == (3, 0)


def test_an_append_feeds_changes(tmp_path: Path) -> None:
    """The rows of a first snapshot reach a target that saw the table empty."""
    lake, landing = LakeTable(str(tmp_path / "lake")), Landing(tmp_path / "landing")
    landing.add("snapshot", [])
    landing.apply(lake)
    mirror = Mirror(lake)
    mirror.load()
    landing.add("snapshot", [row(1, "a")])
    landing.apply(lake)
    feed = mirror.load()
    assert feed is not None
    assert feed.why_whole == ""
    assert mirror.rows == landing.replayed()


def _restore(lake: LakeTable, _: Landing) -> None:
    DeltaTable(lake.uri).restore(1)


def _vacuumed(lake: LakeTable, landing: Landing) -> None:
    _stream(lake, landing)
    _vacuum(lake)


def _recreated(lake: LakeTable, landing: Landing) -> None:
    shutil.rmtree(lake.uri)
    landing.apply(lake)


def _foreign_append(lake: LakeTable, _: Landing) -> None:
    rows = pa.table(DeltaTable(lake.uri).scan(predicate="id = 5"))
    write_deltalake(lake.uri, rows.set_column(0, "id", pa.array([55], pa.int64())), mode="append")


def _cleaned_log(lake: LakeTable, landing: Landing) -> None:
    _stream(lake, landing)
    DeltaTable(lake.uri).create_checkpoint()
    last = lake.version() or 0
    for log in (Path(lake.uri) / "_delta_log").glob("0*.json"):
        if int(log.stem) < last:
            log.unlink()
    _stream(lake, landing)


def _retyped(lake: LakeTable, landing: Landing) -> None:
    schema = TableSchema(columns=(column("id", "string"), *SCHEMA.columns[1:]), key=("id",))
    landing.add("snapshot", [row("1", "x")], schema=schema)  # type: ignore[arg-type]
    landing.apply(lake)


def _relabelled(lake: LakeTable, landing: Landing) -> None:
    longer = replace(SCHEMA.columns[2], length=9)
    schema = TableSchema(columns=(*SCHEMA.columns[:2], longer), key=("id",))
    landing.add("stream", [row(1, "x")], schema=schema)
    landing.apply(lake)


WHOLE: dict[str, tuple[Act, str]] = {
    "restore": (_restore, r"^commit \d+ is RESTORE by someone else$"),
    "vacuumed history": (_vacuumed, r"^the change rows of commit \d+ are gone$"),
    "cleaned log": (_cleaned_log, r"^the log of versions \d+ to \d+ can't be read"),
    "re-created table": (_recreated, r"^another lake table$"),
    "foreign append": (_foreign_append, r"^commit \d+ is WRITE Append by someone else$"),
    "foreign delete": (
        lambda lake, _: DeltaTable(lake.uri).delete("id = 5"),
        r"^commit \d+ is DELETE by someone else$",
    ),
    "foreign update": (
        lambda lake, _: DeltaTable(lake.uri).update(updates={"x": "'u'"}, predicate="id = 5"),
        r"^commit \d+ is UPDATE by someone else$",
    ),
    "foreign property": (
        lambda lake, _: DeltaTable(lake.uri).alter.set_table_properties(
            {"delta.appendOnly": "false"}
        ),
        r"^commit \d+ is SET TBLPROPERTIES by someone else$",
    ),
    "type change": (_retyped, r"^commit \d+ is WRITE Overwrite without change rows$"),
    "relabelled column": (_relabelled, r"^the logical schema changed$"),
    "rebuild": (
        lambda lake, landing: lake.rebuild(landing.batches, str(landing.root)),
        r"^commit \d+ is WRITE Overwrite without change rows$",
    ),
}


@pytest.mark.parametrize(("act", "reason"), WHOLE.values(), ids=WHOLE.keys())
def test_any_other_commit_feeds_all_rows(
    lake: LakeTable, landing: Landing, mirror: Mirror, act: Act, reason: str
) -> None:
    """What the change feed can't tell is a feed of all rows that says why."""
    act(lake, landing)
    feed = mirror.load()
    assert feed is not None
    assert re.search(reason, feed.why_whole), feed.why_whole
    assert mirror.rows == rows_in(lake)
    assert mirror.load() is None


def test_a_lake_that_went_back_feeds_all_rows(lake: LakeTable, mirror: Mirror) -> None:
    """A ledger ahead of the lake (a restored folder) is told so."""
    assert mirror.ledger is not None
    feed = lake.feed(replace(mirror.ledger, version=99))
    assert feed is not None
    assert feed.why_whole == "the lake went back"


@pytest.mark.parametrize("whole", [False, True])
def test_a_vacuum_beside_a_reader_is_tried_again(
    lake: LakeTable, landing: Landing, mirror: Mirror, *, whole: bool
) -> None:
    """A feed whose files go away before it is read costs another run."""
    _stream(lake, landing)
    feed = lake.feed(None if whole else mirror.ledger)
    assert feed is not None
    _snapshot(lake, landing)
    _vacuum(lake)
    with pytest.raises(RetryableError, match="vacuum"):
        list(feed.batches)
    mirror.load()
    assert mirror.rows == landing.replayed()


def test_a_lost_file_is_named(lake: LakeTable, landing: Landing, mirror: Mirror) -> None:
    """A data file that the newest version needs is a matter of storage: trying again won't do."""
    _stream(lake, landing)
    feeds = lake.feed(mirror.ledger), lake.feed(None)
    files = [Path(file) for file in DeltaTable(lake.uri).file_uris()]
    for file in files:
        file.unlink()
    for feed in feeds:
        assert feed is not None
        with pytest.raises(StorageError, match=min(file.name for file in files)):
            list(feed.batches)


def test_a_damaged_file_is_told_as_the_storages(
    lake: LakeTable, landing: Landing, mirror: Mirror
) -> None:
    """Bytes that a disk has lost are neither a bug's traceback nor worth trying again."""
    _stream(lake, landing)
    feeds = lake.feed(mirror.ledger), lake.feed(None)
    for file in DeltaTable(lake.uri).file_uris():
        Path(file).write_bytes(b"\0" * Path(file).stat().st_size)
    for feed in feeds:
        assert feed is not None
        with pytest.raises(StorageError, match="naviglio rebuild"):
            list(feed.batches)


def test_an_untouched_feed_leaves_nothing_behind(
    lake: LakeTable,
    landing: Landing,
    mirror: Mirror,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A consumer that stops early, or never starts, leaves no temporary folder."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    _stream(lake, landing)
    for taken in (0, 1):
        feed = lake.feed(mirror.ledger)
        assert feed is not None
        for _ in range(taken):
            next(feed.batches)
        assert len(list(scratch.iterdir())) == taken
        del feed
        assert list(scratch.iterdir()) == []
