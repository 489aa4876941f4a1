"""Capture by *where* as windows of event time: what a window no longer holds is gone from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from naviglio.capture.reading import Captured, Reading, need_one_moment, rows_of
from naviglio.capture.stream import living, readable
from naviglio.conditions import Both, IsNull, Within
from naviglio.errors import DataError
from naviglio.model import ROW_HASH, Coverage, DataFile, TablePosition, Window
from naviglio.partitions import joined


def windows_from(reading: Reading) -> TablePosition:
    """Return the position from which windows go on; those of another column count no more."""
    last = reading.last or TablePosition(way=reading.way)
    if reading.spec.way == "windows" and last.way != reading.way:
        return replace(last, way=reading.way, coverage=())
    return last


def read_windows(reading: Reading, windows: Sequence[Window]) -> Captured:
    """Land all rows of these windows; the stream's position stays as it is.

    A window that is not over yet lands, but is not covered: it is read again when it is final.
    """
    need_one_moment(reading.snapshot, reading.spec.source, "reading partitions again")
    last = windows_from(reading)
    kept = [c for c in last.coverage if not any(_overlap(c.window, w) for w in windows)]
    known = {c.window: c.rows for c in last.coverage}
    files: list[DataFile] = []
    coverage: list[Coverage] = []
    before, lost = 0, {window: 0 for window in windows}
    for number, window in enumerate(windows):
        landed, covered = _read_window(reading, window, f"window-{number:03d}")
        files.extend(landed)
        if _is_final(reading, window):
            coverage.append(covered)
        there = reading.known(known.get(window, 0), window)
        before += there
        lost[window] = max(0, there - rows_of(landed))
    part = reading.part(
        kind="window", files=tuple(files), upserts=rows_of(files), windows=joined(windows)
    )
    position = replace(last, coverage=tuple(sorted((*kept, *coverage), key=lambda c: c.window)))
    return Captured(
        position=position, part=part, deletes=sum(lost.values()), of=before,
        lost=tuple(window for window, rows in lost.items() if rows),
    )  # fmt: skip


def _is_final(reading: Reading, window: Window) -> bool:
    if reading.spec.name in reading.fence.numbers:  # what comes later, its stream brings
        return window.end <= reading.at_utc
    point = reading.fence.point
    return point is not None and int(window.end.timestamp()) * 1_000_000_000 <= point


def refuse_no_event_time(reading: Reading) -> None:
    """Raise DataError where rows without an event time would be in no window."""
    name = reading.spec.event_time
    if not reading.schema.column(name).nullable:
        return
    count = reading.snapshot.count(reading.scan(where=IsNull(column=name)))
    if count:
        raise DataError(
            f"{reading.spec.source}: {name!r} is NULL in {count} of its rows, so no window would "
            "ever hold them. Mend them, or capture the table another way (`where` or `diff`)."
        )


def changed_windows(reading: Reading) -> list[Window]:
    """Return the covered windows whose count or checksum is another now."""
    coverage = windows_from(reading).coverage
    if not coverage:
        return []
    scan = reading.scan(where=readable(reading.spec), hashes="both")
    digests = reading.snapshot.digest(scan, [c.window for c in coverage], reading.spec.event_time)
    now = {digest.index: (digest.rows, digest.checksum) for digest in digests}
    return [
        covered.window
        for index, covered in enumerate(coverage)
        if covered.spec != reading.fingerprint
        or now.get(index, (0, 0)) != (covered.rows, covered.checksum)
    ]


def gaps(windows: Iterable[Window], coverage: Sequence[Coverage]) -> list[Window]:
    """Return the windows that no coverage holds."""
    covered = {c.window for c in coverage}
    return [window for window in windows if window not in covered]


def _read_window(
    reading: Reading, window: Window, name: str
) -> tuple[tuple[DataFile, ...], Coverage]:
    inside = Within(column=reading.spec.event_time, window=window)
    where = Both(one=inside, other=readable(reading.spec))
    rows = _Summing(reading.snapshot.read(reading.scan(where=where, hashes="both")))
    files = reading.land(name, living(reading.spec, rows), hashes="both")
    covered = Coverage(
        window=window, batch=reading.number, read_at_utc=reading.at_utc,
        rows=rows.rows, checksum=rows.checksum, spec=reading.fingerprint,
    )  # fmt: skip
    return files, covered


def _overlap(one: Window, other: Window) -> bool:
    return one.start < other.end and other.start < one.end


class _Summing:
    """Rows on their way to a file: counted, the xor of their row hashes kept as the checksum."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.rows = 0
        self.checksum = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.rows += batch.num_rows
            hashes = batch.column(ROW_HASH).to_numpy(zero_copy_only=False)
            self.checksum ^= int(np.bitwise_xor.reduce(hashes))
            yield batch
