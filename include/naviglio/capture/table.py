"""One table's capture: which way it takes this time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from naviglio.capture.diff import diff
from naviglio.capture.drift import Drift, drift, old_rows_gained, returned
from naviglio.capture.reading import Captured, Reading, refuse_torn
from naviglio.capture.stream import begin, refuse_nulls, stream
from naviglio.capture.sweep import due, sweep
from naviglio.capture.whole import snapshot
from naviglio.capture.windows import (
    changed_windows,
    gaps,
    read_windows,
    refuse_no_event_time,
    windows_from,
)
from naviglio.errors import DataError, RetryableError
from naviglio.model import HashState, Part, TablePosition, TableSchema, Window
from naviglio.ports import Scan, Snapshot

_SEVERAL = "\0"  # no column's name


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a run asks of its tables beyond going on where they are.

    `windows` are read again (partitions, backfills) and nothing else is done; `whole` gives the
    reason to read tables whole; `verify` reads windows again whose count or checksum changed.
    """

    windows: tuple[Window, ...] = ()
    whole: str = ""
    verify: bool = False


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is read of a table this time, and why.

    `windows` (those of event time, none where all are covered), `whole` (all rows), `hashes` (those
    of all rows, then what differs) or `stream` (from the position on).
    """

    way: Literal["windows", "whole", "hashes", "stream"]
    windows: tuple[Window, ...] = ()
    why: str = ""


def capture_table(
    reading: Reading, wish: Wish, changed: Drift, final: Sequence[Window]
) -> Captured:
    """Read one table; `changed` is its schema's drift, `final` the windows it should cover."""
    refuse_torn(reading.spec, reading.snapshot)
    refuse_bad_keys(reading.snapshot, reading.scan())
    wish = wish_after(changed, wish)
    captured = _captured(reading, wish, course_of(reading, wish, changed, final))
    if captured.part is None:
        return captured
    # A partition brings an added column to its own rows only: the drift stays to be dealt with.
    partial = captured.part.kind == "window" and wish.windows and reading.last
    known = (reading.last.schema if partial and reading.last else None) or reading.schema
    position = replace(
        captured.position, schema=known, removed=_removed(reading.last, known),
        source=str(reading.spec.source), marked=_marked(reading, captured.part),
    )  # fmt: skip
    return replace(captured, part=replace(captured.part, drift=changed.texts), position=position)


def _marked(reading: Reading, part: Part) -> str:
    """Return the column whose marks all landed rows have been looked at for."""
    declared, last = reading.spec.deletes.column or "", reading.last
    if part.kind == "window" and reading.spec.way == "stream" and last:
        return declared if last.marked == declared else _SEVERAL  # its own rows were, others not
    return declared


def _removed(last: TablePosition | None, now: TableSchema) -> tuple[str, ...]:
    """Return the columns that the source had once, and no longer has."""
    if last is None:
        return ()
    before = last.schema.names if last.schema else ()
    return tuple(sorted({*last.removed, *before} - {*now.names}))


def drift_of(reading: Reading) -> Drift:
    """Return how the table's schema differs from its last landed one."""
    last, source = reading.last, str(reading.spec.source)
    found = drift(last.schema, reading.schema) if last and last.schema else Drift()
    if last and last.source not in ("", source):
        other = f"the source table was {last.source}, is {source}"
        found = replace(found, other=(*found.other, other))
    kept = reading.kept() if found.added else None
    if last is None or kept is None:
        return found
    return replace(found, returned=returned(kept, reading.schema, found.added, last.removed))


def wish_after(changed: Drift, wish: Wish) -> Wish:
    """Return what is asked of a table after its drift: all of it where columns have returned."""
    if wish.whole or not changed.returned:
        return wish
    return Wish(whole=f"columns {', '.join(changed.returned)} were others before they were removed")


