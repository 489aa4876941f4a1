"""From the driver's errors to the project's, by who acts next: the one place for it.

The driver keeps neither the server's error number nor the SQLSTATE (microsoft/mssql-python#581; in
1.16.0 its core hands on the state and the text alone, and the statement's handle, which would tell
more, is freed before the error is raised): an error is known by the server's own English wording,
which session.py pins, or else by the words that the driver has for the SQLSTATE, one for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mssql_python

from naviglio.errors import ConfigError, ContentionError, DataError, NaviglioError, RetryableError

LOST = frozenset({-1, 64, 233, 596, 6005, 10053, 10054, 10060})  # the session is gone with it


@dataclass(frozen=True)
class _Known:
    number: int  # of sys.messages; -1: the network's
    words: str  # a regular expression; its groups `column` and `constraint` are told
    kind: type[NaviglioError] | None  # None: the owner of the server
    said: str = ""  # in place of the server's words, where those hold values of a row


_KNOWN = (
    # trying again is enough
    _Known(1205, r"was deadlocked on .* chosen as the deadlock victim", ContentionError),
    _Known(1222, r"Lock request time out period exceeded", ContentionError),
    _Known(3960, r"aborted due to update conflict", ContentionError),
    _Known(596, r"session is in the kill state", RetryableError),
    _Known(701, r"insufficient system memory", RetryableError),
    _Known(976, r"target database, .*, is participating in an availability", RetryableError),
    _Known(3957, r"because the database did not allow snapshot isolation when the current",
           RetryableError),
    _Known(3958, r"Requested versioned row was not found", RetryableError),
    _Known(3961, r"has been modified by a DDL statement in another", RetryableError),
    _Known(3966, r"rolled back when accessing version store", RetryableError),
    _Known(4221, r"Login to read-secondary failed", RetryableError),
    _Known(6005, r"SHUTDOWN is in progress", RetryableError),
    _Known(10928, r"Resource ID ?: .* The .* limit for the database is", RetryableError),
    _Known(17142, r"service has been paused", RetryableError),
    _Known(18401, r"in script upgrade mode", RetryableError),
    _Known(40501, r"The service is currently busy", RetryableError),
    _Known(40613, r"is not currently available. +Please retry", RetryableError),
    # the configuration
    _Known(18456, r"Login failed for user", ConfigError),
    _Known(18452, r"login is from an untrusted domain", ConfigError),
    _Known(4060, r"Cannot open database", ConfigError),
    _Known(911, r"Database '.*' does not exist", ConfigError),
    _Known(916, r"is not able to access the database", ConfigError),
    _Known(229, r"permission was denied on the object", ConfigError),
    _Known(230, r"permission was denied on the column", ConfigError),
    _Known(262, r"permission denied in database", ConfigError),
    _Known(297, r"does not have permission to perform this action", ConfigError),
    _Known(300, r"permission was denied on object 'server'", ConfigError),
    _Known(371, r"permission was denied on the ", ConfigError),
    _Known(1088, r"Cannot find the object .* does not exist or you do not have", ConfigError),
    _Known(2760, r"The specified schema name .* either does not exist", ConfigError),
    _Known(15151, r"Cannot (find|drop|alter) the .*, because it does not exist or", ConfigError),
    _Known(15517, r"Cannot execute as the database principal", ConfigError),
    _Known(3906, r"Failed to update database .* is read-only", ConfigError),
    _Known(3952, r"snapshot isolation is not allowed in this database", ConfigError),
    _Known(208, r"Invalid object name", ConfigError),
    _Known(207, r"Invalid column name", ConfigError),
    # rows
    _Known(2627, r"Violation of (PRIMARY|UNIQUE) KEY constraint '(?P<constraint>.*?)'\. Cannot",
           DataError, "a key stands there twice"),
    _Known(2601, r"Cannot insert duplicate key row .* unique index '(?P<constraint>.*?)'\. The",
           DataError, "a unique index has the value already"),
    _Known(515, r"Cannot insert the value NULL into column '(?P<column>.*?)', table",
           DataError, "the column allows no NULL"),
    _Known(547, r"statement conflicted with the .* constraint \"(?P<constraint>.*?)\"\. The",
           DataError, "a constraint refuses the row"),
    _Known(2628, r"would be truncated in table .*, column '(?P<column>.*?)'\. Truncated",
           DataError, "the value is too long"),
    _Known(8152, r"String or binary data would be truncated", DataError, "a value is too long"),
    _Known(1946, r"The index entry of length .* exceeds the maximum length", DataError,
           "a key is too long for its index"),
    _Known(8672, r"UPDATE or DELETE the same row more than once", DataError,
           "two staged rows have one key"),
    _Known(8115, r"Arithmetic overflow error converting", DataError, "a number is out of range"),
    _Known(220, r"Arithmetic overflow error for data type", DataError, "a number is out of range"),
    _Known(241, r"Conversion failed when converting date and/or time", DataError,
           "a text is no date or time"),
    _Known(242, r"conversion of .* resulted in an out-of-range value", DataError,
           "a date or time is out of range"),
    _Known(8169, r"converting from a character string to uniqueidentifier", DataError,
           "a text is no uniqueidentifier"),
    _Known(245, r"Conversion failed when converting", DataError, "a text is no such value"),
    _Known(8114, r"Error converting data type", DataError, "a value is not of the type"),
    _Known(8023, r"is not a valid instance of data type", DataError, "a value is not of the type"),
    _Known(9400, r"XML parsing:", DataError, "a text is no XML"),
    _Known(13609, r"JSON text is not properly formatted", DataError, "a text is no JSON"),
    # the owner of the server
    _Known(1105, r"Could not allocate (a new page|space)", None),
    _Known(9002, r"The transaction log for database .* is full", None),
    # the network, in the driver's words
    _Known(-1, r"Failed to load the driver", ConfigError,
           "the driver can't be loaded: a library is missing, often libltdl7 or libgssapi-krb5-2"),
    _Known(-1, r"Error code 0x2749\b|Connection refused", RetryableError,
           "the connection is refused: no server listens at this address and port"),
    _Known(-1, r"SSL Provider|SSL routines|TLS handshake|certificate (verify|chain)"
           r"|Encryption not supported", ConfigError),
    _Known(-1, r"TCP Provider|Named Pipes Provider|Communication link failure|connection is broken"
           r"|Unable to (complete login|establish)|Login timeout expired|Connection reset"
           r"|connection has been closed|Connection(Error| error)|Broken pipe"
           r"|network-related|Could not open a connection", RetryableError),
)  # fmt: skip
_WORDS = tuple((known, re.compile(known.words, re.IGNORECASE | re.DOTALL)) for known in _KNOWN)
# The words that the driver has for SQLSTATEs, where the server words things otherwise
_STATES: tuple[tuple[str, type[NaviglioError]], ...] = (
    (r"Serialization failure", ContentionError),  # 40001: the victim of a deadlock
    (r"Communication link failure|Connection failure|unable to establish connection|not open"
     r"|rejected the connection|Timeout expired|timeout expired"
     r"|completion unknown|Operation canceled|Connection operation failed", RetryableError),
    (r"Invalid authorization|Invalid catalog name|Invalid schema name|Base table or view not found"
     r"|Column not found", ConfigError),
)  # fmt: skip
_NUMBERED = re.compile(r"(?:\bMsg|\berror(?: number)?|\bnumber)[ :=#]+(\d{2,5})\b", re.IGNORECASE)
_NEXT: dict[type[NaviglioError], str] = {
    RetryableError: " Trying again is enough once the server is back.",
    ContentionError: " Trying again is enough.",
    ConfigError: " Grant the right, or correct the connection or the name.",
}


@contextmanager
def translated(where: str, owner: type[NaviglioError]) -> Iterator[None]:
    """Raise what the server refuses as the project's errors; `owner` is who acts by default.

    The original is not chained: its text may hold a row's values.
    """
    try:
        yield
    except (mssql_python.Error, mssql_python.ConnectionStringParseError) as error:
        raise translate(error, where, owner) from None


def translate(error: BaseException, where: str, owner: type[NaviglioError]) -> NaviglioError:
    """Return the project's error for one of the driver's, with the server's number if known."""
    if isinstance(error, mssql_python.ConnectionStringParseError):  # its text may hold a password
        return ConfigError(f"{where}: the connection's URL is not understood. Correct it.")
    kind = _kind(error) or owner
    return kind(f"{where}: {said(error)}.{_NEXT.get(kind, '')}")


