"""Connection ids to URLs: from the environment, or from a file that only its owner may read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from ruamel.yaml import YAML

from naviglio.config import reader
from naviglio.errors import ConfigError
from naviglio.known import known_all

PREFIX = "NAVIGLIO_CONN_"
_OWNER_ONLY = 0o600


class Urls(Protocol):
    """Whatever knows connections by their ids."""

    def url(self, conn_id: str) -> str:
        """Return the URL of a connection; ConfigError when there is none."""
        ...


class Connections:
    """The known connections. URLs hold passwords: nothing here shows them."""

    def __init__(self, environ: Mapping[str, str], file: Path | None) -> None:
        self._environ = {name: url for name, url in environ.items() if name.startswith(PREFIX)}
        self._file = file

    def __repr__(self) -> str:
        return f"Connections(file={str(self._file)!r})"

    def url(self, conn_id: str) -> str:
        """Return the URL of a connection; ConfigError names the known ids when there is none."""
        url = self.find(conn_id)
        if url is None:
            raise ConfigError(self._unknown(conn_id, self.stored()))
        return url

    def find(self, conn_id: str) -> str | None:
        """Return the URL of a connection that may be absent."""
        url = self._environ.get(variable_of(conn_id), "").strip()
        return url or self.stored().get(conn_id)

    def write(self, ids: Mapping[str, str]) -> None:
        """Add or replace connections of the file, all or none; its other lines stay."""
        if self._file is None:
            raise ConfigError("there is no connections file to write to. Name one.")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self._file.with_suffix(".lock")):
            self.stored()  # refuses a file that it can't read
            yaml = YAML()
            yaml.width = 1_000_000  # a URL stays on its line
            there = self._file.exists() and self._file.read_text("utf-8-sig").strip()
            content = yaml.load(self._file) if there else {}
            content.update(ids)
            handle, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=".connections-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:  # mkstemp makes it 0600
                    yaml.dump(content, file)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self._file)
            finally:
                Path(temporary).unlink(missing_ok=True)

    def stored(self) -> dict[str, str]:
        """Return the file's connections, passwords in them; ConfigError for one that is unfit."""
        path = self._file
        if path is None or not path.exists():
            return {}
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_file() and mode & ~_OWNER_ONLY:
            raise ConfigError(
                f"{path}: others may read its passwords (mode {mode:04o}). Run: chmod 600 {path}"
            )
        try:
            document = reader.read(path)
        except reader.UnreadableError as error:
            raise ConfigError(_at(path, error.problem.line)) from None
        wrong = [
            document.line((conn_id,))
            for conn_id, url in document.data.items()
            if not isinstance(url, str) or not url.strip()
        ]
        wrong += [problem.line for problem in document.problems]
        if wrong:
            raise ConfigError(_at(path, min(wrong)))
        return {conn_id: url.strip() for conn_id, url in document.data.items()}

    def _unknown(self, conn_id: str, stored: Mapping[str, str]) -> str:
        named = (name.removeprefix(PREFIX).lower() for name in self._environ)
        ids = known_all(sorted({*named, *stored}), conn_id)
        place = f", or the line `{conn_id}: URL` to {self._file}" if self._file else ""
        return (
            f"no connection is called {conn_id!r}; {ids} "
            f"Add the environment variable {variable_of(conn_id)}{place}."
        )


def variable_of(conn_id: str) -> str:
    """Return the environment variable that may hold a connection's URL."""
    return PREFIX + re.sub(r"[^A-Z0-9]", "_", conn_id.upper())


def _at(path: Path, line: int) -> str:
    """Say where, and not what stands there: it may be part of a password."""
    where = f"{path}:{line}" if line else f"{path}"
    return (
        f"{where}: expected lines of `connection: URL` in YAML, each connection once. Correct it."
    )


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep other processes from writing between this one's reading and writing."""
    handle = os.open(lock, os.O_CREAT | os.O_RDWR, _OWNER_ONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