def course_of(reading: Reading, wish: Wish, changed: Drift, final: Sequence[Window]) -> Course:
    """Decide what is read of a table, for its capture and for a plan of it."""
    wish = wish_after(changed, wish)
    if wish.windows and not changed.other:
        return Course(way="windows", windows=wish.windows, why="asked for")
    if reading.spec.way == "windows" and not wish.whole and not changed.other:
        return _windows_due(reading, wish, changed, final)
    why = wish.whole or why_whole(reading, changed)
    if why or reading.last is None:
        return Course(way="whole", why=why)
    return Course(way="hashes" if reading.last.stream is None else "stream")


def _windows_due(reading: Reading, wish: Wish, changed: Drift, final: Sequence[Window]) -> Course:
    refuse_no_event_time(reading)
    missing = gaps(final, windows_from(reading).coverage)
    again = changed_windows(reading) if wish.verify or changed.added else []
    why = f"{len(missing)} not covered, {len(again)} changed"
    return Course(way="windows", windows=tuple(sorted((*missing, *again))), why=why)


def _captured(reading: Reading, wish: Wish, course: Course) -> Captured:
    if course.way == "windows":
        verified = wish.verify and not wish.windows
        if not course.windows:
            return Captured(position=windows_from(reading), compared=verified)
        return replace(read_windows(reading, course.windows), compared=verified)
    if course.way == "whole" or reading.last is None:
        return _whole(reading, course.why)
    return _changes(reading, reading.last)


def _whole(reading: Reading, why: str) -> Captured:
    if reading.spec.way != "stream":
        return snapshot(reading, why)
    if reading.bound is None:
        raise RetryableError(
            f"{reading.spec.source} can't be read whole ({why}) without a fence to go on. It is "
            f"held by {reading.fence.held_by}. Try again when it has ended."
        )
    if reading.snapshot.torn and reading.last is None:
        return begin(reading, reading.bound, why)
    return replace(snapshot(reading, why), compared=True)


def _changes(reading: Reading, last: TablePosition) -> Captured:
    if last.stream is None:
        captured = diff(reading, last, last.hashes) if last.hashes else Captured(position=last)
        return replace(captured, compared=True)
    since = last.stream
    if reading.hashes == "none":
        last = replace(last, hashes=None)  # a list that isn't kept up would miss keys later
    captured = stream(reading, last, since)
    if last.hashes and due(reading, last.hashes):
        return replace(sweep(reading, captured, last.hashes), compared=True)
    return captured


def why_whole(reading: Reading, changed: Drift) -> str:
    """Return why the table must be read whole, or an empty text."""
    last = reading.last
    if last is None or (last.stream is None and last.hashes is None):
        return "first capture"
    if last.way != reading.way:
        return f"the way was {last.way!r}, is {reading.way!r}"
    if changed.other:
        return f"accepted: {'; '.join(changed.other)}"
    if reading.hashes != "none" and not _comparable(reading, last.hashes):
        return "no hashes of these columns to compare with"
    if changed.added and old_rows_gained(reading, changed.added):
        return f"added columns {', '.join(changed.added)} hold values in rows that did not change"
    return ""


def _comparable(reading: Reading, state: HashState | None) -> bool:
    if state is None or state.keys_only != (reading.hashes == "key"):
        return False
    if state.keys_only:
        return state.spec.split(":")[0] == reading.hash_spec
    return state.spec == reading.fingerprint


def refuse_unseen(reading: Reading) -> None:
    """Raise DataError where rows would be in no stream or window that the table's way reads."""
    if reading.spec.way == "windows":
        refuse_no_event_time(reading)
    refuse_nulls(reading)


def refuse_bad_keys(snapshot: Snapshot, scan: Scan) -> None:
    """Raise DataError where the declared key does not tell rows apart.

    The table is read for it where no index vouches.
    """
    if scan.schema.key_is_unique:
        return
    if bad := snapshot.bad_keys(scan):
        raise DataError(
            f"{scan.table}: the key ({', '.join(scan.schema.key)}) is NULL or stands on more than "
            f"one row, e.g. {', '.join(bad)}. Mend the rows, or declare another `key`."
        )