def said(error: BaseException) -> str:
    """Return what the server said, with its number, without any row's values."""
    known = _known(error)
    number = number_of(error)
    told = f" (error {number})" if number and number > 0 else ""
    if known is not None and known.said:
        constraint = constraint_of(error)
        return known.said + (f": {constraint!r}" if constraint else "") + told
    if known is None and isinstance(error, mssql_python.DataError | mssql_python.IntegrityError):
        return f"{error.driver_error}{told}"
    return _first_line(error) + told


def number_of(error: BaseException) -> int | None:
    """Return the server's error number; None where it can't be told."""
    known = _known(error)
    if known is not None:
        return known.number
    match = _NUMBERED.search(str(error))
    return int(match[1]) if match else None


def column_of(error: BaseException) -> str | None:
    """Return the column that the server blames."""
    return _group(error, "column")


def constraint_of(error: BaseException) -> str | None:
    """Return the constraint or unique index that the server blames."""
    return _group(error, "constraint")


def is_lost(error: BaseException) -> bool:
    """Tell whether the session is gone with the error."""
    known = _known(error)
    if known is not None:
        return known.number in LOST
    return _kind(error) is RetryableError


def is_about_rows(error: BaseException) -> bool:
    """Tell whether rows, not the server or the configuration, are what the server refused."""
    return _kind(error) is DataError


def _known(error: BaseException) -> _Known | None:
    text = str(error)
    return next((known for known, words in _WORDS if words.search(text)), None)


def _kind(error: BaseException) -> type[NaviglioError] | None:
    known = _known(error)
    if known is not None:
        return known.kind
    if isinstance(error, mssql_python.DataError | mssql_python.IntegrityError):
        return DataError
    return next((kind for words, kind in _STATES if re.search(words, str(error))), None)


def _group(error: BaseException, name: str) -> str | None:
    for known, words in _WORDS:
        if (match := words.search(str(error))) is not None:
            return match[name] if name in words.groupindex and known.number > 0 else None
    return None


def _first_line(error: BaseException) -> str:
    """Return the server's own words, without the names of the driver's layers before them."""
    text = getattr(error, "ddbc_error", "") or str(error)
    return re.sub(r"^(\[[^\]]*\])+", "", text).split("\n", maxsplit=1)[0].strip().rstrip(".")
