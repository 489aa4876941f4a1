"""Landing, lake, ledger and source belong together: a stranger stops the run, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.errors import ConfigError, IdentityError, RetryableError
from tests.integration.lines import (
    DIFF,
    STREAM,
    SWEPT,
    Line,
    drop_schemas,
    error_of,
    moved_aside,
    new_line,
)

TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, name text, modified_at timestamptz DEFAULT now())"


@pytest.fixture
def filled(line: Line) -> Line:
    """A line whose table has been carried in two batches."""
    line.declare(t=STREAM)
    line.source(TABLE, "INSERT INTO t SELECT n, 'first' FROM generate_series(1, 20) n")
    line.run()
    line.source("INSERT INTO t SELECT n, 'second' FROM generate_series(21, 30) n")
    line.run()
    return line


def change(line: Line) -> None:
    """Change the source so that there is something to carry."""
    line.source("INSERT INTO t SELECT max(id) + 1, 'later' FROM t")


def stopped(line: Line, *words: str) -> str:
    """Run; expect an identity error with these words and nothing written anywhere."""
    before = line.traces()
    error = error_of(line.try_run())
    assert isinstance(error, IdentityError), error
    for word in words:
        assert word in str(error), error
    assert line.traces() == before
    return str(error)


def test_a_deleted_landing_stops_the_run_until_it_is_restored(filled: Line) -> None:
    """The error names the folder to restore; restored, the run goes on where it was."""
    aside = moved_aside(filled.landing_of())
    change(filled)
    message = stopped(filled, "gone or empty", str(filled.landing_of()))
    assert "move the lake table's folder away" in message
    shutil.rmtree(filled.landing_of(), ignore_errors=True)
    aside.rename(filled.landing_of())
    filled.run()
    assert filled.ledger().batch == 3
    assert filled.agrees()


def test_a_lost_landing_is_replaced_by_the_steps_that_the_errors_advise(filled: Line) -> None:
    """Lake moved away, target accepted: all is read anew and the target only gets what differs."""
    shutil.rmtree(filled.landing_of())
    change(filled)
    stopped(filled, "move the lake table's folder away")
    moved_aside(filled.lake_of())
    message = stopped(filled, "was loaded from another landing", f"naviglio accept {filled.name}")
    assert "--table t" in message
    stopped(filled, "was loaded from another landing")
    filled.accept()
    filled.run()
    row = filled.ledger()
    assert (row.batch, row.why_whole) == (1, "another lake table")
    assert (row.inserted, row.updated, row.deleted, row.unchanged) == (1, 0, 0, 30)
    assert filled.agrees()
    assert filled.questions() == []


def test_two_landings_can_not_feed_one_lake_table(filled: Line, tmp_path: Path) -> None:
    """A second home whose lake is the first one's stops, whatever its landing holds."""
    shutil.copytree(filled.home.lake, tmp_path / "other" / "lake")
    home, filled.home = (
        filled.home,
        type(filled.home)(root=tmp_path / "other", pipelines=filled.home.pipelines),
    )
    lake = filled.home.lake.rename(tmp_path / "lake-aside")
    change(filled)
    stopped(filled, "was loaded from another landing")  # its own landing is new
    lake.rename(filled.home.lake)
    stopped(filled, "was built from landing", "gone or empty")
    filled.home = home
    filled.run()
    assert filled.agrees()


def test_a_landing_of_another_group_is_refused(filled: Line) -> None:
    """A folder copied from another table's landing is told by the group in it."""
    filled.declare(t=STREAM, u=STREAM)
    filled.source(TABLE.replace("TABLE t", "TABLE u"), "INSERT INTO u VALUES (1, 'x')")
    shutil.copytree(filled.landing_of("t"), filled.landing_of("u"))
    reports = filled.try_run()
    assert isinstance(reports["u"].error, IdentityError)
    assert "is the landing of group 't'" in str(reports["u"].error)
    assert reports["t"].error is None
    assert not filled.lake_of("u").exists()


