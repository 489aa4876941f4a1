"""Reading a table whole: the first capture, and the answer to all that changes can't express."""

from __future__ import annotations

from naviglio.capture.reading import Captured, Reading, need_one_moment, rows_of
from naviglio.capture.stream import living, readable, refuse_nulls
from naviglio.model import DataFile, HashState, TablePosition


def snapshot(reading: Reading, why: str) -> Captured:
    """Land all rows; what they don't hold is gone."""
    need_one_moment(reading.snapshot, reading.spec.source, f"reading it whole ({why})")
    refuse_nulls(reading)
    scan = reading.scan(where=readable(reading.spec), hashes=reading.hashes)
    rows = living(reading.spec, reading.snapshot.read(scan))
    files = reading.land("rows", rows, hashes=reading.hashes)
    found, before = rows_of(files), _known_before(reading)
    position = TablePosition(
        way=reading.way,
        stream=reading.bound if reading.spec.way == "stream" else None,
        hashes=_state(reading, files) if reading.hashes != "none" else None,
        rows=found,
    )
    part = reading.part(kind="snapshot", files=files, upserts=found, why=why)
    return Captured(
        position=position, part=part, deletes=max(0, before - found), of=max(before, found)
    )


def _known_before(reading: Reading) -> int:
    if reading.last is None:
        return 0
    told = sum(covered.rows for covered in reading.last.coverage)
    return reading.known(max(reading.last.rows, told))


def _state(reading: Reading, files: tuple[DataFile, ...]) -> HashState:
    return HashState(
        spec=reading.fingerprint,
        files=files,
        rows=rows_of(files),
        batch=reading.number,
        read_at_utc=reading.at_utc,
        keys_only=reading.hashes == "key",
    )
