"""DuckDB's errors as the project's, by who acts next."""

from __future__ import annotations

import re

import duckdb

from naviglio.errors import (
    ConfigError,
    ContentionError,
    DataError,
    NaviglioError,
    RetryableError,
    TargetError,
)

_HELD = re.compile(r"Could not set lock on file|being used by another process")
_ABOUT_ROWS = (duckdb.ConstraintException, duckdb.ConversionException, duckdb.OutOfRangeException)


def is_held(error: BaseException) -> bool:
    """Tell whether another process has the file open."""
    return isinstance(error, duckdb.IOException) and bool(_HELD.search(str(error)))


def is_about_rows(error: duckdb.Error) -> bool:
    """Tell whether values were refused."""
    return isinstance(error, _ABOUT_ROWS)


def said(error: duckdb.Error) -> str:
    """Return what DuckDB says, without the values that it may quote."""
    text = str(error).strip().splitlines()[0]
    if is_about_rows(error) and "CHECK constraint failed" not in text:
        text = re.split(r"duplicate key|['\"`]|\d", text, flags=re.IGNORECASE)[0]
    return text.rstrip(" :,.!?")


def translate(error: duckdb.Error, where: str) -> NaviglioError:
    """Return the project's error."""
    told = f"{where}: {said(error)}."
    if is_held(error):
        return RetryableError(
            f"{told} DuckDB lets one process at a time open a file. Close the program that has it "
            "open, or wait until it has ended: trying again is enough then."
        )
    if isinstance(error, duckdb.TransactionException):
        return ContentionError(f"{told} Another load was at work; trying again is enough.")
    if is_about_rows(error):
        return DataError(f"{told} Nothing was loaded. Correct the row at its source.")
    if isinstance(error, duckdb.ConnectionException | duckdb.PermissionException):
        return ConfigError(told)
    if isinstance(error, duckdb.OutOfMemoryException):
        return TargetError(f"{told} Give it more: `?memory_limit=4GB` in the connection's URL.")
    return TargetError(told)
