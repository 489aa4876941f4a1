"""What goes wrong outside: class, message, nothing half done, and the next run heals."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.errors import (
    ConfigError,
    DataError,
    IdentityError,
    NaviglioError,
    RetryableError,
    StorageError,
)
from naviglio.flows.rebuild import rebuild
from naviglio.points import listening
from tests.integration.lines import DIFF, STREAM, Line, drop_schemas, error_of, new_line

TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, name text, modified_at timestamptz DEFAULT now())"


@pytest.fixture
def filled(line: Line) -> Line:
    """A line that was carried once, with a change waiting."""
    line.declare(t=DIFF)
    line.source(TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 20) n")
    line.run()
    line.source("UPDATE t SET name = 'b' WHERE id = 1", "DELETE FROM t WHERE id = 2")
    return line


def failed(line: Line, kind: type[NaviglioError], *words: str) -> NaviglioError:
    """Run; expect an error of a class and words, and nothing written."""
    before = line.traces()
    error = error_of(line.try_run())
    assert type(error) is kind, repr(error)
    for word in words:
        assert word in str(error), error
    assert line.traces() == before
    return error


# --- connections and rights ---------------------------------------------------------------------


@pytest.mark.parametrize("side", ["operations", "warehouse"])
def test_a_wrong_password_is_for_the_configuration(filled: Line, side: str) -> None:
    """The login is refused; neither password is told."""
    right = dict(filled.urls)
    secret = right[side].split("@")[0].rsplit(":", 1)[1]
    filled.urls[side] = right[side].replace(secret, "wrong-secret")
    urls, filled.urls = filled.urls, right
    before = filled.traces()
    filled.urls = urls
    error = error_of(filled.try_run())
    assert isinstance(error, ConfigError)
    assert "wrong-secret" not in str(error)
    assert secret not in str(error)
    filled.urls = right
    assert filled.traces() == before
    filled.run()
    assert filled.agrees()


def test_an_unknown_connection_names_the_known(filled: Line) -> None:
    """The error tells the variable to set."""
    del filled.urls["operations"]
    error = failed(filled, ConfigError, "operations", "NAVIGLIO_CONN_OPERATIONS")
    assert "warehouse" in str(error)


@pytest.mark.parametrize(
    ("change", "back", "words"),
    [
        ("ALTER TABLE t RENAME TO u", "ALTER TABLE u RENAME TO t", ["has no table"]),
        (
            "REVOKE SELECT ON t FROM naviglio_source",
            "GRANT SELECT ON t TO naviglio_source",
            ["SELECT", "no right to read"],
        ),
    ],
)  # fmt: skip
def test_a_table_out_of_reach_is_told(
    filled: Line, change: str, back: str, words: list[str]
) -> None:
    """Missing, or not to be read: nothing written; back again, the run goes on."""
    filled.source(change)
    failed(filled, ConfigError, *words)
    filled.source(back)
    filled.run()
    assert filled.agrees()


@pytest.mark.parametrize(
    "form",
    [
        "{capture: {where: nowhere}, deletes: none}",
        "{capture: {where: modified_at}, deletes: {column: nowhere}}",
        "{capture: {where: modified_at}, deletes: none, event_time: nowhere}",
        "{capture: diff, key: [nowhere]}",
        "{capture: windows, event_time: nowhere, since: 2013-01-01}",
    ],
)
def test_a_missing_column_is_told_with_the_known_ones(line: Line, form: str) -> None:
    """Whatever names it: a ConfigError with the table's columns."""
    line.source(TABLE, "INSERT INTO t VALUES (1, 'a')")
    line.declare(t=form)
    failed(line, ConfigError, "nowhere", "modified_at")


def test_keys_that_tell_no_rows_apart_are_named(line: Line) -> None:
    """NULLs and doubles of a declared key: the keys stand in the error."""
    line.declare(t="{capture: diff, key: [id]}")
    line.source(
        "CREATE TABLE t (id bigint, name text)", "INSERT INTO t VALUES (7, 'a'), (7, 'b'), (1, 'c')"
    )
    failed(line, DataError, "7", "(id)")
    line.source("UPDATE t SET id = NULL WHERE name = 'b'")
    failed(line, DataError, "NULL")
    line.source("UPDATE t SET id = 8 WHERE name = 'b'")
    line.run()
    assert line.agrees()


