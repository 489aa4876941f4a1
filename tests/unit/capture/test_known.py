"""What the landing holds, against what the source has."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from naviglio.capture.known import known_keys
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
