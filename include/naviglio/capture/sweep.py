"""The sweep: keys that the landing holds and the source no longer has are deletes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa

from naviglio.capture.known import Known, bits_for, known_keys
from naviglio.capture.reading import Captured, Reading, hash_schema, rows_of, with_op
from naviglio.carriers import arrow_schema
from naviglio.conditions import Buckets
from naviglio.model import DELETE, HashState, Part

_MOST_BATCHES = 16  # landed since the last key list; beyond it the list is written anew


def due(reading: Reading, state: HashState) -> bool:
    """Whether the table's deletes are to be looked for, and now.

    A last time that is yet to come was told by a clock that was ahead: it holds nothing back.
    """
    if reading.spec.deletes.way != "sweep":
        return False
    age_s = (reading.at_utc - state.read_at_utc).total_seconds()
    return age_s >= reading.spec.deletes.every_s or age_s < 0


def sweep(reading: Reading, streamed: Captured, state: HashState) -> Captured:
    """Add to a stream's capture the keys of `state`, and landed since, that are gone."""
    since = reading.landed_since(state.batch)
    files = [reading.locate(file.path) for file in state.files] + since
    with known_keys(files, reading.schema) as known:
        gone = _gone(reading, known, state.rows)
        if not gone.num_rows and not _worn(reading, state, streamed, len(since)):
            return streamed
        part = _with_deletes(reading, streamed, gone)
        keys = reading.sink.write(
            f"{reading.spec.name}-keys",
            hash_schema(reading.schema, keys_only=True),
            known.remaining(),
        )
    # This batch's own rows come on top of the new list, so it is dated one batch back.
    position = replace(
        streamed.position,
        rows=rows_of(keys),
        hashes=HashState(
            spec=reading.fingerprint, files=keys, rows=rows_of(keys), batch=reading.number - 1,
            read_at_utc=reading.at_utc, keys_only=True,
        ),
    )  # fmt: skip
    return replace(
        streamed, position=position, part=part, deletes=gone.num_rows,
        of=rows_of(keys) + gone.num_rows,
    )  # fmt: skip


def _gone(reading: Reading, known: Known, rows: int) -> pa.Table:
    bits = bits_for(rows)
    scan = reading.scan(rows=False, hashes="key")
    buckets = known.differing(bits, lambda: reading.snapshot.digest(scan, Buckets(bits=bits)))
    where = Buckets(bits=bits, numbers=buckets)
    found: Iterable[pa.RecordBatch] = (
        reading.snapshot.read(replace(scan, where=where, hashes="none")) if buckets else ()
    )
    known.take(buckets, found)
    return known.gone()


def _worn(reading: Reading, state: HashState, streamed: Captured, files: int) -> bool:
    """Whether the key list should be written anew though nothing is gone."""
    if reading.spec.deletes.every_s:
        return True  # its date says when to sweep next
    return streamed.part is not None and files > _MOST_BATCHES


def _with_deletes(reading: Reading, streamed: Captured, gone: pa.Table) -> Part:
    schema = arrow_schema(reading.schema, changes=True)
    batches = (with_op(batch, schema, DELETE) for batch in gone.to_batches())
    files = reading.land("deletes", batches, changes=True)
    part = streamed.part or reading.part(kind="stream")
    return replace(part, files=(*part.files, *files), deletes=part.deletes + gone.num_rows)
