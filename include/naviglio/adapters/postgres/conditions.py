"""Conditions of a scan as SQL."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from naviglio.adapters.postgres.hashing import bucket, raw_key_hash, raw_near_hash
from naviglio.adapters.postgres.moments import date_text, microseconds, moment_text
from naviglio.adapters.postgres.sql import array, literal, quote
from naviglio.conditions import (
    INTEGERS,
    TIMES,
    Both,
    Buckets,
    Condition,
    Everything,
    IsNull,
    Keys,
    Not,
    Since,
    Within,
    no_span,
    span,
)
from naviglio.model import Column, TableSchema

_DAY_US = 86_400_000_000


def where(condition: Condition, schema: TableSchema) -> str:
    """Return a condition as an SQL expression."""
    match condition:
        case Both():
            return f"({where(condition.one, schema)}) AND ({where(condition.other, schema)})"
        case Not():
            return f"({where(condition.condition, schema)}) IS NOT TRUE"
        case Since() | Within() | IsNull():
            return _of_column(condition, schema.column(condition.column))
        case _:
            return _of_key(condition, schema)


def _of_column(condition: Since | Within | IsNull, column: Column) -> str:
    name = quote(column.name)
    if isinstance(condition, IsNull):
        return f"{name} IS NULL"
    return span(
        condition, name,
        point=lambda at: _point(column, at), moment=lambda at: moment(column, microseconds(at)),
    )  # fmt: skip


def _of_key(condition: Everything | Buckets | Keys, schema: TableSchema) -> str:
    match condition:
        case Everything():
            return "true"
        case Buckets():
            return _buckets(condition, schema)
        case Keys():
            return _keys(condition.keys, schema)


def moment(column: Column, us: int) -> str:
    """Return a moment, in microseconds since 1970 UTC, as a literal of a time column's type.

    Timestamps without zone and dates (their first moment) are taken as UTC.
    """
    match column.kind:
        case "timestamptz":
            return f"{literal(moment_text(us, '+00'))}::timestamptz"
        case "timestamp":
            return f"{literal(moment_text(us))}::timestamp"
        case "date":
            return f"{literal(date_text(-(-us // _DAY_US)))}::date"
        case _:
            raise no_span(column, TIMES)


def _point(column: Column, point: int) -> str:
    """Return a point as a literal; both bounds round up, since columns hold microseconds."""
    if column.kind in INTEGERS:
        return literal(point)
    if column.kind not in TIMES:
        raise no_span(column)
    return moment(column, -(-point // 1000))


def _buckets(condition: Buckets, schema: TableSchema) -> str:
    if condition.numbers is None:
        return "true"
    numbers = array(map(str, condition.numbers), "bigint")
    return (
        f"{bucket(raw_key_hash(schema), raw_near_hash(schema), condition.bits)} = ANY ({numbers})"
    )


def _keys(keys: pa.Table, schema: TableSchema) -> str:
    """Typed arrays, so that the key's index serves."""
    columns = [schema.column(name) for name in schema.key]
    arrays = [array(texts(keys[c.name], c), c.source_type) for c in columns]
    if len(columns) == 1:
        return f"{quote(columns[0].name)} = ANY ({arrays[0]})"
    names = ", ".join(quote(c.name) for c in columns)
    return f"({names}) IN (SELECT * FROM unnest({', '.join(arrays)}))"


def texts(values: pa.ChunkedArray, column: Column) -> list[str | None]:
    """Return a column's carriers as the texts that PostgreSQL reads."""
    plain: pa.ChunkedArray = values
    spell: Callable[..., str] = str
    match column.kind:
        case "timestamp" | "timestamptz":
            zone = "+00" if column.kind == "timestamptz" else ""
            plain, spell = values.cast(pa.int64()), lambda us: moment_text(us, zone)
        case "date":
            plain, spell = values.cast(pa.int32()), date_text
        case "bytes":
            spell = lambda held: f"\\x{held.hex()}"  # noqa: E731 - one of several spellings, chosen here
        case "bool" | "float32" | "float64":
            plain = pc.cast(values, pa.string())
        case "decimal":
            spell = "{:f}".format
        case _:
            pass
    return [None if value is None else spell(value) for value in plain.to_pylist()]
