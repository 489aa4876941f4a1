"""Conditions of a scan as SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from naviglio.adapters.postgres.hashing import bucket, raw_key_hash, raw_near_hash
from naviglio.adapters.postgres.moments import date_text, microseconds, moment_text
from naviglio.adapters.postgres.sql import array, literal, quote
from naviglio.errors import ConfigError
from naviglio.model import Column, TableSchema
from naviglio.ports import (
    Both,
    Buckets,
    Condition,
    Everything,
    IsNull,
    Keys,
    Not,
    Since,
    Within,
)

KEYS_A_STATEMENT = 20_000
_DAY_US = 86_400_000_000
_INTEGERS = frozenset({"int16", "int32", "int64"})
_TIMES = frozenset({"date", "timestamp", "timestamptz"})


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
    match condition:
        case Since():
            return _since(condition, column)
        case Within():
            window = condition.window
            low, high = microseconds(window.start), microseconds(window.end)
            return _between(column, moment(column, low), moment(column, high))
        case IsNull():
            return f"{quote(column.name)} IS NULL"


def _of_key(condition: Everything | Buckets | Keys, schema: TableSchema) -> str:
    match condition:
        case Everything():
            return "true"
        case Buckets():
            return _buckets(condition, schema)
        case Keys():
            return _keys(condition.keys, schema)


def split(condition: Condition) -> Iterator[Condition]:
    """Divide a condition over many keys into ones that together hold the same rows, each once."""
    if isinstance(condition, Keys):
        names = condition.keys.column_names
        distinct = condition.keys.group_by(names).aggregate([])
        for start in range(0, max(distinct.num_rows, 1), KEYS_A_STATEMENT):
            yield Keys(keys=distinct.slice(start, KEYS_A_STATEMENT))
    elif isinstance(condition, Both):
        for one in split(condition.one):
            for other in split(condition.other):
                yield replace(condition, one=one, other=other)
    else:
        yield condition


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
            raise _unfit(column, _TIMES)


def _since(condition: Since, column: Column) -> str:
    bounds = (condition.low, condition.high)
    low, high = (None if at is None else _point(column, at) for at in bounds)
    inside = _between(column, low, high)
    return f"({inside}) OR {quote(column.name)} IS NULL" if condition.or_null else inside


def _point(column: Column, point: int) -> str:
    """Return a point as a literal; both bounds round up, since columns hold microseconds."""
    if column.kind in _INTEGERS:
        return literal(point)
    if column.kind not in _TIMES:
        raise _unfit(column, _INTEGERS | _TIMES)
    return moment(column, -(-point // 1000))


def _between(column: Column, low: str | None, high: str | None) -> str:
    name = quote(column.name)
    bounds = [f"{name} >= {low}"] if low is not None else []
    bounds += [f"{name} < {high}"] if high is not None else []
    return " AND ".join(bounds) or f"{name} IS NOT NULL"


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


def _unfit(column: Column, kinds: frozenset[str]) -> ConfigError:
    return ConfigError(
        f"Column {column.name!r} is {column.source_type} and can't be read in spans; "
        f"these kinds can: {', '.join(sorted(kinds))}. Name another column."
    )
