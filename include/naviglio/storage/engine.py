"""The local engine: DuckDB over Parquet files and Arrow streams, spilling beyond its memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

MEMORY = "200MB"


@contextmanager
def local_engine(*, on_disk: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an engine of its own, UTC; what it spilled is gone when it closes.

    `on_disk` keeps tables in a temporary file, for more rows than fit in its memory.
    """
    with tempfile.TemporaryDirectory(prefix="naviglio-") as spill:
        where = str(Path(spill, "tables.duckdb")) if on_disk else ":memory:"
        settings = {"memory_limit": MEMORY, "temp_directory": spill, "threads": "2",
                    "preserve_insertion_order": "false"}  # fmt: skip
        with duckdb.connect(where, config={**settings}) as engine:
            engine.execute("SET TimeZone = 'UTC'")
            yield engine


def quoted(name: str) -> str:
    """Return an identifier as the engine's SQL spells it."""
    return '"' + name.replace('"', '""') + '"'
