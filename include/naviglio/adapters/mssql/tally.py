"""A checksum of staged rows that both sides compute: Arrow over the stream, T-SQL over the table.

The bulk copy may only differ by losing rows, by turning NULL into a default, by rounding, cutting
or shifting values. Counts of values, exact sums of numbers and moments and sums of lengths tell
each of these, cost a pass over columns that are in memory, and one scan in the server. A hash of
each row would tell more and cost both sides more than the copy: Arrow has none that T-SQL has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from naviglio.adapters.mssql.sql import quote

Figures = tuple[int | Decimal | float | None, ...]
_SUMMED_DIGITS = 28  # of a decimal: 10^10 rows of them can be summed in 38 digits
_WIDE = pa.decimal128(38, 0)
_ASTRAL = r"[\x{10000}-\x{10FFFF}]"  # characters of two UTF-16 units


@dataclass
class Tally:
    """What has passed, by column."""

    schema: pa.Schema
    rows: int = 0
    _found: list[list[Any]] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of the schema."""
        self._found = self._found or [[0, None, None] for _ in self.schema]
        self.rows += batch.num_rows
        for found, array in zip(self._found, batch.columns, strict=True):
            _add(found, array)

    @property
    def figures(self) -> Figures:
        """Rows, then values and two sums or bounds of each column, as `figures_query` gives."""
        found = self._found or [[0, None, None] for _ in self.schema]
        return (self.rows, *(figure for column in found for figure in column))


def figures_query(name: str, schema: pa.Schema) -> str:
    """Return the query of a staging table's own figures (`name` is quoted)."""
    figures = ["COUNT_BIG(*)"]
    for one in schema:
        column = f"s.{quote(one.name)}"
        figures += [f"COUNT_BIG({column})", *_expressions(column, one.type)]
    return f"SELECT {', '.join(figures)} FROM {name} AS s"


def differences(sent: Figures, stored: Figures, schema: pa.Schema) -> list[str]:
    """Return the names of columns whose figures differ, `rows` among them; empty when none."""
    names = ["rows", *(one.name for one in schema for _ in range(3))]
    return sorted({n for n, a, b in zip(names, sent, stored, strict=True) if a != b})


def _expressions(column: str, type_: pa.DataType) -> tuple[str, str]:
    """Return the two figures of a column: a sum (and nothing), or the bounds of what has none."""
    if _has_bounds(type_):
        return f"MIN({column})", f"MAX({column})"
    if pa.types.is_string(type_) or pa.types.is_binary(type_):
        measure = f"DATALENGTH({column})"
    elif pa.types.is_date(type_):
        measure = f"DATEDIFF(day, '19700101', {column})"
    elif pa.types.is_timestamp(type_):
        measure = f"DATEDIFF_BIG(microsecond, '19700101', {column})"
    elif pa.types.is_decimal(type_):
        return f"SUM(CAST({column} AS decimal(38,{type_.scale})))", "NULL"
    else:
        measure = column
    return f"SUM(CAST({measure} AS decimal(38,0)))", "NULL"


def _add(found: list[Any], array: pa.Array) -> None:
    values = len(array) - array.null_count
    if not values:
        return
    found[0] = (found[0] or 0) + values
    if _has_bounds(array.type):
        least, most = pc.min_max(array).as_py().values()
        found[1] = least if found[1] is None else min(found[1], least)
        found[2] = most if found[2] is None else max(found[2], most)
    else:
        found[1] = (found[1] or 0) + _sum(array.drop_null())


def _sum(array: pa.Array) -> int | Decimal:
    type_ = array.type
    if pa.types.is_string(type_):
        return 2 * _units(array)
    if pa.types.is_binary(type_):
        return int(pc.sum(pc.binary_length(array)).as_py())
    if pa.types.is_decimal(type_):
        return Decimal(pc.sum(array.cast(pa.decimal128(38, type_.scale))).as_py())
    if pa.types.is_date(type_):
        array = array.cast(pa.int32())
    elif pa.types.is_boolean(type_):
        array = array.cast(pa.int8())
    # In 64 bits the sum of a few large numbers would wrap around.
    return int(pc.sum(array.cast(pa.int64()).cast(_WIDE)).as_py())


def _units(array: pa.Array) -> int:
    characters = int(pc.sum(pc.utf8_length(array)).as_py())
    if int(pc.sum(pc.binary_length(array)).as_py()) == characters:
        return characters
    return characters + int(pc.sum(pc.count_substring_regex(array, _ASTRAL)).as_py())


def _has_bounds(type_: pa.DataType) -> bool:
    """Tell whether a sum would depend on the order of the rows, or not fit in."""
    wide = pa.types.is_decimal(type_) and type_.precision > _SUMMED_DIGITS
    return bool(pa.types.is_floating(type_) or wide)
