"""Capture by *diff*: hashes computed in the database, compared by bucket, then by row."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pyarrow as pa

from naviglio.capture.known import bits_for, known_rows
from naviglio.capture.reading import Captured, Reading, hash_schema, rows_of, with_op
from naviglio.capture.whole import snapshot
from naviglio.carriers import arrow_schema
from naviglio.conditions import Buckets, Keys
from naviglio.model import DELETE, KEY_HASH, ROW_HASH, DataFile, HashState, TablePosition

_MOST_CHANGED = 0.1  # beyond this share of rows reading all is cheaper than by key, and so is
# writing all hashes anew than finding the last of each key
_FEW = 20_000  # rows that never count as many
_MOST_FILES = 16  # of changes on top of the hash files


def diff(reading: Reading, last: TablePosition, state: HashState) -> Captured:
    """Land the rows whose hash is not that of `state`, and the keys that are gone."""
    files, later = _located(reading, state.files), _located(reading, state.later)
    with known_rows(files, later, reading.schema) as known:
        bits = bits_for(state.rows)
        scan = reading.scan(rows=False, hashes="row")
        buckets = known.differing(bits, lambda: reading.snapshot.digest(scan, Buckets(bits=bits)))
        if not buckets:
            return Captured(position=last)
        numbers = buckets if len(buckets) < 2 ** (bits - 1) else None
        known.take(
            numbers, reading.snapshot.read(replace(scan, where=Buckets(bits=bits, numbers=numbers)))
        )
        gone, touched, rows = known.gone(), known.touched(), state.rows + known.gained()
    if touched.num_rows > _many(state.rows):
        whole = snapshot(reading, f"{touched.num_rows} of {state.rows} rows differ")
        return replace(whole, deletes=gone.num_rows, of=state.rows)
    changes = _land(reading, touched, gone)
    position = replace(last, rows=rows, hashes=_successor(reading, state, changes, rows))
    part = reading.part(
        kind="stream",
        files=changes,
        upserts=rows_of(changes) - gone.num_rows,
        deletes=gone.num_rows,
    )
    return Captured(position=position, part=part, deletes=gone.num_rows, of=state.rows)


def _land(reading: Reading, touched: pa.Table, gone: pa.Table) -> tuple[DataFile, ...]:
    """Land the rows of touched keys with their hashes, and the deletes, which have none."""
    hashes = [pa.field(name, pa.int64()) for name in (KEY_HASH, ROW_HASH)]
    wanted = pa.schema([*arrow_schema(reading.schema, changes=True), *hashes])
    rows = reading.snapshot.read(reading.scan(where=Keys(keys=touched), hashes="both"))
    upserts = (with_op(batch, wanted) for batch in rows)
    deletes = (with_op(batch, wanted, DELETE) for batch in gone.to_batches())
    return reading.land("changes", chain(upserts, deletes), hashes="both", changes=True)


def _successor(
    reading: Reading, state: HashState, changes: tuple[DataFile, ...], rows: int
) -> HashState:
    """Return the state once the changes have landed: on top of its files, or written anew."""
    later = (*state.later, *changes)
    files = state.files
    if len(later) > _MOST_FILES or rows_of(later) > _many(rows):
        located = _located(reading, files), _located(reading, later)
        with known_rows(*located, reading.schema) as known:
            schema = hash_schema(reading.schema, keys_only=False)
            files = reading.sink.write(f"{reading.spec.name}-hashes", schema, known.rows())
        later = ()
    return HashState(
        spec=reading.fingerprint, files=files, later=later, rows=rows, batch=reading.number,
        read_at_utc=reading.at_utc,
    )  # fmt: skip


def _many(rows: int) -> float:
    return max(_FEW, _MOST_CHANGED * rows)


def _located(reading: Reading, files: tuple[DataFile, ...]) -> list[str]:
    return [reading.locate(file.path) for file in files]
