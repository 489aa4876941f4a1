"""Files on a local disk, committed by `os.link`: of many racers exactly one wins."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from naviglio.errors import LostRaceError, StorageError

_ADVICE = {
    errno.ENOSPC: "Free space there and run again; nothing of this attempt is visible.",
    errno.EDQUOT: "Raise the quota there and run again; nothing of this attempt is visible.",
    errno.EACCES: "Give the user of this process the right to read and write there.",
    errno.EPERM: "Give the user of this process the right to read and write there.",
    errno.EOPNOTSUPP: "A landing needs a file system with hard links; choose one by NAVIGLIO_HOME.",
    errno.ENOSYS: "A landing needs a file system with hard links; choose one by NAVIGLIO_HOME.",
    errno.EROFS: "Mount it for writing, or choose another folder by NAVIGLIO_HOME.",
}


@dataclass(frozen=True)
class LocalStore:
    """A folder of a local file system that knows hard links."""

    root: str

    def create(self, path: str, data: bytes) -> bool:
        """Make the file by linking a synced temporary file to its name."""
        final = self._at(path)
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
        with _explained(final):
            _make_folder(final.parent)
            with _lost_with(final.parent):
                return _linked(temporary, final, data)

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a file, or None when it is absent."""
        with _explained(self._at(path)):
            try:
                return self._at(path).read_bytes()
            except FileNotFoundError:
                return None

    @contextmanager
    def write(self, path: str) -> Iterator[BinaryIO]:
        """Open a new file; it is removed when the context ends badly."""
        final = self._at(path)
        with _explained(final):
            with _lost_with(final.parent):
                file = final.open("xb")
            try:
                with file:
                    yield file
                    _sync(file)
            except BaseException:
                final.unlink(missing_ok=True)
                raise
            with _lost_with(final.parent):
                _sync_folder(final.parent)

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; temporary files are left out."""
        with _explained(self._at(folder)):
            try:
                entries = os.listdir(self._at(folder))  # noqa: PTH208 - ten times faster than iterdir
            except FileNotFoundError:
                return []
        return sorted(name for name in entries if not name.startswith("."))

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all it holds."""
        target = self._at(path)
        with _explained(target):
            if target.is_dir():
                shutil.rmtree(target, ignore_errors=True)
            else:
                target.unlink(missing_ok=True)

    def _at(self, path: str) -> Path:
        return Path(self.root, path)


def _linked(temporary: Path, final: Path, data: bytes) -> bool:
    """Link a synced temporary file to its name; False where that is taken."""
    try:
        with temporary.open("xb") as file:
            file.write(data)
            _sync(file)
        _link(temporary, final)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(final.parent)
    return True


@contextmanager
def _lost_with(folder: Path) -> Iterator[None]:
    """Tell that a race is lost when the attempt's folder is gone."""
    try:
        yield
    except FileNotFoundError:
        raise LostRaceError(
            f"{folder} is gone: another attempt took the number. Run again."
        ) from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError that the storage's owner must mend into a StorageError."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Mend that storage and run again.")
        raise StorageError(f"{path}: {error.strerror}. {advice}") from error


def _link(temporary: Path, final: Path) -> None:
    """Give the file its name; FAT and its like say EPERM where they know no links."""
    try:
        os.link(temporary, final)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        raise OSError(errno.EOPNOTSUPP, "no hard links here", str(final)) from error


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems don't sync folders
            raise
    finally:
        os.close(descriptor)
