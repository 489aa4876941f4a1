"""Capture by *where* as a stream: rows whose place in it is between position and fence.

Places are modification times, row versions, or integers that grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from naviglio.capture.guard import suspicious
from naviglio.capture.reading import Captured, Reading, rows_of, with_op
from naviglio.carriers import arrow_schema
from naviglio.conditions import Condition, Everything, IsNull, Not, Since
from naviglio.errors import DataError, SourceError
from naviglio.model import DELETE, KEY_HASH, OP, UPSERT, TablePosition, TableSpec

_CLOCK_STEP_NS = 5_000_000_000  # what start times may lag behind a fence; more is a clock set back


def stream(reading: Reading, last: TablePosition, since: int) -> Captured:
    """Land what was modified from `since` on and can't change below the fence any more."""
    if reading.spec.name not in reading.fence.numbers:
        _refuse_step_back(reading, since)
    bound, low = reading.bound, since_of(reading.spec, last)
    if bound is None or bound < since or bound == low:
        return Captured(position=last)
    if low is None:
        return again(reading, last, bound, "another column marks deletes, or none does any more")
    return _between(reading, last, since, bound)


def since_of(spec: TableSpec, last: TablePosition) -> int | None:
    """Return where a stream goes on; None where rows landed under other marks of deletion."""
    other = last.source and last.marked != (spec.deletes.column or "")
    return None if other else last.stream


def begin(reading: Reading, bound: int, why: str) -> Captured:
    """Land the first rows of a stream as changes, where no one moment of the source can be read.

    All rows below the fence that nobody changes meanwhile are there; the others come later.
    """
    return again(reading, TablePosition(way=reading.way), bound, why)


def again(reading: Reading, last: TablePosition, bound: int, why: str) -> Captured:
    """Land all rows below the fence as changes: what is absent stays as it is."""
    captured = _between(reading, last, None, bound)
    part = captured.part or reading.part(kind="stream")
    return replace(captured, part=replace(part, why=why))


def _between(reading: Reading, last: TablePosition, low: int | None, high: int) -> Captured:
    refuse_future(reading)
    where = Since(
        column=reading.spec.modified, low=low, high=high, or_null=reading.spec.nulls == "read"
    )
    refuse_nulls(reading)
    rows = changes(reading, reading.snapshot.read(reading.scan(where=where, hashes=reading.hashes)))
    counted = _Counting(rows)
    files = reading.land("changes", counted, hashes=reading.hashes, changes=True)
    position = replace(last, stream=high)
    if not files:
        return Captured(position=position)
    deletes = counted.deletes
    # A batch holds a key once: its upserts are that many rows, whatever was there before.
    rows_now = max(last.rows - deletes, rows_of(files) - deletes)
    position = replace(position, rows=rows_now)
    part = reading.part(
        kind="stream", files=files, upserts=rows_of(files) - deletes, deletes=deletes
    )
    known = 0
    if deletes and last.stream is not None:
        known = reading.known(last.rows) + (part.upserts if low is not None else 0)
    captured = Captured(position=position, part=part, deletes=deletes if known else 0, of=known)
    if not suspicious(captured, reading.spec.guard):
        return captured
    # Rows that came and were marked since the last batch, or marked twice, take none away.
    found = reading.deleted_by([reading.locate(file.path) for file in files])
    return captured if found is None else replace(captured, deletes=found)


def _refuse_step_back(reading: Reading, since: int) -> None:
    """Raise SourceError where the source's clock is behind the position.

    Row versions only grow along one history of the source, which its place tells; integers may fall
    when rows are deleted.
    """
    fence = reading.fence
    latest = fence.point if fence.latest is None else fence.latest
    if latest is not None and since - latest > _CLOCK_STEP_NS:
        raise SourceError(
            f"{reading.spec.source}: the fence is {(since - latest) / 1e9:.0f} s behind position: "
            "the source's clock stepped back, or the margin or lag was raised. Rows written "
            "meanwhile may lie below the position: run `naviglio resnapshot` for the table."
        )


def refuse_future(reading: Reading) -> None:
    """Raise DataError where rows have a modification time that no fence will reach for long."""
    if reading.spec.name in reading.fence.numbers:
        return
    limit = int((reading.at_utc + timedelta(days=1)).timestamp()) * 1_000_000_000
    where = Since(column=reading.spec.modified, low=limit, high=None)
    count = reading.snapshot.count(reading.scan(where=where))
    if count:
        raise DataError(
            f"{reading.spec.source}: {reading.spec.modified!r} is more than a day ahead in {count} "
            "of its rows, so no stream would see them change until then. Mend them."
        )


def readable(spec: TableSpec) -> Condition:
    """Return the condition of all rows that the table's policy for NULLs lets in."""
    if spec.modified and spec.nulls == "ignore":
        return Not(condition=IsNull(column=spec.modified))
    return Everything()


def refuse_nulls(reading: Reading) -> None:
    """Raise DataError where rows without a modification time would never be seen."""
    spec = reading.spec
    if not spec.modified or spec.nulls != "refuse":
        return
    if not reading.schema.column(spec.modified).nullable:
        return
    count = reading.snapshot.count(reading.scan(where=IsNull(column=spec.modified)))
    if count:
        raise DataError(
            f"{spec.source}: {spec.modified!r} is NULL in {count} of its rows, so no stream would "
            "ever see them change. Mend them, or set `nulls: read` (read them at each capture) or "
            "`nulls: ignore` (leave them out)."
        )


def living(spec: TableSpec, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Leave out rows that the table's `deletes: column` marks as deleted."""
    for batch in batches:
        marked = _marked(spec, batch)
        yield batch if marked is None else batch.filter(pc.invert(marked))


def changes(reading: Reading, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Turn rows into changes: deletes where the table's `deletes: column` marks them."""
    schema = arrow_schema(reading.schema, changes=True)
    for batch in batches:
        wanted = schema
        if KEY_HASH in batch.schema.names:
            wanted = schema.append(pa.field(KEY_HASH, pa.int64()))
        marked = _marked(reading.spec, batch)
        if marked is None:
            yield with_op(batch, wanted)
            continue
        operations = pc.if_else(marked, pa.scalar(DELETE), pa.scalar(UPSERT))
        place = wanted.get_field_index(OP)
        yield with_op(batch, wanted).set_column(place, wanted.field(place), operations)


def _marked(spec: TableSpec, batch: pa.RecordBatch) -> pa.Array | None:
    name = spec.deletes.column
    if name is None:
        return None
    column = batch.column(name)
    flags = column if pa.types.is_boolean(column.type) else column.is_valid()
    return pc.fill_null(flags, False)  # noqa: FBT003 - Arrow's own signature


class _Counting:
    """Batches of changes on their way to a file, their deletes counted."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.deletes = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.deletes += pc.sum(pc.equal(batch.column(OP), DELETE)).as_py() or 0
            yield batch
