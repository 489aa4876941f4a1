"""The local engine: what a stream raises comes out of it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from naviglio.storage.engine import local_engine, streamed

OF = pa.schema([("n", pa.int64())])


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_ends_a_stream_is_raised_as_it_was(raised: type[BaseException]) -> None:
    """Also the end of the process, which a signal may ask for while the engine reads."""

    def rows() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"n": [1]}, schema=OF)
        raise raised("told")

    with (
        local_engine() as engine,
        pytest.raises(raised, match="told"),
        streamed(engine, "read", rows(), OF),
    ):
        engine.execute("CREATE TABLE fresh AS FROM read")
