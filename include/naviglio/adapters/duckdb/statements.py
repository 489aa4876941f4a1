"""The SELECT statements of a snapshot, as text; tables that they name are registered beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from naviglio.adapters.duckdb.carried import beyond, read
from naviglio.adapters.duckdb.hashing import key_hash, mask, row_hash
from naviglio.adapters.duckdb.sql import columns, quote
from naviglio.conditions import (
    INTEGERS,
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
from naviglio.model import KEY_HASH, ROW_HASH, Column, TableSchema, Window
from naviglio.ports import Scan

_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Query:
    """One statement over a table, and the Arrow tables that it names."""

    table: str  # quoted
    scan: Scan
    beside: dict[str, pa.Table] = field(default_factory=dict)

    def rows(self) -> str:
        """Return the statement that reads the scan in its carriers."""
        schema, scan = self.scan.schema, self.scan
        wanted = schema.columns if scan.rows else [schema.column(name) for name in schema.key]
        listed = [f"{read(column)} AS {quote(column.name)}" for column in wanted]
        if scan.rows:
            listed.append(beyond(schema))
        if scan.hashes in ("key", "both"):
            listed.append(f"{key_hash(schema)} AS {KEY_HASH}")
        if scan.hashes in ("row", "both"):
            listed.append(f"{row_hash(schema)} AS {ROW_HASH}")
        return f"SELECT {', '.join(listed)} {self._from()}"

    def count(self) -> str:
        """Return the statement that counts the scan's rows."""
        return f"SELECT count(*) {self._from()}"

    def digest_buckets(self, by: Buckets) -> str:
        """Return the statement that counts and sums by the lowest bits of the key's hash."""
        index = f"{key_hash(self.scan.schema)} & {mask(by.bits)}"
        chosen = "" if by.numbers is None else f" HAVING i IN ({_listed(by.numbers)})"
        return (
            f"SELECT {index} AS i, count(*), bit_xor({self._summed()}) {self._from()}"
            f" GROUP BY i{chosen} ORDER BY i"
        )

    def digest_windows(self, windows: Sequence[Window], event_time: str) -> str:
        """Return the statement that counts and sums by window of event time."""
        self.beside["windows"] = pa.table(
            {
                "i": pa.array(range(len(windows)), pa.int64()),
                "low": pa.array([w.start for w in windows], pa.timestamp("us", tz="UTC")),
                "high": pa.array([w.end for w in windows], pa.timestamp("us", tz="UTC")),
            }
        )
        at = f"CAST({quote(event_time)} AS TIMESTAMP WITH TIME ZONE)"
        return (
            f"SELECT w.i, count(*), bit_xor(r.h) FROM (SELECT {at} AS at, {self._summed()} AS h"
            f" {self._from()}) AS r JOIN windows AS w ON r.at >= w.low AND r.at < w.high"
            " GROUP BY w.i ORDER BY w.i"
        )

    def bad_keys(self) -> str:
        """Return the statement that finds keys that are NULL or stand on several rows."""
        key = self.scan.schema.key
        missing = " OR ".join(f"{quote(name)} IS NULL" for name in key)
        texts = [f"coalesce({quote(name)}::VARCHAR, 'NULL')" for name in key]
        shown = texts[0] if len(key) == 1 else f"'(' || {' || $,$ || '.join(texts)} || ')'"
        return (
            f"SELECT {shown.replace('$,$', chr(39) + ',' + chr(39))} {self._from()}"
            f" GROUP BY {columns(key)} HAVING count(*) > 1 OR {missing} LIMIT 5"
        )

    def _summed(self) -> str:
        schema = self.scan.schema
        return key_hash(schema) if self.scan.hashes == "key" else row_hash(schema)

    def _from(self) -> str:
        return f"FROM {self.table} WHERE {self._where(self.scan.where)}"

    def _where(self, condition: Condition) -> str:
        schema = self.scan.schema
        match condition:
            case Both():
                return f"({self._where(condition.one)}) AND ({self._where(condition.other)})"
            case Not():
                return f"({self._where(condition.condition)}) IS NOT TRUE"
            case IsNull():
                return f"{quote(condition.column)} IS NULL"
            case Since() | Within():
                return _span(condition, schema.column(condition.column))
            case Keys():
                return self._keys(condition.keys, schema)
            case _:
                return _of_bucket(condition, schema)

    def _keys(self, keys: pa.Table, schema: TableSchema) -> str:
        name = f"keys_{len(self.beside)}"
        self.beside[name] = keys
        held = ", ".join(read(schema.column(one)) for one in schema.key)
        return f"({held}) IN (SELECT ({columns(schema.key)}) FROM {name})"


def _of_bucket(condition: Everything | Buckets, schema: TableSchema) -> str:
    if isinstance(condition, Everything) or condition.numbers is None:
        return "true"
    return f"({key_hash(schema)} & {mask(condition.bits)}) IN ({_listed(condition.numbers)})"


def _span(condition: Since | Within, column: Column) -> str:
    return span(
        condition, quote(column.name),
        point=lambda at: _point(column, at), moment=lambda at: _moment(column, _us(at)),
    )  # fmt: skip


def _point(column: Column, point: int) -> str:
    """Return a point as a literal; both bounds round up, since columns hold microseconds."""
    if column.kind in INTEGERS:
        return str(point)
    return _moment(column, -(-point // 1000))


def _moment(column: Column, us: int) -> str:
    match column.kind:
        case "timestamptz":
            return f"make_timestamptz({us})"
        case "timestamp":
            return f"make_timestamp({us})"
        case "date":
            return f"(DATE '1970-01-01' + {-(-us // _DAY_US)}::INTEGER)"
        case _:
            raise no_span(column)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "NULL"
