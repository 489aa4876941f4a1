"""One try at a group's next number: files that carry its id, invisible without a manifest."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from naviglio.model import DataFile
from naviglio.ports import Store

FILE_BYTES = 256 * 2**20  # a file is closed, and the next begun, beyond this


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
        self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
    ) -> tuple[DataFile, ...]:
        """Write batches of `schema` as Parquet files; none where there are no rows."""
        stream = (batch for batch in batches if batch.num_rows)
        files: list[DataFile] = []
        for first in stream:
            self.note_intent()
            path = f"{self.folder}/{name}-{len(files):03d}.parquet"
            files.append(self._write_file(path, schema, chain([first], stream)))
        return tuple(files)

    def _write_file(
        self, path: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]
    ) -> DataFile:
        rows = 0
        with self.store.write(path) as raw:
            sink = _Hashing(raw)
            with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
                    rows += batch.num_rows
                    if sink.bytes > FILE_BYTES:
                        break
        return DataFile(path=path, rows=rows, bytes=sink.bytes, sha256=sink.sha256.hexdigest())


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
