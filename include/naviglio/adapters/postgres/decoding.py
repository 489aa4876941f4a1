"""From how values travel to their carriers, and what those can't hold to `_beyond`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from naviglio.adapters.postgres.moments import (
    FIRST_DAY,
    FIRST_US,
    LAST_DAY,
    LAST_US,
    date_text,
    moment_text,
)
from naviglio.adapters.postgres.statements import (
    MOST_SCALED_DIGITS,
    NOT_A_NUMBER,
    hash_columns,
    read_columns,
)
from naviglio.carriers import arrow_schema, arrow_type, key_schema
from naviglio.errors import DataError
from naviglio.model import Column
from naviglio.ports import Scan

_SCALED = pa.decimal128(19, 0)  # what any int64 fits


@dataclass(frozen=True)
class _Held:
    """A column in its carrier, NULL where it can't hold the value, and the texts of those."""

    carried: pa.Array
    beyond: dict[int, str]  # by row


class Decoder:
    """Turns what a scan's statement delivers into the batches that the port promises."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._columns = read_columns(scan)
        carriers = arrow_schema(scan.schema) if scan.rows else key_schema(scan.schema)
        fields = [pa.field(name, pa.int64()) for name in hash_columns(scan)]
        self.schema = pa.schema([*carriers, *fields])

    def decode(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return one batch in carriers; DataError when a key holds what its carrier can't."""
        arrays, beyond = [], {}
        for column, travelled in zip(self._columns, batch.columns, strict=False):
            held = _held(column, travelled)
            arrays.append(held.carried)
            if held.beyond:
                self._refuse_in_key(column, held.beyond)
                beyond[column.name] = held.beyond
        if self._scan.rows:
            arrays.append(_collected(beyond, batch.num_rows))
        arrays += batch.columns[len(self._columns) :]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _refuse_in_key(self, column: Column, beyond: dict[int, str]) -> None:
        if column.name in self._scan.schema.key:
            found = sorted(set(beyond.values()))[:5]
            raise DataError(
                f"{self._scan.table}: key column {column.name!r} ({column.source_type}) holds "
                f"{found}, which its carrier {column.carrier} can't. Mend the rows or choose "
                "another key."
            )


def _held(column: Column, travelled: pa.Array) -> _Held:
    match column.kind:
        case "decimal" if (column.precision or 0) <= MOST_SCALED_DIGITS:
            return _scaled(column, travelled)
        case "decimal":
            return _apart(column, travelled, pc.equal(travelled, "NaN"), lambda _: "NaN")
        case "date":
            days = travelled.view(pa.int32())
            return _spanned(column, days, (FIRST_DAY, LAST_DAY), date_text)
        case "timestamp" | "timestamptz":
            zone = "+00" if column.kind == "timestamptz" else ""
            us = travelled.view(pa.int64())
            return _spanned(column, us, (FIRST_US, LAST_US), lambda at: moment_text(at, zone))
        case _:
            return _Held(travelled, {})


def _scaled(column: Column, integers: pa.Array) -> _Held:
    """The bytes of an integer as decimal128 are those of the decimal it was scaled from."""
    beyond: dict[int, str] = {}
    if pc.min(integers).as_py() == NOT_A_NUMBER:
        held = _apart(None, integers, pc.equal(integers, NOT_A_NUMBER), lambda _: "NaN")
        integers, beyond = held.carried, held.beyond
    wide = integers.cast(_SCALED)
    carrier = arrow_type(column.carrier)
    carried = pa.Array.from_buffers(carrier, len(wide), wide.buffers(), offset=wide.offset)
    return _Held(carried, beyond)


def _spanned(
    column: Column, integers: pa.Array, span: tuple[int, int], spell: Callable[[int], str]
) -> _Held:
    """Years 1 to 9999 are carried; ADBC wraps all else to integers outside of them."""
    least, most = pc.min_max(integers).as_py().values()
    if least is None or (least >= span[0] and most <= span[1]):
        return _Held(integers.view(arrow_type(column.carrier)), {})
    outside = pc.or_(pc.less(integers, span[0]), pc.greater(integers, span[1]))
    return _apart(column, integers, outside, spell)


def _apart(
    column: Column | None, travelled: pa.Array, outside: pa.Array, spell: Callable[..., str]
) -> _Held:
    """Set values NULL that stand `outside`, and spell them; `column` names the carrier, if any."""
    rows = pc.indices_nonzero(pc.fill_null(outside, fill_value=False)).to_pylist()
    beyond = {row: spell(travelled[row].as_py()) for row in rows}
    if rows:
        travelled = pc.if_else(outside, pa.scalar(None, travelled.type), travelled)
    if column is None:
        return _Held(travelled, beyond)
    carrier = arrow_type(column.carrier)
    integers = pa.types.is_integer(travelled.type)
    return _Held(travelled.view(carrier) if integers else travelled.cast(carrier), beyond)


def _collected(beyond: dict[str, dict[int, str]], rows: int) -> pa.Array:
    """Return the `_beyond` column: the texts of each row as JSON, NULL where there are none."""
    if not beyond:
        return pa.nulls(rows, pa.string())
    of_row: dict[int, dict[str, str]] = {}
    for name, texts in beyond.items():
        for row, text in texts.items():
            of_row.setdefault(row, {})[name] = text
    spelled = {row: _json(texts) for row, texts in of_row.items()}
    return pa.array([spelled.get(row) for row in range(rows)], pa.string())


def _json(texts: dict[str, str]) -> str:
    return json.dumps(texts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
