"""What Spark wrote is checked before it is committed."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naviglio.errors import DataError, StorageError
from naviglio.model import BEYOND
from naviglio.transform.output import check, files_in, logical

DAY = date(2013, 1, 1)


def _written(root: Path, **columns: list[Any]) -> pa.Schema:
    names = {**columns, BEYOND: pa.nulls(len(columns["day"]), pa.string())}
    (root / "made").mkdir(exist_ok=True)
    pq.write_table(pa.table(names), root / "made" / "part-0.parquet")
    (root / "made" / ".part-0.parquet.crc").write_bytes(b"x")
    return pa.table(names).schema


def _check(root: Path, told: int, **columns: list[Any]) -> None:
    arrow = _written(root, **columns)
    files, _ = files_in(str(root), "made")
    check("t", str(root), files, logical("t", arrow, ["day", "k"]), "day", told)


def test_files_are_described_and_nothing_else_stays(tmp_path: Path) -> None:
    """Rows, bytes and checksum of each file; Spark's own checksum files go."""
    _check(tmp_path, 2, day=[DAY, DAY], k=[1, 2])
    files, arrow = files_in(str(tmp_path), "made")
    assert arrow is not None
    assert [file.rows for file in files] == [2]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["part-0.parquet"]


def test_lost_rows_are_noticed(tmp_path: Path) -> None:
    """Spark counted more rows than its files hold."""
    with pytest.raises(StorageError, match="wrote 3 rows, its files hold 2"):
        _check(tmp_path, 3, day=[DAY, DAY], k=[1, 2])


def test_a_key_stands_on_one_row(tmp_path: Path) -> None:
    """The error names the key."""
    with pytest.raises(DataError, match="two rows have one key: day=2013-01-01, k=1"):
        _check(tmp_path, 2, day=[DAY, DAY], k=[1, 1])


def test_every_row_has_a_key_and_a_day(tmp_path: Path) -> None:
    """A row without a day could never be computed again."""
    with pytest.raises(DataError, match="no value in its key or its day"):
        _check(tmp_path, 2, day=[DAY, None], k=[1, 2])


def test_a_day_is_a_date(tmp_path: Path) -> None:
    """A text that looks like one is not."""
    with pytest.raises(DataError, match="Cast it in the program"):
        _check(tmp_path, 1, day=["2013-01-01"], k=[1])


def test_a_type_without_a_carrier_is_refused_by_name() -> None:
    """As is an output without its key."""
    arrow = pa.schema([("day", pa.date32()), ("k", pa.int8())])
    with pytest.raises(DataError, match="'k' is int8"):
        logical("t", arrow, ["k"])
    with pytest.raises(DataError, match=r"lacks key columns \['other'\]"):
        logical("t", arrow, ["other"])
