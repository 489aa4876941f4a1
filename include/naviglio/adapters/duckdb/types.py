"""Which DuckDB type a logical column has in the target, and its carrier in staging."""

from __future__ import annotations

import re
from dataclasses import dataclass

from naviglio.model import Column, Kind

TEXT = "VARCHAR"
SECOND_DIGITS = 6  # of TIME, TIMESTAMP and TIMESTAMP WITH TIME ZONE
_STAGED = {
    "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "bool": "BOOLEAN",
    "float": "FLOAT", "double": "DOUBLE", "string": TEXT, "binary": "BLOB",
    "date32[day]": "DATE", "timestamp[us]": "TIMESTAMP",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip
# DuckDB has no number without bounds, and its INTERVAL takes a month for 30 days when it compares:
# both stay the exact text that the source sent.
_TARGET: dict[Kind, str] = {
    "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "bool": "BOOLEAN",
    "float32": "FLOAT", "float64": "DOUBLE", "number": TEXT, "text": TEXT, "date": "DATE",
    "time": "TIME", "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "interval": TEXT, "uuid": "UUID", "bytes": "BLOB", "json": "JSON", "jsonb": "JSON",
    "literal": TEXT,
}  # fmt: skip
_DIGITS = {"SMALLINT": 5, "INTEGER": 10, "BIGINT": 19}
_WIDER = {
    "SMALLINT": ("INTEGER", "BIGINT", "HUGEINT"),
    "INTEGER": ("BIGINT", "HUGEINT"),
    "BIGINT": ("HUGEINT",),
    "FLOAT": ("DOUBLE",),
}


@dataclass(frozen=True)
class Decimal:
    """The bounds of a DECIMAL."""

    precision: int
    scale: int

    @classmethod
    def of(cls, spelled: str) -> Decimal | None:
        """Take a type's text apart; None when it is no decimal."""
        match = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", spelled)
        return cls(int(match[1]), int(match[2])) if match else None


def staged_type(column: Column) -> str:
    """Return the type of a staged column: exactly its carrier."""
    if match := re.fullmatch(r"decimal128\((\d+), (\d+)\)", column.carrier):
        return f"DECIMAL({match[1]},{match[2]})"
    return _STAGED[column.carrier]


def target_type(column: Column) -> str:
    """Return the type by which to create a column that holds all that the logical column holds."""
    if column.kind == "decimal":
        return f"DECIMAL({column.precision},{column.scale})"
    if column.kind in ("timestamp", "timestamptz") and column.carrier == "string":
        return TEXT  # a seventh digit of the second, or an offset, which a timestamp would lose
    if column.kind == "time" and (column.precision or 0) > SECOND_DIGITS:
        return TEXT
    return _TARGET[column.kind]


def holds(spelled: str, column: Column) -> bool:
    """Tell whether a column of type `spelled` (as the catalogue has it) holds every value."""
    want = target_type(column)
    if spelled == want or (spelled == TEXT and column.carrier == "string"):
        return True
    if (have := Decimal.of(spelled)) is None:
        return spelled in _WIDER.get(want, ())
    bounds = Decimal.of(want) or (Decimal(_DIGITS[want], 0) if want in _DIGITS else None)
    if bounds is None:
        return False
    whole_digits = have.precision - have.scale >= bounds.precision - bounds.scale
    return have.scale >= bounds.scale and whole_digits
