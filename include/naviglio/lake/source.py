"""The files of one part of a batch, as a stream of record batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from naviglio.carriers import arrow_schema
from naviglio.errors import DataError, StorageError
from naviglio.model import Column, DataFile, Part

_BATCH_ROWS = 16_384
_MEND = "Restore the landing's folder from a copy, or run `naviglio resnapshot` for the table."


def read_files(files: Iterable[str], schema: pa.Schema) -> pa.RecordBatchReader:
    """Stream Parquet files in the columns of `schema`; those that a file lacks are NULL."""
    batches = (batch for file in files for batch in _batches(file, schema))
    return pa.RecordBatchReader.from_batches(schema, batches)


def is_whole(part: Part, root: str) -> bool:
    """Tell whether all files of a part are what the manifest says."""
    try:
        Source(part, root).check()
    except StorageError:
        return False
    return True


@dataclass(frozen=True)
class Source:
    """A part's files below the root of its landing."""

    part: Part
    root: str

    @property
    def rows(self) -> int:
        """How many rows the manifest promises."""
        return sum(file.rows for file in self.part.files)

    @property
    def arrow(self) -> pa.Schema:
        """The carriers, `_beyond` and, in stream parts, `_op`."""
        return arrow_schema(self.part.schema, changes=self.part.kind == "stream")

    @property
    def files(self) -> list[str]:
        """The paths of its files."""
        return [str(self._path(file)) for file in self.part.files]

    def check(self) -> None:
        """Name the first file that isn't what the manifest says.

        Raises StorageError (missing, cut, of other bytes or rows) or DataError (of other types).
        """
        for file in self.part.files:
            found, types = self._found(file)
            if found != (file.bytes, file.rows):
                raise StorageError(
                    f"landing file {self._path(file)} holds {found[0]} bytes and {found[1]} rows; "
                    f"its manifest says {file.bytes} bytes and {file.rows} rows. {_MEND}"
                )
            if self._digest(file) != file.sha256:
                raise StorageError(
                    f"landing file {self._path(file)} is not the one that landed: its SHA-256 is "
                    f"another than its manifest's. {_MEND}"
                )
            other = [
                f.name
                for f in self.arrow
                if f.name not in types.names or types.field(f.name).type != f.type
            ]
            if other:
                raise DataError(
                    f"landing file {self._path(file)} lacks columns {other}, or holds them in "
                    f"other types than its manifest says. {_MEND}"
                )

    def reader(self) -> pa.RecordBatchReader:
        """Stream the rows."""
        return read_files(self.files, self.arrow)

    def bounds(self, column: Column) -> tuple[object, object] | None:
        """Return the least and the greatest value of a column by the files' statistics."""
        found = []
        for file in self.part.files:
            meta = pq.read_metadata(self._path(file))
            place = meta.schema.names.index(column.name)
            for group in range(meta.num_row_groups):
                statistics = meta.row_group(group).column(place).statistics
                if statistics is None or not statistics.has_min_max:
                    return None
                found += [statistics.min, statistics.max]
        return (min(found), max(found)) if found else None

    def _found(self, file: DataFile) -> tuple[tuple[int, int], pa.Schema]:
        path = self._path(file)
        try:
            meta = pq.read_metadata(path)
            return (path.stat().st_size, meta.num_rows), meta.schema.to_arrow_schema()
        except (OSError, pa.ArrowException) as error:
            raise StorageError(
                f"landing file {path} can't be read ({type(error).__name__}); its manifest says "
                f"{file.bytes} bytes and {file.rows} rows. {_MEND}"
            ) from error

    def _digest(self, file: DataFile) -> str:
        path = self._path(file)
        try:
            found = path.stat()
            return _sha256(path, found.st_size, found.st_mtime_ns)
        except OSError as error:
            raise StorageError(
                f"landing file {path} can't be read ({type(error).__name__}). {_MEND}"
            ) from error

    def _path(self, file: DataFile) -> Path:
        return Path(self.root) / file.path


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Return a file's digest, read once for those who ask twice before it changes."""
    del size, mtime_ns
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _batches(file: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file, memory_map=False, buffer_size=1 << 20) as parquet:
        have = [name for name in schema.names if name in parquet.schema_arrow.names]
        # One row group at a time: asked for all, pyarrow decodes ahead of a slow reader.
        for group in range(parquet.num_row_groups):
            for batch in parquet.iter_batches(
                _BATCH_ROWS, row_groups=[group], columns=have, use_threads=False
            ):
                yield pa.record_batch(
                    [
                        batch[f.name].cast(f.type) if f.name in have
                        else pa.nulls(batch.num_rows, f.type)
                        for f in schema
                    ],
                    schema,
                )  # fmt: skip
