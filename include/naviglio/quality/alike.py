"""Rows of two vendors in one spelling, so that equal values compare as equal.

What a target keeps in another carrier than the lake, it has been given losslessly: a number without
bounds as a decimal, a moment with its offset. Where both have one carrier, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pyarrow as pa

from naviglio.carriers import arrow_type
from naviglio.model import Column, TableSchema


def alike(
    batches: Iterator[pa.RecordBatch], lake: TableSchema, target: TableSchema
) -> Iterator[pa.RecordBatch]:
    """Yield batches of either side in the lake's carriers; numbers without blank digits."""
    there = {column.name: column for column in target.columns}
    others = [
        column
        for column in lake.columns
        if column.name in there and there[column.name].carrier != column.carrier
    ]
    for batch in batches:
        yield _spelled(batch, others) if others else batch


def _spelled(batch: pa.RecordBatch, columns: list[Column]) -> pa.RecordBatch:
    for column in columns:
        place = batch.schema.get_field_index(column.name)
        field = pa.field(column.name, arrow_type(column.carrier))
        batch = batch.set_column(place, field, _as_carried(batch.column(place), column))
    return batch


def _as_carried(array: pa.Array, column: Column) -> pa.Array:
    if column.kind != "number":
        return array.cast(arrow_type(column.carrier))
    return pa.array([None if n is None else _number(n) for n in array.to_pylist()], pa.string())


def _number(value: Decimal | str) -> str:
    """Spell a number with all its digits, and none that say nothing."""
    text = f"{value:f}" if isinstance(value, Decimal) else value
    return text.rstrip("0").removesuffix(".") if "." in text else text
