"""Which T-SQL type a logical column has in the target, and its carrier in the staging table.

A type that is spelled as only SQL Server spells it comes from there and is made again as it was.
Everything else gets the narrowest type that holds every value: `character varying(9)` counts
characters, `nvarchar` counts UTF-16 units, of which a character has up to two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from naviglio.model import Column, Kind

OWN_TEXT = "nvarchar(max)"
KEY_TEXT = 450  # units: an index key has at most 900 bytes
NUMBER = (38, 18)  # of a number without bounds: what doesn't fit in exactly is refused
_MOST_UNITS = 4000  # of nvarchar(n)
_SECOND_DIGITS = 6

_STAGED = {
    "int16": "smallint", "int32": "int", "int64": "bigint", "bool": "bit", "float": "real",
    "double": "float(53)", "string": OWN_TEXT, "binary": "varbinary(max)", "date32[day]": "date",
    "timestamp[us]": "datetime2(6)", "timestamp[us, tz=UTC]": "datetimeoffset(6)",
}  # fmt: skip
_TARGET: dict[Kind, str] = {
    "int16": "smallint", "int32": "int", "int64": "bigint", "bool": "bit", "float32": "real",
    "float64": "float(53)", "number": f"decimal({NUMBER[0]},{NUMBER[1]})", "date": "date",
    "uuid": "uniqueidentifier", "bytes": "varbinary(max)", "text": OWN_TEXT, "interval": OWN_TEXT,
    "json": OWN_TEXT, "jsonb": OWN_TEXT, "literal": OWN_TEXT,
}  # fmt: skip
_SECONDS: dict[Kind, str] = {
    "time": "time", "timestamp": "datetime2", "timestamptz": "datetimeoffset",
}  # fmt: skip
_SPELLED_HERE = re.compile(
    r"tinyint|(?:small)?money|datetime|smalldatetime|datetime2\(\d\)|datetimeoffset\(\d\)|xml"
    r"|n?(?:var)?char\((?:\d+|max)\)|(?:var)?binary\((?:\d+|max)\)|uniqueidentifier"
)
_COLLATION = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Spelled:
    """A type, taken apart: `nvarchar(9)` is ("nvarchar", 9, 0), max is -1, nothing None."""

    name: str
    first: int | None
    second: int

    @classmethod
    def of(cls, text: str) -> Spelled:
        """Take a type's text apart."""
        match = re.fullmatch(r"(\w+)(?:\((max|\d+)(?:, ?(\d+))?\))?", text)
        if match is None:
            return cls(text, None, 0)
        first = match[2] and (-1 if match[2] == "max" else int(match[2]))
        return cls(match[1], first or None, int(match[3] or 0))


def spelled(name: str, max_length: int, precision: int, scale: int) -> str:
    """Return a type as this adapter spells it, from what sys.columns says of it."""
    if name in ("decimal", "numeric"):
        return f"decimal({precision},{scale})"
    if name in ("datetime2", "datetimeoffset", "time"):
        return f"{name}({scale})"
    if name in ("char", "varchar", "binary", "varbinary", "nchar", "nvarchar"):
        units = max_length // 2 if name.startswith("n") else max_length
        return f"{name}({'max' if max_length < 0 else units})"
    return "float(53)" if name == "float" else name


def is_own(column: Column) -> bool:
    """Tell whether the source spells the column's type as only SQL Server does."""
    return _SPELLED_HERE.fullmatch(column.source_type) is not None


def target_type(column: Column, *, key: bool = False) -> str:
    """Return the type by which to create a column that holds all that the logical column holds."""
    if is_own(column):
        return column.source_type
    if column.source_type in ("timestamp", "rowversion") and column.kind == "bytes":
        return "binary(8)"  # a rowversion of its own would be another one
    if column.kind == "decimal":
        return f"decimal({column.precision},{column.scale})"
    if column.kind in _SECONDS:
        digits = _SECOND_DIGITS if column.precision is None else column.precision
        return f"{_SECONDS[column.kind]}({digits})"
    if column.kind == "text":
        return _text_type(column.length, key=key)
    return _TARGET[column.kind]


def defined(column: Column, *, key: bool) -> str:
    """Return type, collation and nullability of a new column.

    Only the key is NOT NULL: a source that drops such a constraint later must not break a load.
    """
    collation = column.collation or ""
    kept = is_own(column) and column.kind == "text" and _COLLATION.fullmatch(collation)
    return (
        target_type(column, key=key)
        + (f" COLLATE {collation}" if kept else "")
        + (" NOT NULL" if key else " NULL")
    )


def staged_type(column: Column) -> str:
    """Return the type of a staged column: exactly its carrier; text is never cut on its way in."""
    if match := re.fullmatch(r"decimal128\((\d+), (\d+)\)", column.carrier):
        return f"decimal({match[1]},{match[2]})"
    return _STAGED[column.carrier]


def holds(actual: str, column: Column, *, key: bool = False) -> bool:
    """Tell whether a column of type `actual` holds every value: nothing is cut or rounded.

    A text of n characters may go to an n wide column: rows that need more units are refused.
    """
    want, have = Spelled.of(target_type(column, key=key)), Spelled.of(actual)
    if have == want:
        return True
    if have.name in ("nvarchar", "nchar"):
        return column.carrier == "string" and _wide(have, want, column)
    if have.name == "decimal":
        return _in_decimal(want, have)
    if have.name in ("varbinary", "varchar", "char"):
        return want.name in (have.name, have.name.removeprefix("var")) and _long(have, want)
    if have.name not in _WIDER.get(want.name, (want.name,)):
        return False
    return (have.first or 0) >= (want.first or 0)


_WIDER = {
    "tinyint": ("tinyint", "smallint", "int", "bigint"),
    "smallint": ("smallint", "int", "bigint"),
    "int": ("int", "bigint"),
    "real": ("real", "float"),
    "datetime2": ("datetime2",),
    "smalldatetime": ("smalldatetime", "datetime2"),
}
_DIGITS = {
    "tinyint": (3, 0), "smallint": (5, 0), "int": (10, 0), "bigint": (19, 0), "bit": (1, 0),
    "smallmoney": (10, 4), "money": (19, 4),
}  # fmt: skip


def _text_type(length: int | None, *, key: bool) -> str:
    if key:
        return f"nvarchar({min(2 * (length or KEY_TEXT), KEY_TEXT)})"
    if length is None or 2 * length > _MOST_UNITS:
        return OWN_TEXT
    return f"nvarchar({2 * length})"


def _wide(have: Spelled, want: Spelled, column: Column) -> bool:
    """Tell whether text fits in; what isn't text is kept there as its carrier's text."""
    if have.first == -1:
        return True
    if column.kind != "text":
        return False
    least = min(want.first or 0, column.length or _MOST_UNITS + 1) if want.first != -1 else None
    return least is not None and (have.first or 0) >= least


def _long(have: Spelled, want: Spelled) -> bool:
    return have.first == -1 or (want.first != -1 and (have.first or 0) >= (want.first or 0))


def _in_decimal(want: Spelled, have: Spelled) -> bool:
    digits, scale = _DIGITS.get(want.name, (want.first or 0, want.second))
    if want.name not in {*_DIGITS, "decimal"}:
        return False
    return have.second >= scale and (have.first or 0) - have.second >= digits - scale
