"""DuckDB, a warehouse in one file: target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naviglio.errors import ConfigError

if TYPE_CHECKING:  # the driver is imported when a connection is opened
    from naviglio.ports import Source, Target


def open_source(url: str) -> Source:
    """Refuse to read: DuckDB is a target only."""
    del url
    raise ConfigError(
        "DuckDB is a target only: neither a `source` nor `naviglio reconcile` can read it. "
        "Name a PostgreSQL connection as `source`."
    )


def open_target(url: str) -> Target:
    """Open a file to write to."""
    from naviglio.adapters.duckdb.target import DuckTarget

    return DuckTarget(url)
