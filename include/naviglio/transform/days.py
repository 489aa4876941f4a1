"""Which days of a transform's output its inputs' changes touch: found without Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from naviglio.errors import DataError
from naviglio.model import Window
from naviglio.partitions import joined, window_of
from naviglio.storage.engine import local_engine, quoted, streamed, view_files

_BATCH_ROWS = 16_384


def days_of(batches: Iterable[pa.RecordBatch], column: str, zone: ZoneInfo) -> set[date]:
    """Return the days in `zone` of a column of dates, or of times; those without one are none."""
    found: set[date] = set()
    for batch in batches:
        found.update(pc.unique(_local(batch.column(column), zone)).to_pylist())
    return found - {None}


def referring(
    files: Sequence[str],
    schema: pa.Schema,
    on: Sequence[tuple[str, str]],
    changed: Iterator[pa.RecordBatch],
    event_time: str,
) -> Iterator[pa.RecordBatch]:
    """Yield the event times of the rows in `files` that refer to a changed row.

    `on` pairs columns of the rows with columns of the changed ones.
    """
    first = next(changed, None)
    if first is None:
        return
    with local_engine() as engine:
        view_files(engine, "rows", files, schema)
        names = ", ".join(quoted(there) for _, there in on)
        with streamed(engine, "feed", chain((first,), changed), first.schema):
            engine.execute(f"CREATE TEMP TABLE changed AS SELECT DISTINCT {names} FROM feed")
        same = " AND ".join(
            f"rows.{quoted(here)} IS NOT DISTINCT FROM changed.{quoted(there)}"
            for here, there in on
        )
        query = f"SELECT DISTINCT {quoted(event_time)} FROM rows SEMI JOIN changed ON {same}"
        yield from engine.sql(query).to_arrow_reader(_BATCH_ROWS)


def times_from(
    files: Sequence[str], schema: pa.Schema, column: str, day: date | None
) -> Iterator[pa.RecordBatch]:
    """Yield the different event times of the rows in `files`, from the day before `day` on."""
    with local_engine() as engine:
        view_files(engine, "rows", files, schema)
        low = f"{quoted(column)} >= '{day - timedelta(days=1)}'" if day else "true"
        query = f"SELECT DISTINCT {quoted(column)} FROM rows WHERE {low}"
        yield from engine.sql(query).to_arrow_reader(_BATCH_ROWS)


def output_windows(days: Iterable[date]) -> tuple[Window, ...]:
    """Return the windows of a day column that hold these days: a day is [00:00, 24:00) UTC."""
    spans = [
        Window(
            start=datetime.combine(day, time(), UTC),
            end=datetime.combine(day + timedelta(days=1), time(), UTC),
        )
        for day in days
    ]
    return joined(spans)


def input_windows(days: Iterable[date], zone: ZoneInfo) -> tuple[Window, ...]:
    """Return the windows of event time that hold these days in `zone`."""
    return joined(window_of(day.isoformat(), zone) for day in days)


def _local(times: pa.Array, zone: ZoneInfo) -> pa.Array:
    kind = times.type
    if pa.types.is_date32(kind):
        return times
    if not pa.types.is_timestamp(kind):
        raise DataError(f"an event time is a date or a timestamp here, not {kind}.")
    instants = times if kind.tz else times.cast(pa.timestamp("us", tz="UTC"))
    return pc.local_timestamp(instants.cast(pa.timestamp("us", tz=zone.key))).cast(pa.date32())
