"""A checksum of staged rows that both sides compute: Arrow over the stream, T-SQL over the table.

Of each column: how many values there are, the sum of their numbers (measures.py), and the sum of
number times weight, where a row's weight comes from its key. The first two tell lost rows, NULLs
that became defaults, rounding, cuts and shifts; the last that values changed places between rows.
What they don't tell: texts of one length with the same first and last unit that are exchanged or
changed inside, rows whose keys have one weight (one pair in 8191), and what happens to floats
between their bounds. It costs a pass over columns that are in memory, and one scan in the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from naviglio.adapters.mssql.measures import Whole, expression, measured, unscaled
from naviglio.adapters.mssql.sql import quote

Figures = tuple[int | Decimal | float | None, ...]
_SUMMED_DIGITS = 28  # of a decimal: 10^10 rows of them can be summed in 38 digits
_WEIGHED_DIGITS = 23  # and so many with their weights
_PRIME, _LEAST = 8191, 8192  # a weight is from 2 to 16382
_SLICE = 65_536  # rows whose products sum up in 64 bits


@dataclass
class Tally:
    """What has passed, by column; `key` is the column that weights come from."""

    schema: pa.Schema
    key: str
    rows: int = 0
    _found: list[list[Any]] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of the schema."""
        self._found = self._found or [[0, None, None] for _ in self.schema]
        self.rows += batch.num_rows
        for start in range(0, batch.num_rows, _SLICE):
            part = batch.slice(start, _SLICE)
            weights = _weights(part.column(self.key))
            for found, array in zip(self._found, part.columns, strict=True):
                _add(found, array, weights)

    @property
    def figures(self) -> Figures:
        """Rows, then three figures of each column, as `figures_query` gives."""
        found = self._found or [[0, None, None] for _ in self.schema]
        told = (
            figure
            for one, (count, *two) in zip(self.schema, found, strict=True)
            for figure in (count, *(_scaled(number, one.type) for number in two))
        )
        return (self.rows, *told)


def figures_query(name: str, schema: pa.Schema, key: str) -> str:
    """Return the query of a staging table's own figures (`name` is quoted)."""
    figures = ["COUNT_BIG(*)"]
    for one in schema:
        column = f"s.{quote(one.name)}"
        figures += [f"COUNT_BIG({column})", *_expressions(column, one.type)]
    weight = _weight(f"s.{quote(key)}", schema.field(key).type)
    return (
        f"SELECT {', '.join(figures)} FROM {name} AS s"
        f" CROSS APPLY (SELECT {weight} AS {quote('weight')}) AS k"
    )


def differences(sent: Figures, stored: Figures, schema: pa.Schema) -> list[str]:
    """Return the names of columns whose figures differ, `rows` among them; empty when none."""
    names = ["rows", *(one.name for one in schema for _ in range(3))]
    return sorted({n for n, a, b in zip(names, sent, stored, strict=True) if a != b})


# --- the server's side ----------------------------------------------------------------------------


def _weight(column: str, type_: pa.DataType) -> str:
    number = "0" if pa.types.is_decimal(type_) or _has_bounds(type_) else expression(column, type_)
    return f"CAST(CAST(ISNULL({number}, 0) AS bigint) % {_PRIME} + {_LEAST} AS decimal(5,0))"


def _expressions(column: str, type_: pa.DataType) -> tuple[str, str]:
    """Return the two sums of a column, or the bounds of what has none."""
    if _has_bounds(type_):
        return f"MIN({column})", f"MAX({column})"
    weight = f"k.{quote('weight')}"
    if pa.types.is_decimal(type_):
        plain = f"SUM(CAST({column} AS decimal(38,{type_.scale})))"
        own = f"CAST({column} AS decimal({type_.precision},{type_.scale}))"
        weighed = type_.precision <= _WEIGHED_DIGITS
        return plain, f"SUM({own} * {weight})" if weighed else "NULL"
    number = expression(column, type_)
    return (
        f"SUM(CAST({number} AS decimal(38,0)))",
        f"SUM(CAST({number} AS decimal(19,0)) * {weight})",
    )


# --- this side ------------------------------------------------------------------------------------


def _weights(keys: pa.Array) -> Whole:
    """Return each row's weight; all are alike where the key's type has no number."""
    numbers = np.zeros(len(keys), np.int64)
    if not (pa.types.is_decimal(keys.type) or _has_bounds(keys.type)):
        there = keys.is_valid().to_numpy(zero_copy_only=False)
        numbers[there] = measured(keys.drop_null())
    return np.asarray(np.fmod(numbers, _PRIME) + _LEAST, np.int64)  # signed as the server's


def _add(found: list[Any], array: pa.Array, weights: Whole) -> None:
    values = len(array) - array.null_count
    if not values:
        return
    found[0] = (found[0] or 0) + values
    if _has_bounds(array.type):
        least, most = pc.min_max(array).as_py().values()
        found[1] = least if found[1] is None else min(found[1], least)
        found[2] = most if found[2] is None else max(found[2], most)
        return
    if array.null_count:
        weights = weights[array.is_valid().to_numpy(zero_copy_only=False)]
        array = array.drop_null()
    plain, weighed = _sums(array, weights)
    found[1] = (found[1] or 0) + plain
    if not pa.types.is_decimal(array.type) or array.type.precision <= _WEIGHED_DIGITS:
        found[2] = (found[2] or 0) + weighed


def _sums(array: pa.Array, weights: Whole) -> tuple[int, int]:
    """Return the exact sums of a slice's numbers, plain and weighed."""
    ones = np.ones_like(weights)
    if not pa.types.is_decimal(array.type):
        numbers = measured(array)
        return _sum(numbers, ones), _sum(numbers, weights)
    upper, lower = unscaled(array)
    high, low = (
        (lower >> np.uint64(32)).view(np.int64),
        (lower & np.uint64(0xFFFFFFFF)).view(np.int64),
    )
    plain, weighed = (
        (_sum(upper, by) << 64) + (_sum(high, by) << 32) + _sum(low, by) for by in (ones, weights)
    )
    return plain, weighed


def _sum(numbers: Whole, by: Whole) -> int:
    """Return the sum of products: by halves, since in 64 bits a few large ones would wrap."""
    return (int(np.dot(numbers >> 32, by)) << 32) + int(np.dot(numbers & 0xFFFFFFFF, by))


def _scaled(figure: Any, type_: pa.DataType) -> Any:
    """Return a sum of decimals' whole numbers as the decimal it is; all else as it is."""
    if pa.types.is_decimal(type_) and isinstance(figure, int) and not _has_bounds(type_):
        return Decimal(f"{figure}E-{type_.scale}")
    return figure


def _has_bounds(type_: pa.DataType) -> bool:
    """Tell whether a sum would depend on the order of the rows, or not fit in."""
    wide = pa.types.is_decimal(type_) and type_.precision > _SUMMED_DIGITS
    return bool(pa.types.is_floating(type_) or wide)