@pytest.mark.parametrize("way", [STREAM, DIFF])
def test_an_older_copy_of_a_landing_is_refused_until_the_newer_is_back(
    line: Line, tmp_path: Path, way: str
) -> None:
    """Batches that the lake has applied and the landing lacks are never numbered again."""
    line.declare(t=way)
    line.source(TABLE, "INSERT INTO t SELECT n, 'first' FROM generate_series(1, 20) n")
    line.run()
    shutil.copytree(line.landing_of(), tmp_path / "older")
    change(line)
    line.run()
    newer = moved_aside(line.landing_of())
    shutil.copytree(tmp_path / "older", line.landing_of())
    change(line)
    stopped(line, "has applied batch 2", "ends at 1", "older copy")
    shutil.rmtree(line.landing_of())
    newer.rename(line.landing_of())
    line.run()
    assert line.agrees()


def test_an_older_copy_of_landing_and_lake_goes_on_as_advised(filled: Line, tmp_path: Path) -> None:
    """Restored from a backup, both are behind the target: nothing runs until a person accepts."""
    shutil.copytree(filled.home.root, tmp_path / "backup")
    change(filled)
    filled.source("UPDATE t SET name = 'newest', modified_at = now() WHERE id = 1")
    filled.run()
    shutil.rmtree(filled.home.root)
    shutil.copytree(tmp_path / "backup", filled.home.root)
    message = stopped(filled, "batch 3", "batch 2", "naviglio accept", "lake table's folder away")
    assert str(filled.lake_of()) in message
    filled.accept()
    stopped(filled, "lake table's folder away")  # the target could take versions for others
    moved_aside(filled.lake_of())
    filled.source("DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (99, 'other history')")
    filled.run()
    assert filled.ledger().why_whole == "another lake table"
    assert filled.lake_is_target()
    filled.run()
    change(filled)
    filled.run()
    assert filled.ledger().why_whole == ""
    assert filled.lake_is_target()


def test_an_accepted_backup_holds_for_that_backup_only(filled: Line, tmp_path: Path) -> None:
    """The next time that a landing goes back, a person is asked again."""
    shutil.copytree(filled.home.root, tmp_path / "backup")
    change(filled)
    filled.run()
    shutil.rmtree(filled.home.root)
    shutil.copytree(tmp_path / "backup", filled.home.root)
    stopped(filled)
    filled.accept()
    moved_aside(filled.lake_of())
    filled.run()
    shutil.rmtree(tmp_path / "backup")
    shutil.copytree(filled.home.root, tmp_path / "backup")
    change(filled)
    filled.run()
    shutil.rmtree(filled.home.root)
    shutil.copytree(tmp_path / "backup", filled.home.root)
    moved_aside(filled.lake_of())
    change(filled)
    stopped(filled, "naviglio accept")


def test_two_copies_of_a_home_that_both_go_on_are_told_apart(filled: Line, tmp_path: Path) -> None:
    """While its target was away a copy landed a batch of the number that the target has by now."""
    shutil.copytree(filled.home.root, tmp_path / "twin")
    twin = replace(filled, home=replace(filled.home, root=tmp_path / "twin"))
    change(filled)
    filled.run()
    change(filled)
    away = replace(twin, urls={**twin.urls, "warehouse": "postgresql://127.0.0.1:1/nowhere"})
    assert isinstance(error_of(away.try_run()), RetryableError)
    assert [b.number for b in twin.batches()] == [b.number for b in filled.batches()]
    message = stopped(twin, "another copy of this landing", "naviglio accept")
    twin.accept()
    assert str(twin.lake_of()) in message
    moved_aside(twin.lake_of())
    twin.run()
    assert twin.agrees()
    stopped(filled, "another copy of this landing")


