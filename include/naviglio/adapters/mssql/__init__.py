"""SQL Server: target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naviglio.errors import ConfigError

if TYPE_CHECKING:  # the driver is imported when a connection is opened
    from naviglio.ports import Source, Target


def open_source(url: str) -> Source:
    """Refuse to read: SQL Server is a target only."""
    del url
    raise ConfigError(
        "SQL Server is a target only: neither a `source` nor `naviglio reconcile` can read it. "
        "Name a PostgreSQL connection as `source`."
    )


def open_target(url: str) -> Target:
    """Open a database to write to."""
    from naviglio.adapters.mssql.target import MssqlTarget

    return MssqlTarget(url)