# --- the target refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "bad", "good"),
    [
        ("name text CHECK (name <> 'bad')", "'bad'", "'good'"),
        ("name text NOT NULL", "NULL", "'there'"),
        ("name text UNIQUE", "'name 3'", "'name x'"),
    ],
)
def test_a_row_that_the_target_refuses_is_named(
    line: Line, column: str, bad: str, good: str
) -> None:
    """Nothing of the batch is loaded; mended at the source, all is."""
    line.declare(t="{capture: diff, adopt: true}")
    line.source(TABLE, "INSERT INTO t SELECT n, 'n' || n FROM generate_series(1, 9) n")
    line.target(
        f"CREATE SCHEMA {line.name}",
        f"CREATE TABLE {line.name}.t (id bigint PRIMARY KEY, {column}, modified_at timestamptz)",
    )
    line.source("UPDATE t SET name = 'name 3' WHERE id = 3")  # the twin of a bad row below
    line.run()
    rows = line.target_rows()
    line.source(f"INSERT INTO t VALUES (77, {bad})", "INSERT INTO t VALUES (78, 'fine')")
    error = error_of(line.try_run())
    assert isinstance(error, DataError), repr(error)
    assert "id=77" in str(error) or "id=3" in str(error), error
    assert line.target_rows() == rows
    line.source(f"UPDATE t SET name = {good} WHERE id = 77")
    line.run()
    assert line.agrees()


