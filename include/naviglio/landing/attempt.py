"""One try at a group's next number: files that carry its id, invisible without a manifest."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from naviglio.model import DataFile
from naviglio.ports import Store

FILE_BYTES = 256 * 2**20  # a file is closed, and the next begun, beyond this
_TELLING_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Writes the files of one attempt."""

    store: Store
    number: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    _noted: list[str] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """Where its files are, relative to the landing."""
        return f"data/{self.number:010d}-{self.id}"

    def note_intent(self) -> None:
        """Say who tries what: before the first file is written, and before the commit."""
        if self._noted:
            return
        intent = {"number": self.number, "attempt": self.id, "host": socket.gethostname(),
                  "pid": os.getpid(), "started_at_utc": datetime.now(UTC)}  # fmt: skip
        self.store.create(f"{self.folder}/intent.json", msgspec.json.encode(intent))
        self._noted.append(self.id)

    def abandon(self) -> None:
        """Throw its files away."""
        if self._noted:
            self.store.remove(self.folder)

    def write(
        self,
        name: str,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        bounded: Sequence[str] = (),
    ) -> tuple[DataFile, ...]:
        """Write batches of `schema` as Parquet files; none where there are no rows.

        The files tell the least and the greatest value of the columns `bounded`, and of no others.
        """
        stream = (batch for batch in batches if batch.num_rows)
        files: list[DataFile] = []
        for first in stream:
            self.note_intent()
            path = f"{self.folder}/{name}-{len(files):03d}.parquet"
            form = {"use_dictionary": _repeating(first), "write_statistics": [*bounded]}
            files.append(self._write_file(path, schema, chain([first], stream), form))
        return tuple(files)

    def _write_file(
        self,
        path: str,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch],
        form: dict[str, list[str]],
    ) -> DataFile:
        rows = 0
        with self.store.write(path) as raw:
            sink = _Hashing(raw)
            with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, **form) as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    rows += batch.num_rows
                    if sink.bytes > FILE_BYTES:
                        break
        return DataFile(path=path, rows=rows, bytes=sink.bytes, sha256=sink.sha256.hexdigest())


def _repeating(first: pa.RecordBatch) -> list[str]:
    """Return the columns for which a dictionary pays: a third of the writing went into the others.

    Too few rows don't tell; then it is all of them, and the writer gives a dictionary up that
    grows.
    """
    few, most = first.num_rows < _TELLING_ROWS, first.num_rows // 8
    columns = zip(first.schema.names, first.columns, strict=True)
    return [name for name, column in columns if few or pc.count_distinct(column).as_py() <= most]


class _Hashing:
    """A binary file that counts and hashes what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = 0
        self.sha256 = hashlib.sha256()
        self.closed = False

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True
