"""Which days a change touches."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naviglio.errors import DataError
from naviglio.transform.days import days_of, input_windows, output_windows, referring

NEW_YORK = ZoneInfo("America/New_York")


def _times(*hours: datetime | None) -> Iterator[pa.RecordBatch]:
    yield pa.record_batch({"at": pa.array(hours, pa.timestamp("us", tz="UTC"))})


def test_a_day_is_the_zones() -> None:
    """Four in the morning UTC is still the day before in New York; no time is no day."""
    found = days_of(_times(datetime(2013, 1, 2, 4, tzinfo=UTC), None), "at", NEW_YORK)
    assert found == {date(2013, 1, 1)}


def test_times_without_a_zone_count_as_utc() -> None:
    """As they do in the lake's windows."""
    batch = pa.record_batch({"at": pa.array([datetime(2013, 1, 2, 4)], pa.timestamp("us"))})  # noqa: DTZ001 - that's the case
    assert days_of([batch], "at", NEW_YORK) == {date(2013, 1, 1)}


def test_a_column_of_no_time_is_refused() -> None:
    """A number has no day."""
    with pytest.raises(DataError, match="date or a timestamp"):
        days_of([pa.record_batch({"at": [1]})], "at", NEW_YORK)


def test_windows_that_touch_are_one() -> None:
    """Two days in a row are one span; a gap keeps spans apart; a short day has 23 hours."""
    days = [date(2013, 3, 11), date(2013, 3, 10), date(2013, 3, 13)]
    inputs = input_windows(days, NEW_YORK)
    assert [(w.end - w.start).total_seconds() / 3600 for w in inputs] == [47, 24]
    outputs = output_windows(days)
    assert [(w.start.day, w.end.day) for w in outputs] == [(10, 12), (13, 14)]
    assert output_windows([]) == ()


def test_rows_that_refer_to_a_changed_row_are_found(tmp_path: Path) -> None:
    """By all pairs of columns; other rows and an empty feed touch nothing."""
    at = [datetime(2013, 1, day, 12, tzinfo=UTC) for day in (1, 2, 3)]
    rows = pa.table({"tail": ["a", "b", None], "at": pa.array(at, pa.timestamp("us", tz="UTC"))})
    pq.write_table(rows, tmp_path / "rows.parquet")

    def touched(*changed: str) -> set[date]:
        feed = iter([pa.record_batch({"tailnum": list(changed)})] if changed else [])
        files = [str(tmp_path / "rows.parquet")]
        times = referring(files, rows.schema, [("tail", "tailnum")], feed, "at")
        return days_of(times, "at", ZoneInfo("UTC"))

    assert touched("b", "x") == {date(2013, 1, 2)}
    assert touched() == set()