def test_a_lake_folder_that_is_a_strangers_is_left_alone(filled: Line) -> None:
    """A Delta table without our mark is refused and not a byte of it changes."""
    import pyarrow as pa
    from deltalake import write_deltalake

    moved_aside(filled.lake_of())
    write_deltalake(str(filled.lake_of()), pa.table({"id": pa.array([1, 2, 3])}))
    change(filled)
    stopped(filled, "was not made by Naviglio", "Move")
    moved_aside(filled.lake_of())
    filled.run()
    assert filled.agrees()


def test_a_manifest_changed_by_hand_stops_the_replay(filled: Line) -> None:
    """Each manifest carries the hash of the one before: a changed one has no successor."""
    first = filled.landing_of() / "manifests" / "0000000001.json"
    text = first.read_bytes()
    shutil.rmtree(filled.lake_of())
    first.write_bytes(text.replace(b'"first capture"', b'"Xirst capture"'))
    error = error_of(filled.try_run())
    assert isinstance(error, IdentityError)
    assert "does not follow manifest 1" in str(error)
    first.write_bytes(text)
    filled.run()
    assert filled.agrees()


# --- the target ---------------------------------------------------------------------------------


def test_a_target_belongs_to_one_pipeline(filled: Line, cluster: Cluster, tmp_path: Path) -> None:
    """A second pipeline is told whose it is, and changes nothing of it."""
    other = new_line(cluster, tmp_path / "other")
    try:
        other.declare(t=f"{{capture: diff, source: {other.name}.t, target: {filled.name}.t}}")
        other.source(TABLE, "INSERT INTO t VALUES (1, 'stranger')")
        before = filled.traces()
        error = error_of(other.try_run())
        assert isinstance(error, ConfigError)
        assert filled.name in str(error)
        assert "one pipeline a target" in str(error)
        assert filled.traces() == before
        other.declare(t=DIFF)
        other.run()
        assert other.agrees()
    finally:
        drop_schemas(other)


def test_an_earlier_version_may_load_beside(filled: Line) -> None:
    """It leaves the attempt of the batch that this version loaded last: that tells nothing."""
    kept = filled.ledger().batch_attempt
    change(filled)
    filled.run()
    filled.target(f"UPDATE naviglio.ledger SET batch_attempt = '{kept}'")
    change(filled)
    filled.run()
    assert filled.ledger().batch == 4
    assert filled.ledger().batch_attempt != kept
    assert filled.agrees()


def test_an_older_copy_of_the_warehouse_catches_up(filled: Line) -> None:
    """Target and ledger restored together are brought forward by the changes since."""
    filled.target("CREATE TABLE kept_t AS TABLE t")
    row = filled.ledger()
    filled.source("DELETE FROM t WHERE id = 1")
    filled.source("UPDATE t SET name = 'new', modified_at = now() WHERE id < 5")
    change(filled)
    filled.run()
    filled.target(
        "DELETE FROM t", "INSERT INTO t SELECT * FROM kept_t", "DROP TABLE kept_t",
        f"UPDATE naviglio.ledger SET version = {row.version}, batch = {row.batch}, "
        f"attempt = '{row.attempt}', batch_attempt = '{row.batch_attempt}' "
        f"WHERE target = '{row.target}'",
    )  # fmt: skip
    filled.run()
    assert filled.ledger().batch == 3
    assert filled.ledger().why_whole == ""
    assert filled.lake_is_target()


def test_a_target_table_that_is_gone_is_not_made_anew_in_silence(filled: Line) -> None:
    """The error tells the one statement by which a whole load is asked for; it works."""
    filled.target("DROP TABLE t")
    change(filled)
    error = error_of(filled.try_run())
    assert isinstance(error, ConfigError)
    statement = str(error)[str(error).index("DELETE FROM") :]
    filled.target(statement)
    filled.run()
    assert filled.ledger().why_whole == "first load"
    assert filled.agrees()


# --- the source ---------------------------------------------------------------------------------


