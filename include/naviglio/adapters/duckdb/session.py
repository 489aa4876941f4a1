"""One session with a file: where it is, how it is opened, and who waits for whom.

DuckDB lets one process open a file for writing. Within that process all sessions share one open
database, and transactions are optimistic: the second of two writers of one row fails. So writers of
this process take turns by a lock of their own, and another process waits until the file is free.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import duckdb
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from naviglio.adapters.duckdb.errors import is_held, translate
from naviglio.errors import ConfigError, ContentionError

LOCK_WAIT_S = 60.0
_LOOK_AGAIN_S = 0.1
_SETTINGS = ("memory_limit", "threads", "temp_directory")
_turns: dict[str, threading.Lock] = {}
_turns_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Address:
    """What a connection URL says."""

    path: str
    lock_wait_s: float
    settings: dict[str, str] = field(default_factory=dict)


def address(url: str) -> Address:
    """Take a URL apart; ConfigError for what names no file or an unknown setting."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc or not Path(path).name:
        raise ConfigError(
            "a DuckDB connection names one file by its absolute path: write "
            "duckdb:///folder/warehouse.duckdb, with three slashes."
        )
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    wait = settings.pop("lock_timeout", str(LOCK_WAIT_S))
    for name in settings:
        if name not in _SETTINGS:
            allowed = ", ".join((*_SETTINGS, "lock_timeout"))
            raise ConfigError(f"file {path!r}: no setting {name!r}; the URL takes {allowed}.")
    try:
        lock_wait_s = float(wait)
    except ValueError:
        raise ConfigError(
            f"file {path!r}: lock_timeout={wait!r} is no number of seconds."
        ) from None
    return Address(path=os.path.realpath(path), lock_wait_s=lock_wait_s, settings=settings)


def connect(at: Address) -> duckdb.DuckDBPyConnection:
    """Open a session in UTC; RetryableError when another process keeps the file."""
    if not Path(at.path).parent.is_dir():
        raise ConfigError(f"file {at.path!r}: its folder does not exist. Create it.")
    if not os.access(at.path if Path(at.path).exists() else Path(at.path).parent, os.W_OK):
        raise ConfigError(f"file {at.path!r}: this user may not write it. Give it the right.")
    free = Retrying(
        retry=retry_if_exception(is_held), stop=stop_after_delay(at.lock_wait_s),
        wait=wait_fixed(_LOOK_AGAIN_S), reraise=True,
    )  # fmt: skip
    try:
        # What a statement names must be in the file: nothing is fetched from the net for it.
        config = {**at.settings, "autoinstall_known_extensions": "false"}
        connection: duckdb.DuckDBPyConnection = free(duckdb.connect, at.path, config={**config})
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # it would write into what we print
    except duckdb.Error as error:
        raise translate(error, f"file {at.path!r}") from None
    return connection


@contextmanager
def turn(at: Address) -> Iterator[None]:
    """Be the only writer of the file in this process; ContentionError when others keep it."""
    with _turns_lock:
        lock = _turns.setdefault(at.path, threading.Lock())
    if not lock.acquire(timeout=at.lock_wait_s):
        raise ContentionError(
            f"file {at.path!r}: no turn within {at.lock_wait_s:g} s, another load of this process "
            "is at work. Trying again is enough."
        )
    try:
        yield
    finally:
        lock.release()


def rows(connection: duckdb.DuckDBPyConnection, query: str, *bound: object) -> list[Any]:
    """Return all rows of a query."""
    return connection.execute(query, bound or None).fetchall()
