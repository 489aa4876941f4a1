"""DuckDB, a warehouse in one file: source and target."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the driver is imported when a connection is opened
    from naviglio.ports import Source, Target


def open_source(url: str) -> Source:
    """Open a file to read from."""
    from naviglio.adapters.duckdb.source import DuckSource

    return DuckSource(url)


def open_target(url: str) -> Target:
    """Open a file to write to."""
    from naviglio.adapters.duckdb.target import DuckTarget

    return DuckTarget(url)
