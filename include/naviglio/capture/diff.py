"""Capture by *diff*: hashes computed in the database, compared by bucket, then by row."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

from naviglio.capture.known import bits_for, known_from
from naviglio.capture.reading import Captured, Reading, hash_schema, rows_of, with_op
from naviglio.capture.whole import snapshot
from naviglio.carriers import arrow_schema
from naviglio.model import DELETE, HashState, TablePosition
from naviglio.ports import Buckets, Keys

_MOST_BY_KEY = 0.1  # beyond this share of touched rows, reading all is cheaper than by key
_FEW = 20_000  # rows that are always read by key


def diff(reading: Reading, last: TablePosition, state: HashState) -> Captured:
    """Land the rows whose hash is not that of `state`, and the keys that are gone."""
    files = [reading.locate(file.path) for file in state.files]
    with known_from(files, reading.schema, keys_only=False) as known:
        bits = bits_for(state.rows)
        scan = reading.scan(rows=False, hashes="both")
        buckets = known.differing(bits, lambda: reading.snapshot.digest(scan, Buckets(bits=bits)))
        if not buckets:
            return Captured(position=last)
        numbers = buckets if len(buckets) < 2 ** (bits - 1) else None
        known.take(
            buckets, reading.snapshot.read(replace(scan, where=Buckets(bits=bits, numbers=numbers)))
        )
        gone, touched = known.gone(), known.touched()
        if touched.num_rows > max(_FEW, _MOST_BY_KEY * state.rows):
            whole = snapshot(reading, f"{touched.num_rows} of {state.rows} rows differ")
            return replace(whole, deletes=gone.num_rows, of=state.rows)
        wanted = arrow_schema(reading.schema, changes=True)
        rows = reading.snapshot.read(reading.scan(where=Keys(keys=touched)))
        upserts = (with_op(batch, wanted) for batch in rows)
        deletes = (with_op(batch, wanted, DELETE) for batch in gone.to_batches())
        changes = reading.land("changes", chain(upserts, deletes), changes=True)
        hashes = reading.sink.write(
            f"{reading.spec.name}-hashes",
            hash_schema(reading.schema, keys_only=False),
            known.successor(),
        )
    position = replace(
        last,
        rows=rows_of(hashes),
        hashes=HashState(
            spec=reading.fingerprint, files=hashes, rows=rows_of(hashes),
            batch=reading.number, read_at_utc=reading.at_utc,
        ),
    )  # fmt: skip
    part = reading.part(
        kind="stream",
        files=changes,
        upserts=rows_of(changes) - gone.num_rows,
        deletes=gone.num_rows,
    )
    return Captured(position=position, part=part, deletes=gone.num_rows, of=state.rows)
