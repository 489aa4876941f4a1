"""How SQL Server spells names and values: the one quoting function of this adapter."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import date, datetime, time
from decimal import Decimal
from uuid import UUID

from naviglio.errors import ConfigError
from naviglio.model import TableName

DEFAULT_SCHEMA = "dbo"  # of a table name without one
MOST_CHARACTERS = 128  # of an identifier, in UTF-16 units
_INT = range(-(2**31), 2**31)
# A backslash before a line's end continues the line within a literal: both would vanish.
_BREAKS = re.compile(r"(?<=\\)(?=[\r\n])|(\0)")

Value = str | bool | int | float | Decimal | bytes | date | datetime | time | UUID | None


def quote(identifier: str) -> str:
    """Return `identifier` as SQL Server reads it, whatever it holds.

    ConfigError for what can be no name: a NUL, nothing, more than 128 characters.
    """
    if not identifier or "\0" in identifier:
        raise ConfigError(f"{identifier!r} can't be a name: it is empty or holds a NUL. Rename it.")
    if units(identifier) > MOST_CHARACTERS:
        raise ConfigError(
            f"{identifier!r} can't be a name: it has {units(identifier)} characters (UTF-16), SQL "
            f"Server takes {MOST_CHARACTERS}. Choose a shorter one."
        )
    return "[" + identifier.replace("]", "]]") + "]"


def units(text: str) -> int:
    """Count the UTF-16 units of a text: SQL Server's measure of length."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def literal(value: Value) -> str:
    """Return `value` as a literal of its own type; ValueError for NaN and infinity."""
    match value:
        case None:
            return "NULL"
        case str():
            return _text(value)
        case bytes():
            return f"0x{value.hex()}"
        case int() | float() | Decimal():
            return _number(value)
        case _:
            return _moment_or_id(value)


def cast(text: str, type_: str) -> str:
    """Return a typed literal from its text; `type_` is this project's own text, never a user's."""
    return f"CAST({_text(text)} AS {type_})"


def table(name: TableName) -> str:
    """Return a table's quoted, qualified name; ConfigError for that of a temporary table."""
    if name.table.startswith("#"):
        raise ConfigError(
            f"{str(name)!r} can't be a table: SQL Server takes a `#` at its begin for a temporary "
            "one, which goes with its session. Choose another name."
        )
    return f"{quote(name.schema or DEFAULT_SCHEMA)}.{quote(name.table)}"


def columns(names: Iterable[str]) -> str:
    """Return quoted names, separated by commas."""
    return ", ".join(quote(name) for name in names)


def _text(value: str) -> str:
    if not _BREAKS.search(value):
        return "N'" + value.replace("'", "''") + "'"
    parts = (part for part in _BREAKS.split(value) if part)
    spelled = ("NCHAR(0)" if p == "\0" else "N'" + p.replace("'", "''") + "'" for p in parts)
    # The first operand's type keeps the server from cutting the sum at 4000 characters.
    return f"(CAST(N'' AS nvarchar(max)) + {' + '.join(spelled)})"


def _number(value: float | Decimal) -> str:
    match value:
        case bool():
            return cast(str(int(value)), "bit")
        case int():
            small = str(value) if value >= 0 else f"({value})"
            return small if value in _INT else cast(str(value), "bigint")
        case _ if not math.isfinite(value):
            raise ValueError(f"SQL Server has no {value}.")
        case float():
            return cast(repr(value), "float(53)")
        case _:
            return _decimal(value)


def _decimal(value: Decimal) -> str:
    _, digits, exponent = value.as_tuple()
    scale = max(0, -int(exponent))
    precision = max(len(digits) + max(0, int(exponent)), scale, 1)
    return cast(format(value, "f"), f"decimal({precision}, {scale})")


def _moment_or_id(value: date | time | UUID) -> str:
    match value:
        case UUID():
            return cast(str(value), "uniqueidentifier")
        case datetime():
            aware = value.utcoffset() is not None
            return cast(value.isoformat(), f"{'datetimeoffset' if aware else 'datetime2'}(7)")
        case time():
            return cast(value.isoformat(), "time(7)")
        case _:
            return cast(value.isoformat(), "date")
