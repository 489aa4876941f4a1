"""Whatever was committed to the lake, the target equals it after the next load."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from naviglio.flows.rebuild import rebuild
from tests.integration.lines import Line, moved_aside, window

TABLE = (
    "CREATE TABLE t (id bigint PRIMARY KEY, name text, day timestamptz NOT NULL, "
    "modified_at timestamptz NOT NULL DEFAULT now())"
)


@pytest.fixture
def loaded(line: Line) -> Line:
    """A line whose table has been carried in three batches."""
    line.declare(t="{capture: {where: modified_at}, deletes: none, event_time: day}")
    line.source(
        TABLE,
        "INSERT INTO t SELECT n, 'a', timestamptz '2013-01-01 12:00+00' "
        "+ (n % 4) * interval '1 day' FROM generate_series(1, 40) n",
    )
    line.run()
    for name in "bc":
        line.source(f"UPDATE t SET name = '{name}', modified_at = now() WHERE id % 7 = 0")
        line.run()
    return line


def delta(line: Line) -> DeltaTable:
    """Open the lake table as a stranger would."""
    return DeltaTable(str(line.lake_of()))


def nothing(line: Line) -> None:
    """Commit nothing."""


def merge(line: Line) -> None:
    """Change, add and delete rows."""
    line.source(
        "UPDATE t SET name = 'd', modified_at = now() WHERE id < 5",
        "INSERT INTO t SELECT max(id) + 1, 'x', '2013-01-02' FROM t",
    )


def window_replace(line: Line) -> None:
    """Read a day again from which rows are gone."""
    line.source(
        "DELETE FROM t WHERE id IN (4, 8)", "INSERT INTO t VALUES (52, 'w', '2013-01-01 23:00+00')"
    )
    line.run(window(line, "2013-01-01"))


def schema_add(line: Line) -> None:
    """Add a column."""
    line.source(
        "ALTER TABLE t ADD COLUMN extra numeric",
        "INSERT INTO t VALUES (51, 'y', '2013-01-02', DEFAULT, 1.50)",
    )


def compaction(line: Line) -> None:
    """Put small files together."""
    delta(line).optimize.compact()


def z_order(line: Line) -> None:
    """Sort the files anew."""
    delta(line).optimize.z_order(["day"])


def checkpoint(line: Line) -> None:
    """Write a checkpoint."""
    delta(line).create_checkpoint()


def restored(line: Line) -> None:
    """Take an older version back."""
    delta(line).restore(1)


def foreign_delete(line: Line) -> None:
    """Delete rows by another program."""
    delta(line).delete("id < 3")


def foreign_append(line: Line) -> None:
    """Append rows by another program."""
    table = delta(line)
    row = pa.RecordBatchReader.from_stream(table.scan()).read_all().slice(0, 1)
    row = row.set_column(row.schema.get_field_index("id"), "id", pa.array([777], pa.int64()))
    write_deltalake(table, row, mode="append")


def foreign_update(line: Line) -> None:
    """Change rows by another program."""
    delta(line).update(updates={"name": "'foreign'"}, predicate="id = 9")


def vacuumed(line: Line) -> None:
    """Remove what older versions need."""
    table = delta(line)
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)


def log_cleaned(line: Line) -> None:
    """Lose the log's older commits behind a checkpoint."""
    merge(line)
    line.target("ALTER TABLE t RENAME TO away")
    line.try_run()
    line.target("ALTER TABLE away RENAME TO t")
    table = delta(line)
    table.create_checkpoint()
    for number in range(table.version()):
        (line.lake_of() / "_delta_log" / f"{number:020}.json").unlink()


def recreated(line: Line) -> None:
    """Lose the lake table."""
    moved_aside(line.lake_of())


def rebuilt(line: Line) -> None:
    """Replay the landing in place."""
    site = line.site()
    [group] = site.pipeline.groups
    rebuild(site, group, group.tables[0])
    site.close()


def resnapshot(line: Line) -> None:
    """Read all whole."""
    line.source("DELETE FROM t WHERE id = 1", "UPDATE t SET name = 'unseen' WHERE id = 2")
    line.resnapshot()


def folder_copied(line: Line) -> None:
    """Restore the lake's folder from an older backup copy."""
    shutil.copytree(line.lake_of(), line.lake_of().with_name("t.copy"))
    merge(line)
    line.run()
    shutil.rmtree(line.lake_of())
    line.lake_of().with_name("t.copy").rename(line.lake_of())


def folder_copied_with_other_versions(line: Line) -> None:
    """Restore an older folder that reaches the loaded version by other batches."""
    shutil.copytree(line.lake_of(), line.lake_of().with_name("t.copy"))
    delta(line).alter.set_table_description("a commit without rows")
    merge(line)
    line.run()
    shutil.rmtree(line.lake_of())
    line.lake_of().with_name("t.copy").rename(line.lake_of())
    merge(line)


Commit = Callable[[Line], None]
PLAIN: list[Commit] = [nothing, merge, window_replace, schema_add, compaction, checkpoint, z_order]
WHOLE: dict[Commit, str] = {
    restored: "RESTORE",
    foreign_delete: "DELETE",
    foreign_append: "WRITE",
    foreign_update: "UPDATE",
    log_cleaned: "can't be read",
    recreated: "another lake table",
}


@pytest.mark.parametrize("commit", PLAIN, ids=lambda c: c.__name__)
def test_plain_commits_are_loaded_by_their_changes(loaded: Line, commit: Commit) -> None:
    """The change feed tells all, though other commits came between."""
    commit(loaded)
    loaded.run()
    assert loaded.lake_is_target()
    assert loaded.ledger().why_whole == ""
    merge(loaded)
    loaded.run()
    assert loaded.lake_is_target()
    assert loaded.ledger().why_whole == ""


@pytest.mark.parametrize("commit", WHOLE, ids=lambda c: c.__name__)
def test_other_commits_are_loaded_whole_with_the_reason(loaded: Line, commit: Commit) -> None:
    """Where the feed can't be trusted all rows are compared; the next load is plain again."""
    commit(loaded)
    loaded.run()
    assert WHOLE[commit] in loaded.ledger().why_whole
    assert loaded.lake_is_target()
    merge(loaded)
    loaded.run()
    assert loaded.lake_is_target()
    assert loaded.ledger().why_whole == ""


@pytest.mark.parametrize(
    "commit", [foreign_delete, foreign_append, foreign_update, restored], ids=lambda c: c.__name__
)
def test_what_a_stranger_did_to_the_lake_is_told_and_mended(loaded: Line, commit: Commit) -> None:
    """Reconcile fails between source and lake; a rebuild from the landing heals both sides."""
    commit(loaded)
    loaded.run()
    verdicts = {v.against: v for v in loaded.reconcile()}
    found = verdicts["lake"]
    assert not found.ok or found.unseen_deletes.count
    assert verdicts["target"].ok
    rebuilt(loaded)
    assert loaded.agrees()


@pytest.mark.parametrize(
    "commit",
    [vacuumed, rebuilt, resnapshot, folder_copied, folder_copied_with_other_versions],
    ids=lambda c: c.__name__,
)
def test_maintenance_loses_nothing(loaded: Line, commit: Commit) -> None:
    """Old files removed, a replay, a whole reading, an older copy: all sides agree afterwards."""
    commit(loaded)
    loaded.run()
    assert loaded.agrees()
    merge(loaded)
    loaded.run()
    assert loaded.agrees()
