"""The SELECT statements of a snapshot, as text, and what they bind.

Keys and windows are bound as one JSON text: their number is no limit, and no value is ever part of
a statement. In every statement `t` is the table and `h` holds the hashes of its row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from naviglio.adapters.mssql.carried import ORDERS, as_bytes, beside, read
from naviglio.adapters.mssql.ddl import Spelled
from naviglio.adapters.mssql.hashing import KEY, ROW, applied, mask, number, summed
from naviglio.adapters.mssql.sql import cast, literal, quote, table
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
from naviglio.model import BEYOND, KEY_HASH, ROW_HASH, Column, TableName, TableSchema, Window
from naviglio.ports import Scan

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of times that are written without a zone
_ABOVE_ALL = 2**63
_TICKS = 10_000_000  # of 100 ns, a second
_DAY_TICKS = 86_400 * _TICKS
_SPELLED = {"date": "date", "timestamp": "datetime2(7)", "timestamptz": "datetimeoffset(7)"}
_LAST = ((date(9999, 12, 31) - date(1970, 1, 1)).days + 1) * _DAY_TICKS - 1
_FIRST_DATETIME = (date(1753, 1, 1) - date(1970, 1, 1)).days * _DAY_TICKS


@dataclass
class Query:
    """One statement over a scan, and the texts that it binds, in order."""

    scan: Scan
    bound: list[str] = field(default_factory=list)

    def rows(self) -> str:
        """Return the statement that reads the scan in the forms in which values travel."""
        scan, schema = self.scan, self.scan.schema
        wanted = schema.columns if scan.rows else [schema.column(name) for name in schema.key]
        listed = [f"{read(column)} AS {quote(column.name)}" for column in wanted]
        if scan.rows:
            literals = beside(schema).values()
            listed += [f"{told} AS {quote(f'{BEYOND}_{n}')}" for n, told in enumerate(literals)]
        if scan.hashes in ("key", "both"):
            listed.append(f"{number(KEY)} AS {quote(KEY_HASH)}")
        if scan.hashes in ("row", "both"):
            listed.append(f"{number(ROW)} AS {quote(ROW_HASH)}")
        return f"SELECT {', '.join(listed)} {self._from()}"

    def count(self) -> str:
        """Return the statement that counts the scan's rows."""
        return f"SELECT COUNT_BIG(*) {self._from()}"

    def digest_buckets(self, by: Buckets) -> str:
        """Return the statement that counts and sums by the lowest bits of the key's hash."""
        index = f"{number(KEY)} & {literal(mask(by.bits))}"
        chosen = self._among(index, by.numbers) if by.numbers is not None else ""
        upper, lower = summed(KEY if self.scan.hashes == "key" else ROW)
        return (
            f"SELECT {index}, COUNT_BIG(*), {upper}, {lower} {self._from(chosen)} GROUP BY {index}"
        )

    def digest_windows(self, windows: Sequence[Window], event_time: str) -> str:
        """Return the statement that counts and sums by window of event time."""
        column = self.scan.schema.column(event_time)
        kind = _spelled(column)
        spans = [
            {"i": i, "low": _text(column, _ticks(w.start)), "high": _text(column, _ticks(w.end))}
            for i, w in enumerate(windows)
        ]
        self.bound.append(json.dumps(spans))
        upper, lower = summed(KEY if self.scan.hashes == "key" else ROW)
        name = f"t.{quote(event_time)}"
        joined = (
            f"JOIN OPENJSON(?) WITH ([i] int, [low] {kind}, [high] {kind}) AS w"
            f" ON {name} >= w.[low] AND {name} < w.[high]"
        )
        return (
            f"SELECT w.[i], COUNT_BIG(*), {upper}, {lower} {self._from(joined=joined)}"
            " GROUP BY w.[i]"
        )

    def bad_keys(self) -> str:
        """Return the statement that finds keys that are NULL or stand on several rows."""
        key = self.scan.schema.key
        texts = [f"COALESCE(CAST(t.{quote(name)} AS nvarchar(400)), N'NULL')" for name in key]
        shown = texts[0] if len(key) == 1 else f"N'(' + {' + N$,$ + '.join(texts)} + N')'"
        missing = " OR ".join(f"t.{quote(name)} IS NULL" for name in key)
        names = ", ".join(f"t.{quote(name)}" for name in key)
        return (
            f"SELECT TOP (5) {shown.replace('$', chr(39))} {self._from()}"
            f" GROUP BY {names} HAVING COUNT_BIG(*) > 1 OR {missing}"
        )

    def _from(self, also: str = "", joined: str = "") -> str:
        where = self._where(self.scan.where)
        chosen = f"({also}) AND ({where})" if also else where  # in the order of what is bound
        parts = [f"FROM {table(self.scan.table)} AS t", applied(self.scan.schema), joined]
        return f"{' '.join(part for part in parts if part)} WHERE {chosen}"

    def _where(self, condition: Condition) -> str:
        schema = self.scan.schema
        match condition:
            case Both():
                return f"({self._where(condition.one)}) AND ({self._where(condition.other)})"
            case Not():
                return f"CASE WHEN {self._where(condition.condition)} THEN 1 ELSE 0 END = 0"
            case IsNull():
                return f"t.{quote(condition.column)} IS NULL"
            case Since() | Within():
                return _span(condition, schema.column(condition.column))
            case Keys():
                return self._keys(condition.keys, schema)
            case _:
                return self._bucket(condition)

    def _bucket(self, condition: Everything | Buckets) -> str:
        if isinstance(condition, Everything) or condition.numbers is None:
            return "1 = 1"
        return self._among(f"{number(KEY)} & {literal(mask(condition.bits))}", condition.numbers)

    def _among(self, index: str, numbers: Sequence[int]) -> str:
        self.bound.append(json.dumps(list(numbers)))
        return f"{index} IN (SELECT CAST([value] AS bigint) FROM OPENJSON(?))"

    def _keys(self, keys: pa.Table, schema: TableSchema) -> str:
        """The column's own type finds the row by its index, the text then tells it exactly."""
        key = [schema.column(name) for name in schema.key]
        rows = zip(*(texts(keys[column.name], column) for column in key), strict=True)
        self.bound.append(json.dumps([list(row) for row in rows]))
        typed = ", ".join(f"[c{n}] nvarchar(max) '$[{n}]'" for n in range(len(key)))
        same = " AND ".join(_same(column, f"k.[c{n}]") for n, column in enumerate(key))
        return f"EXISTS (SELECT 1 FROM OPENJSON(?) WITH ({typed}) AS k WHERE {same})"


