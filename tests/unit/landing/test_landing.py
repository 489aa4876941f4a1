"""The landing: numbers without gaps, one manifest each, files only through manifests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naviglio.errors import IdentityError, LostRaceError
from naviglio.landing.landing import Landing
from naviglio.model import Bound, Fence, Manifest, Part, Place, Position, Question, TableSchema
from naviglio.storage.local import LocalStore

EMPTY = TableSchema(columns=(), key=())


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    """An empty landing."""
    return Landing(LocalStore(str(tmp_path)), "flights")


def land(landing: Landing, rows: int = 1) -> Manifest:
    """Land a batch with a file of so many rows."""
    identity, head = landing.found(), landing.head()
    with landing.attempt(head) as attempt:
        batch = pa.record_batch({"a": list(range(rows))})
        files = attempt.write("flights", batch.schema, [batch])
        manifest = Manifest(
            group="flights", number=attempt.number, attempt=attempt.id, landing=identity,
            previous=head.sha256, created_at_utc=datetime.now(UTC), fence=Fence(point=1),
            parts=(Part(table="flights", kind="stream", schema=EMPTY, files=files),),
            position=Position(place=Place(incarnation="a", order=1)),
        )  # fmt: skip
        landing.commit(attempt, manifest)
    return manifest


def test_the_head_is_found_whatever_the_number_of_batches(landing: Landing) -> None:
    """Doubling and halving find the last of any number of batches."""
    assert landing.head().number == 0
    for number in range(1, 20):
        manifest = land(landing)
        assert landing.head().number == number
        assert landing.head().manifest == manifest
    assert [m.number for m in landing.after(12)] == list(range(13, 20))


def test_only_columns_that_repeat_get_a_dictionary(landing: Landing, tmp_path: Path) -> None:
    """Trying one for each column costs a third of the writing; a few rows tell nothing."""
    for rows, expected in ((10, [True, True]), (10_000, [False, True])):
        batch = pa.record_batch({"a.b": range(rows), "few": [n % 7 for n in range(rows)]})
        with landing.attempt(landing.head()) as attempt:
            [file] = attempt.write("flights", batch.schema, [batch])
            written = pq.ParquetFile(tmp_path / file.path)
            columns = [written.metadata.row_group(0).column(n) for n in range(2)]
            assert [column.has_dictionary_page for column in columns] == expected
            assert written.read().to_batches() == [batch]


def test_files_tell_the_bounds_that_were_asked_for(landing: Landing, tmp_path: Path) -> None:
    """Of other columns nobody reads them, and telling them costs a tenth of the writing."""
    batch = pa.record_batch({"key": ["b", "a"], "other": [1, 2]})
    with landing.attempt(landing.head()) as attempt:
        [file] = attempt.write("flights", batch.schema, [batch], ["key"])
        group = pq.read_metadata(tmp_path / file.path).row_group(0)
    assert (group.column(0).statistics.min, group.column(0).statistics.max) == ("a", "b")
    assert group.column(1).statistics is None


def test_a_manifest_of_an_older_release_reads_as_it_was(landing: Landing, tmp_path: Path) -> None:
    """Its fence was one point of time: streams along numbers came later."""
    land(landing)
    (path,) = (tmp_path / "manifests").iterdir()
    told = msgspec.json.decode(path.read_bytes())
    told["fence"] = {"point": 5, "safety_lag_s": 1.0, "held_by": "x"}
    path.write_bytes(msgspec.json.encode(told))
    found = landing.head().manifest
    assert found is not None
    assert found.fence == Fence(point=5, safety_lag_s=1.0, held_by="x")
    assert found.fence.of("flights") == 5


def test_each_stream_keeps_its_own_bound(landing: Landing) -> None:
    """As it was declared, beside the point of time."""
    fence = Fence(point=None, latest=9, numbers={"t": Bound(point=3, lag=2), "v": Bound(point=4)})
    assert msgspec.json.decode(msgspec.json.encode(fence), type=Fence) == fence
    assert (fence.of("t"), fence.of("v"), fence.of("u")) == (3, 4, None)


def test_the_loser_of_a_number_throws_its_files_away(landing: Landing, tmp_path: Path) -> None:
    """Two attempts at one number: one manifest, and only the winner's files stay."""
    head = landing.head()
    with pytest.raises(LostRaceError, match="another worker"), landing.attempt(head) as attempt:
        attempt.write("flights", pa.schema([("a", pa.int64())]), [pa.record_batch({"a": [1]})])
        winner = land(landing)
        landing.commit(attempt, replace(winner, attempt=attempt.id))
    assert [p.name for p in (tmp_path / "data").iterdir()] == [f"0000000001-{winner.attempt}"]


