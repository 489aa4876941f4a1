"""Arrow types of the carriers that hold a table's columns in landing and lake."""

from __future__ import annotations

import re

import pyarrow as pa

from naviglio.model import BEYOND, OP, Column, TableSchema

_DECIMAL = re.compile(r"decimal128\((\d+), (\d+)\)\Z")
_BEYOND_KINDS = frozenset({"decimal", "date", "timestamp", "timestamptz"})
_PLAIN = {
    str(t): t
    for t in (
        pa.int16(), pa.int32(), pa.int64(), pa.bool_(), pa.float32(), pa.float64(), pa.string(),
        pa.binary(), pa.date32(), pa.timestamp("us"), pa.timestamp("us", tz="UTC"),
    )
}  # fmt: skip


def arrow_type(carrier: str) -> pa.DataType:
    """Return the Arrow type that a carrier's text names; ValueError when it names none."""
    if match := _DECIMAL.match(carrier):
        return pa.decimal128(int(match[1]), int(match[2]))
    if carrier not in _PLAIN:
        raise ValueError(f"{carrier!r} is no carrier; known are {sorted(_PLAIN)} and decimal128.")
    return _PLAIN[carrier]


def arrow_schema(schema: TableSchema, *, changes: bool = False) -> pa.Schema:
    """Return the Arrow schema of a table's rows: its carriers, `_beyond`, and `_op` for changes."""
    fields = [pa.field(c.name, arrow_type(c.carrier)) for c in schema.columns]
    extra = [BEYOND, OP] if changes else [BEYOND]
    return pa.schema([*fields, *(pa.field(name, pa.string()) for name in extra)])


def key_schema(schema: TableSchema) -> pa.Schema:
    """Return the Arrow schema of a table's key."""
    return pa.schema([(name, arrow_type(schema.column(name).carrier)) for name in schema.key])


def may_be_beyond(column: Column) -> bool:
    """Tell whether a column's carrier lacks values of its type, which then stand in `_beyond`."""
    return column.kind in _BEYOND_KINDS and column.carrier != "string"
