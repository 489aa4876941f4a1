"""Few large files in place of many small ones: a commit that moves rows and changes none."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deltalake import DeltaTable

from naviglio import points
from naviglio.errors import RetryableError
from naviglio.lake.apply import FILE_BYTES, WRITER, noted

_LOCK = "_naviglio.compaction.lock"  # Delta leaves names with `_` in front alone, vacuum too
_FEW = 8  # small files that may stay: each batch leaves one or two


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a compaction did to a lake table."""

    version: int  # of the Delta table, after it
    files_before: int
    files_after: int


def small_files(table: DeltaTable) -> int:
    """Return how many files of a table are less than half as large as they should be."""
    sizes = table.get_add_actions()["size_bytes"].to_pylist()
    return sum(size < FILE_BYTES // 2 for size in sizes)


def worth_compacting(table: DeltaTable) -> bool:
    """Tell whether a table has enough small files to be read faster without them."""
    return small_files(table) > _FEW


def compact(table: DeltaTable, merge_bytes: int) -> Compacted:
    """Rewrite the small files of a table, opened under `only_compaction`.

    Raises DeltaError when another writer took away a file that this one read.
    """
    before = len(table.file_uris())
    points.reach("compact: before commit")
    table.optimize.compact(
        target_size=FILE_BYTES,
        max_spill_size=merge_bytes,
        writer_properties=WRITER,
        commit_properties=noted({"kind": "compaction"}),
    )
    table.update_incremental()
    return Compacted(
        version=table.version(), files_before=before, files_after=len(table.file_uris())
    )


@contextmanager
def only_compaction(folder: str) -> Iterator[None]:
    """Hold the table's compaction lock; the system gives it back when the process dies.

    Two compactions of one version both commit in delta-rs, and double every row: a reader can't
    tell that one file's rows stand in the other. So compactions alone, unlike all other commits,
    need a lock, and a table must be opened within it. Raises RetryableError while another has it.
    """
    handle = os.open(Path(folder, _LOCK), os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RetryableError(
            f"lake table {folder} is being compacted by another process. Run again later."
        ) from None
    finally:
        os.close(handle)