def test_a_dead_attempt_is_removed_once_its_number_is_taken(
    landing: Landing, tmp_path: Path
) -> None:
    """A killed writer's files go with a later commit; a living writer's at a free number stay."""
    dead = landing.attempt(landing.head()).__enter__()  # never left, as after kill -9
    dead.note_intent()
    land(landing)
    assert (tmp_path / dead.folder).exists()  # its number was free while the winner committed
    living = landing.attempt(landing.head()).__enter__()
    living.note_intent()
    land(landing)
    assert not (tmp_path / dead.folder).exists()
    assert (tmp_path / living.folder).exists()


def test_an_unclear_answer_is_settled_by_reading(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that says it lost, but whose manifest is there, has won."""
    real = LocalStore.create

    def lies(self: LocalStore, path: str, data: bytes) -> bool:
        return real(self, path, data) and not path.startswith("manifests/")

    monkeypatch.setattr(LocalStore, "create", lies)
    assert land(landing).number == landing.head().number == 1


def test_a_changed_manifest_breaks_the_chain(landing: Landing, tmp_path: Path) -> None:
    """A manifest that does not carry its predecessor's hash stops the reader."""
    land(landing)
    land(landing)
    first = tmp_path / "manifests" / "0000000001.json"
    first.write_bytes(first.read_bytes() + b" ")
    with pytest.raises(IdentityError, match="does not follow manifest 1"):
        list(landing.after(0))


def test_another_groups_landing_is_a_stranger(landing: Landing) -> None:
    """A folder belongs to one group."""
    landing.found()
    with pytest.raises(IdentityError, match="landing of group 'flights', not of 'weather'"):
        Landing(landing.store, "weather").identity()


def test_an_answer_covers_what_was_found_and_no_more(landing: Landing) -> None:
    """A mass delete that grew since asks again; another table's question stays."""
    asked = Question(
        group="flights", table="flights", kind="mass delete", head=0, text="gone", found="100",
        asked_at_utc=datetime.now(UTC),
    )  # fmt: skip
    landing.ask(asked)
    assert landing.questions(0) == [asked]
    landing.accept(asked, by="a tester")
    assert landing.questions(0) == []
    assert landing.answered(replace(asked, found="99"))
    assert not landing.answered(replace(asked, found="101"))
    assert not landing.answered(replace(asked, table="weather"))
    assert not landing.answered(replace(asked, head=1))


def test_an_answer_goes_with_its_question(landing: Landing) -> None:
    """What the source took back is forgotten, answer and all; other kinds stay."""
    asked = Question(
        group="flights", table="flights", kind="mass delete", head=0, text="gone", found="100",
        asked_at_utc=datetime.now(UTC),
    )  # fmt: skip
    drift = replace(asked, kind="drift", found="column 'a' removed")
    for question in (asked, drift):
        landing.ask(question)
        landing.accept(question, by="a tester")
    landing.withdraw(0, "flights", "mass delete")
    assert not landing.answered(asked)
    assert landing.answered(drift)


def test_batches_without_their_identity_are_nobodys(landing: Landing, tmp_path: Path) -> None:
    """A landing whose identity was lost is not made anew around the batches of the old one."""
    land(landing)
    (tmp_path / "landing.json").unlink()
    with pytest.raises(IdentityError, match=r"holds batches, but its landing.json is gone"):
        landing.found()
    assert landing.identity() is None


def test_what_others_put_among_the_attempts_is_left_alone(landing: Landing, tmp_path: Path) -> None:
    """A file system's own folder, somebody's notes: neither read nor removed."""
    land(landing)
    (tmp_path / "data" / "lost+found").mkdir()
    (tmp_path / "data" / "notes.txt").touch()
    land(landing)
    assert list(landing.unlanded(2)) == []
    assert {"lost+found", "notes.txt"} <= {p.name for p in (tmp_path / "data").iterdir()}
