"""The local store: whole, durable, and only one winner."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from naviglio.errors import LostRaceError, StorageError
from naviglio.storage import local
from naviglio.storage.local import LocalStore


def test_of_many_racers_exactly_one_creates_a_file(tmp_path: Path) -> None:
    """Eight threads, fifty names: one winner each, and the file is the winner's."""
    store = LocalStore(str(tmp_path))
    for number in range(50):
        barrier, winners = threading.Barrier(8), []

        def race(me: int, name: str = f"manifests/{number}") -> None:
            barrier.wait()  # noqa: B023 - the threads end within the turn
            if store.create(name, bytes([me])):
                winners.append(me)  # noqa: B023

        threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [store.read(f"manifests/{number}")] == [bytes(winners)]


def test_a_loser_changes_nothing(tmp_path: Path) -> None:
    """The file that was there first stays as it was, and no temporary file is left."""
    store = LocalStore(str(tmp_path))
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.read("a/b") == b"first"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_a_file_of_a_context_that_ends_badly_is_gone(tmp_path: Path) -> None:
    """Half a file is never left under its name."""
    store = LocalStore(str(tmp_path))
    with pytest.raises(ValueError, match="stop"), store.write("x") as file:
        file.write(b"half")
        raise ValueError("stop")
    assert store.read("x") is None


def test_writing_below_a_removed_folder_is_a_lost_race(tmp_path: Path) -> None:
    """Whoever took the number removed the folder of the attempt."""
    store = LocalStore(str(tmp_path))
    store.create("data/1-a/intent.json", b"{}")
    store.remove("data/1-a")
    with pytest.raises(LostRaceError, match="another attempt"), store.write("data/1-a/f"):
        pass


def test_a_folder_taken_away_while_a_file_is_made_is_a_lost_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that notes its intent late, when another has just removed its attempt."""
    monkeypatch.setattr(local, "_make_folder", lambda _: None)
    with pytest.raises(LostRaceError, match="another attempt took the number"):
        LocalStore(str(tmp_path)).create("data/attempt/intent.json", b"{}")


def test_an_attempt_removed_while_it_writes_has_lost_its_race(tmp_path: Path) -> None:
    """A writer that slept while others took its number is told to try again, of no broken disk."""
    store = LocalStore(str(tmp_path))
    store.create("data/1-a/intent.json", b"{}")
    with pytest.raises(LostRaceError, match="another attempt"), store.write("data/1-a/f") as file:
        file.write(b"rows")
        store.remove("data/1-a")


def test_a_full_disk_says_where_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space is the storage owner's to mend, and the name stays free."""
    store = LocalStore(str(tmp_path))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left.*Free space"):
        store.create("m", b"data")
    monkeypatch.undo()
    assert store.read("m") is None
    assert store.create("m", b"data")


def test_a_file_system_without_hard_links_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT says EPERM, which is no missing right; nothing is left under either name."""

    def refuses(source: Path, to: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuses)
    with pytest.raises(StorageError, match=r"no hard links here.*file system with hard links"):
        LocalStore(str(tmp_path)).create("m", b"data")
    assert list(tmp_path.iterdir()) == []


def test_names_and_removing_know_absence(tmp_path: Path) -> None:
    """An absent folder has no names; removing what is absent is fine."""
    store = LocalStore(str(tmp_path))
    assert store.names("nowhere") == []
    store.remove("nowhere")
    store.create("d/b", b"")
    store.create("d/a", b"")
    assert store.names("d") == ["a", "b"]