# --- servers away -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server of one's own, to stop."""
    made = Cluster(tmp_path_factory.mktemp("fragile"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


POINTS = [
    "capture: after head",
    "capture: after snapshot",
    "apply: before commit",
    "load: after staging",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_server_that_goes_away_in_the_middle(
    cluster: Cluster, fragile: Cluster, tmp_path: Path, point: str
) -> None:
    """Both sides gone at a step: to be tried again, and the next run heals."""
    del cluster
    line = new_line(fragile, tmp_path)
    line.declare(t=STREAM)
    line.source(TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 20) n")
    line.run()
    line.source("UPDATE t SET name = 'b', modified_at = now() WHERE id < 4")

    def stop(reached: str) -> None:
        if reached == point and fragile.running():
            fragile.stop()

    with listening(stop):
        error = error_of(line.try_run())
    assert isinstance(error, RetryableError), repr(error)
    error = error_of(line.try_run())
    assert isinstance(error, RetryableError), repr(error)
    fragile.start()
    line.run()
    assert line.agrees()
    drop_schemas(line)


def test_lake_and_target_drain_while_the_source_is_away(
    cluster: Cluster, fragile: Cluster, tmp_path: Path
) -> None:
    """What has landed reaches the target though capture fails."""
    line = new_line(cluster, tmp_path, source=fragile)
    line.declare(t=STREAM)
    line.source(TABLE, "INSERT INTO t VALUES (1, 'a')")
    line.run()
    line.source("INSERT INTO t VALUES (2, 'b')")

    class Killed(BaseException):
        pass

    def kill(reached: str) -> None:
        if reached == "capture: after manifest":
            raise Killed

    with listening(kill), pytest.raises(Killed):
        line.try_run()
    expected = line.source_rows()
    columns = line.columns()
    fragile.stop()
    error = error_of(line.try_run())
    assert isinstance(error, RetryableError), repr(error)
    assert line.lake_rows(columns=columns) == line.target_rows(columns=columns) == expected
    fragile.start()
    line.run()
    assert line.agrees()
    drop_schemas(line)


# --- storage ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)],  # noqa: S607
        check=False, capture_output=True,
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


@pytest.mark.parametrize("where", ["landing", "lake"])
def test_a_full_disk_is_told_and_nothing_is_half_done(
    line: Line, small_disk: Path, where: str
) -> None:
    """The owner of the storage is asked for space; with it the next run goes on."""
    line.declare(t=STREAM)
    line.source(TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 9) n")
    line.run()
    rows = line.target_rows()
    kept = getattr(line.home, where)
    shutil.copytree(kept, small_disk, dirs_exist_ok=True)
    shutil.rmtree(kept)
    kept.symlink_to(small_disk)
    line.source(
        "INSERT INTO t SELECT n, encode(sha512(n::text::bytea), 'hex') "
        "|| encode(sha512((-n)::text::bytea), 'hex') FROM generate_series(100, 40000) n"
    )
    for _ in range(2):
        error = error_of(line.try_run())
        assert isinstance(error, StorageError), repr(error)
        assert line.target_rows() == rows
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)  # noqa: S607
    line.run()
    assert line.agrees()
    if where == "landing":
        assert len(list((line.landing_of() / "data").iterdir())) == 2  # no dead attempt is left


def test_a_damaged_log_is_told_and_rebuilt(filled: Line) -> None:
    """The error names the command; it keeps the damaged folder aside, and all agrees."""
    log = filled.lake_of() / "_delta_log"
    for path in log.glob("*.json"):
        path.write_bytes(b"\x00 no json")
    error = error_of(filled.try_run())
    assert isinstance(error, StorageError)
    assert "naviglio rebuild" in str(error)
    site = filled.site()
    [group] = site.pipeline.groups
    report = rebuild(site, group, group.tables[0])
    site.close()
    assert report.error is None
    filled.run()
    assert filled.agrees()
    assert len(list(filled.lake_of().parent.glob("t.damaged-*"))) == 1


def test_a_rebuild_loads_no_target_of_another_landing(filled: Line) -> None:
    """Whose the target is can be told only once the damaged table can be read again."""
    (filled.lake_of() / "_delta_log" / f"{0:020}.json").write_bytes(b"\x00 no json")
    filled.target(
        "UPDATE naviglio.ledger SET landing = 'another' WHERE pipeline = current_schema()"
    )
    filled.target("UPDATE t SET name = 'theirs'")
    before = filled.target_rows()
    site = filled.site()
    [group] = site.pipeline.groups
    with pytest.raises(IdentityError, match="loaded from another landing"):
        rebuild(site, group, group.tables[0])
    site.close()
    assert filled.target_rows() == before


def test_a_lost_lake_folder_is_made_anew_by_the_next_run(filled: Line) -> None:
    """The landing holds all; the target is compared whole and only gets what differs."""
    shutil.rmtree(filled.lake_of())
    filled.run()
    row = filled.ledger()
    assert (row.why_whole, row.updated, row.deleted, row.inserted) == (
        "another lake table",
        1,
        1,
        0,
    )
    assert filled.agrees()


def test_a_rebuild_replays_to_the_very_same_rows(filled: Line) -> None:
    """Stream, drift and deletes replayed: rows as before, the target untouched."""
    filled.run()
    filled.source("ALTER TABLE t ADD COLUMN extra int DEFAULT 1", "INSERT INTO t VALUES (50, 'x')")
    filled.run()
    before, rows = (
        filled.lake_rows(),
        filled.target("SELECT ctid::text, xmin::text FROM t ORDER BY id"),
    )
    site = filled.site()
    [group] = site.pipeline.groups
    rebuild(site, group, group.tables[0])
    site.close()
    assert filled.lake_rows() == before
    assert filled.target("SELECT ctid::text, xmin::text FROM t ORDER BY id") == rows
    assert filled.agrees()


def test_a_missing_landing_file_is_told_by_name(filled: Line) -> None:
    """A file that the disk lost: the lake stays, and what the error advises heals."""
    filled.run()
    [lost] = filled.batches()[1].parts[0].files
    (filled.landing_of() / lost.path).unlink()
    shutil.rmtree(filled.lake_of())
    error = error_of(filled.try_run())
    assert isinstance(error, StorageError), repr(error)
    assert lost.path in str(error)
    assert "naviglio resnapshot" in str(error)
    filled.resnapshot()
    assert filled.agrees()
    site = filled.site()
    [group] = site.pipeline.groups
    rebuild(site, group, group.tables[0])
    site.close()
    assert filled.agrees()


def test_what_came_on_top_of_a_lost_batch_is_passed_over_with_it(filled: Line) -> None:
    """Changes after a lost reading of other types don't fit what came before it."""
    filled.run()
    filled.source("ALTER TABLE t ADD COLUMN w text")
    filled.resnapshot()
    filled.source("ALTER TABLE t ALTER COLUMN w TYPE bigint USING 1")
    error_of(filled.try_run())
    filled.accept()
    filled.target("DROP TABLE t", "DELETE FROM naviglio.ledger")  # its column is of the old type
    filled.run()
    [lost] = filled.batches()[-1].parts[0].files
    filled.source("INSERT INTO t SELECT max(id) + 1 FROM t")
    filled.run()
    (filled.landing_of() / lost.path).unlink()
    filled.resnapshot()
    site = filled.site()
    [group] = site.pipeline.groups
    rebuild(site, group, group.tables[0])
    site.close()
    assert filled.agrees()


# --- secrets ------------------------------------------------------------------------------------


def test_no_password_is_written_anywhere(filled: Line, caplog: pytest.LogCaptureFixture) -> None:
    """Not in manifests, intents, lake, ledger, questions, logs or errors."""
    caplog.set_level(logging.DEBUG)
    secrets = {url.split("@")[0].rsplit(":", 1)[1] for url in filled.urls.values()}
    filled.run()
    filled.source("ALTER TABLE t ALTER COLUMN name TYPE bytea USING name::bytea")
    errors = [error_of(filled.try_run())]
    filled.target("DROP TABLE t")
    filled.accept()
    errors.append(error_of(filled.try_run()))
    written = [path.read_bytes() for path in filled.home.root.rglob("*") if path.is_file()]
    told = "\n".join([caplog.text, *map(repr, errors), repr(filled.ledger())]).encode()
    for secret in secrets:
        assert not [text for text in (*written, told) if secret.encode() in text]