def test_a_copy_of_the_source_database_is_another_source(filled: Line, cluster: Cluster) -> None:
    """A database made from it (a restored dump) is refused until `resnapshot`, which heals."""
    copy = f"copy_{filled.name}"
    urls = dict(filled.urls)
    with psycopg.connect(cluster.urls()["admin"], autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {copy} TEMPLATE operations".encode())
        try:
            for name in ("operations", "operations_app"):
                filled.urls[name] = urls[name].replace("/operations?", f"/{copy}?")
            filled.source("DELETE FROM t WHERE id = 1")
            change(filled)
            message = stopped(filled, "not the one that was captured before", "resnapshot")
            assert f"source {copy}" in message
            filled.resnapshot()
            assert filled.agrees()
            assert 1 not in {int(row[0] or 0) for row in filled.target_rows()}
        finally:
            filled.urls = urls
            admin.execute(f"DROP DATABASE {copy} WITH (FORCE)".encode())
    stopped(filled, "not the one that was captured before")
    filled.resnapshot()
    assert filled.agrees()


@pytest.fixture(scope="module")
def restorable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server of one's own, to set back."""
    made = Cluster(tmp_path_factory.mktemp("restorable"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_a_source_set_back_to_an_earlier_moment_is_refused(
    cluster: Cluster, restorable: Cluster, tmp_path: Path
) -> None:
    """Neither while it is behind nor when it has gone on to another future; `resnapshot` heals."""
    line = new_line(cluster, tmp_path, source=restorable)
    line.declare(t=STREAM)
    line.source(TABLE, "INSERT INTO t SELECT n, 'first' FROM generate_series(1, 20) n")
    line.run()
    restorable.stop()
    data = restorable.home / "data"
    shutil.copytree(data, tmp_path / "backup")
    restorable.start()
    line.source("INSERT INTO t VALUES (21, 'lost')", "UPDATE t SET name = 'lost' WHERE id = 2")
    line.run()
    restorable.stop()
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "backup", data)
    owner = (restorable.home / "socket").stat()
    _own(data, owner.st_uid, owner.st_gid)
    restorable.start()
    stopped(line, "not the one that was captured before", "resnapshot")
    line.source("CREATE TABLE filler AS SELECT repeat('x', 900) FROM generate_series(1, 5000)")
    line.source("INSERT INTO t VALUES (22, 'another future')", "DROP TABLE filler")
    message = stopped(line, "not the one that was captured before", "resnapshot")
    assert "committed at" in message
    line.resnapshot()
    assert line.agrees()
    drop_schemas(line)


def _own(folder: Path, user: int, group: int) -> None:
    import os

    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, group)
    folder.chmod(0o700)


WINDOWS = "{capture: windows, event_time: modified_at, since: 2013-01-01}"


@pytest.mark.parametrize("way", [STREAM, SWEPT, WINDOWS])
def test_a_pipeline_that_names_another_source_table_is_asked(line: Line, way: str) -> None:
    """A position is one table's: another one's rows take their place, once somebody says so."""
    columns = "(id bigint PRIMARY KEY, name text, modified_at timestamptz NOT NULL DEFAULT now())"
    line.source(
        f"CREATE TABLE a {columns}", f"CREATE TABLE t {columns}",
        "INSERT INTO t SELECT n, 'b' FROM generate_series(31, 80) n",
        "INSERT INTO a SELECT n, 'a', '2013-01-02' FROM generate_series(1, 50) n",
    )  # fmt: skip
    line.declare(t=f"{way[:-1]}, source: {line.name}.a}}")
    line.run() if way != WINDOWS else line.partitions("2013-01-02")
    line.declare(t=way)
    assert f"the source table was {line.name}.a, is" in str(error_of(line.try_run()))
    assert line.plan().action == "ask"
    line.accept()
    line.run()
    assert line.batches()[-1].parts[0].kind == "snapshot"
    assert line.agrees()
    if way != WINDOWS:
        line.source("INSERT INTO t VALUES (100, 'new')")
        line.run()
        assert line.agrees()
