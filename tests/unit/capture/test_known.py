"""What the landing holds, against what the source has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naviglio.capture.known import known_keys, known_rows
from naviglio.errors import RetryableError
from naviglio.model import Column, TableSchema

SCHEMA = TableSchema(
    columns=(Column(name="id", kind="int64", carrier="int64", source_type="bigint"),), key=("id",)
)


def test_an_error_of_the_source_is_raised_as_it_was() -> None:
    """A server that goes away while keys are compared is still worth trying again."""

    def rows() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": pa.array([1])})
        raise RetryableError("gone")

    with (
        known_keys([], SCHEMA) as known,
        pytest.raises(RetryableError, match=r"\Agone\Z"),
    ):
        known.take(known.differing(4, list) or [1], rows())


FLOATS = TableSchema(
    columns=(Column(name="x", kind="float64", carrier="double", source_type="float8"),),
    key=("x",),
)


def hashed(path: Path, keys: list[float], hashes: list[int | None]) -> str:
    """Write a file of keys with one hash for key and row; a delete has none."""
    of = pa.array(hashes, pa.int64())
    pq.write_table(pa.table({"x": pa.array(keys), "_key_hash": of, "_row_hash": of}), path)
    return str(path)


def test_a_float_key_is_known_by_its_bytes(tmp_path: Path) -> None:
    """0.0 that became -0.0 is gone, and -0.0 is new, though the database calls them equal."""
    file = hashed(tmp_path / "known.parquet", [0.0, 1.5], [1, 2])
    fresh = pa.record_batch({"x": pa.array([-0.0, 1.5]), "_row_hash": pa.array([3, 2])})
    with known_rows([file], [], FLOATS) as known:
        known.take(known.differing(4, list), [fresh])
        assert str(known.gone().column("x").to_pylist()) == "[0.0]"
        assert str(known.touched().column("x").to_pylist()) == "[-0.0]"


def test_the_last_change_of_a_float_key_counts_by_its_bytes(tmp_path: Path) -> None:
    """The delete of 0.0 does not take -0.0 away."""
    file = hashed(tmp_path / "known.parquet", [0.0], [1])
    later = hashed(tmp_path / "later.parquet", [0.0, -0.0], [None, 3])
    with known_rows([file], [later], FLOATS) as known:
        found = pa.Table.from_batches(known.rows())
    assert str(found.column("x").to_pylist()) == "[-0.0]"