def highest(name: TableName, column: Column) -> str:
    """Return the statement that finds the highest integer; it passes over what others have locked.

    Uncommitted rows are locked: without them the highest committed one is found, or one below it.
    Where readers take row versions, the server passes over locks only if it is told to lock.
    """
    hints = "READCOMMITTEDLOCK, READPAST"
    return f"SELECT MAX(t.{quote(column.name)}) FROM {table(name)} AS t WITH ({hints})"


def texts(values: pa.ChunkedArray, column: Column) -> list[str | None]:
    """Return a key column's carriers as texts from which the server reads the very values."""
    held = values.to_pylist()
    if column.kind == "bytes":
        return [None if value is None else value.hex() for value in held]
    if column.kind in ("date", "timestamp"):
        return [None if value is None else value.isoformat() for value in held]
    if column.kind == "bool":
        return [None if value is None else str(int(value)) for value in held]
    return [None if value is None else str(value) for value in held]


def _same(column: Column, sent: str) -> str:
    name, kind = f"t.{quote(column.name)}", column.source_type
    if column.kind == "bytes":
        return f"{name} = CONVERT(varbinary(max), {sent}, 2)"
    if column.kind == "text":
        exact = f"CAST({sent} AS varbinary(max)) = {as_bytes(column)}"
        # The collation before the cast: it says into which code page.
        collated = f"{sent} COLLATE {column.collation}" if column.collation else sent
        return f"{name} = CAST({collated} AS {kind}) AND {exact}"
    if column.kind == "date":
        return f"{name} = CAST({sent} AS date)"
    if Spelled.of(kind).name in ("datetime", "smalldatetime"):
        return f"{name} = CAST(CAST({sent} AS datetime2(3)) AS {kind})"
    return f"{name} = CAST({sent} AS {kind})"


def _span(condition: Since | Within, column: Column) -> str:
    return span(
        condition, f"t.{quote(column.name)}",
        point=lambda at: _point(column, at), moment=lambda at: _moment(column, _ticks(at)),
    )  # fmt: skip


def _point(column: Column, point: int) -> str:
    """Return a point as a literal; both bounds round up, since columns hold 100 ns at least."""
    if column.kind in INTEGERS:  # what is above the highest bigint is none
        return literal(point) if point < _ABOVE_ALL else cast(str(point), "decimal(19, 0)")
    if ORDERS.get(column.source_type) == "version":
        return f"CAST(0x{max(point, 0):016x} AS binary(8))"
    return _moment(column, -(-point // 100))


def _moment(column: Column, ticks: int) -> str:
    """Return the first moment of the column's own type that is not before so many ticks.

    A literal of that type leaves the column as it is, so its index serves. A moment that the type
    can't hold is compared as the widest type can.
    """
    kind = Spelled.of(column.source_type)
    if kind.name == "datetime":
        # Of 300ths of a second; one that is no whole tick is the nearest tick to the server.
        seconds, thirds = divmod(-(-(ticks * 3 - 1) // 100_000), 300)
        if seconds * _TICKS >= _FIRST_DATETIME and (seconds + 1) * _TICKS <= _LAST:
            moment = _EPOCH + timedelta(seconds=seconds)
            return cast(f"{moment.isoformat()}.{(thirds * 10 + 1) // 3:03}", "datetime")
    elif kind.name in ("datetime2", "datetimeoffset"):
        unit = 10 ** (7 - (kind.first or 0))
        rounded = -(-ticks // unit) * unit
        if rounded <= _LAST:
            return cast(_text(column, rounded), column.source_type)
    return cast(_text(column, ticks), _spelled(column))


def _spelled(column: Column) -> str:
    if column.kind not in TIMES:
        raise no_span(column)
    return _SPELLED[column.kind]


def _text(column: Column, ticks: int) -> str:
    """Spell a moment, in 100 ns since 1970 UTC, for a column; a date is the first not before it."""
    if column.kind == "date":
        return (_EPOCH + timedelta(days=-(-ticks // _DAY_TICKS))).date().isoformat()
    seconds, rest = divmod(ticks, _TICKS)
    zone = "+00:00" if column.kind == "timestamptz" else ""
    return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()}.{rest:07}{zone}"


def _ticks(moment: datetime) -> int:
    since = moment.astimezone(UTC).replace(tzinfo=None) - _EPOCH
    return since // timedelta(microseconds=1) * 10
