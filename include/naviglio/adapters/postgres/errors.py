"""From psycopg's errors to the project's, by who acts next: the one place for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from naviglio.errors import ConfigError, ContentionError, DataError, NaviglioError, RetryableError

# SQLSTATEs and their classes
_RETRY = (  # away, deadlock, serialization, lock timeout, cancelled, crowded
    "08", "40", "25P03", "25P04", "53300", "55P03", "55006", "57014", "57P01", "57P02", "57P03",
    "57P05",
)  # fmt: skip
_CONTENTION = ("40P01", "40001", "55P03")  # deadlock, serialization, lock timeout
_CONFIGURE = ("28", "3D000", "42501", "57P04")  # login, database, right
_DATA = ("21000", "22", "23", "44")
_WITH_VALUES = ("22", "P0")  # primary messages that may hold a row's values
_RAISED = "exec_stmt_raise"  # the server's function by which PL/pgSQL says what somebody wrote
_MOMENTARY = re.compile(
    r"starting up|shutting down|recovery|too many|slots|not yet accept|terminat", re.I
)
_REFUSED_LOGIN = re.compile(
    r"FATAL:|no password supplied|invalid .* (option|value)|authentication|not support SSL"
    r"|certificate",
    re.I,
)

_STOPPED = re.compile(  # what embedded.py calls the folder of its socket
    r'on socket "[^"]*(/postgres/socket|/naviglio-\d+-\w+)/\.s\.PGSQL[^"]*" failed: '
    r"(No such file|Connection refused)"
)


@contextmanager
def translated(where: str, owner: type[NaviglioError]) -> Iterator[None]:
    """Raise what the server refuses as the project's errors; `owner` is who acts by default.

    The original is not chained: its details may hold a row's values.
    """
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, where, owner) from None


def translate(error: psycopg.Error, where: str, owner: type[NaviglioError]) -> NaviglioError:
    """Return the project's error for one of psycopg's."""
    state = error.sqlstate
    if state is None:
        return _without_state(error, where, owner)
    if state.startswith(_RETRY):
        kind = ContentionError if state in _CONTENTION else RetryableError
        return kind(f"{where}: {said(error)}. Trying again is enough.")
    if state.startswith(_CONFIGURE):
        return ConfigError(f"{where}: {said(error)}. Grant the right or correct the connection.")
    if state.startswith(_DATA):
        return DataError(f"{where}: {said(error)}.")
    return owner(f"{where}: {said(error)}.")


def said(error: psycopg.Error) -> str:
    """Return what the server said, without any row's values."""
    message = error.diag.message_primary
    told = (error.sqlstate or "").startswith(_WITH_VALUES) or error.diag.source_function == _RAISED
    if message is None or told:
        message = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{message} (SQLSTATE {error.sqlstate})"


def is_about_rows(error: psycopg.Error) -> bool:
    """Tell whether rows, not the server or the configuration, are what the server refused."""
    return (error.sqlstate or "").startswith(_DATA)


def _without_state(error: psycopg.Error, where: str, owner: type[NaviglioError]) -> NaviglioError:
    """Judge what libpq says itself: it gives no SQLSTATE for a refused login or a lost server."""
    text = str(error).strip().rstrip(".?!")  # a stop follows
    if isinstance(error, psycopg.OperationalError):
        if _REFUSED_LOGIN.search(text) and not _MOMENTARY.search(text):
            return ConfigError(f"{where}: {text}. Correct the connection.")
        if _STOPPED.search(text):
            return RetryableError(f"{where}: the embedded server is stopped. Run `naviglio start`.")
        return RetryableError(f"{where}: {text}. Trying again is enough once the server is back.")
    if isinstance(error, psycopg.InterfaceError):
        return RetryableError(f"{where}: the connection is gone ({text}).")
    if isinstance(error, psycopg.ProgrammingError):
        return ConfigError(f"{where}: the connection's URL is not understood. Correct it.")
    return owner(f"{where}: {type(error).__name__}.")
