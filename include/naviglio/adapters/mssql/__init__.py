"""SQL Server: target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naviglio.errors import ConfigError

IMPERSONATES = True  # a target may work as another principal than its login

if TYPE_CHECKING:  # the driver is imported when a connection is opened
    from naviglio.ports import Source, Target


def open_source(url: str) -> Source:
    """Refuse to read: SQL Server is a target only."""
    del url
    raise ConfigError(
        "SQL Server is a target only: neither a `source` nor `naviglio reconcile` can read it. "
        "Name a PostgreSQL connection as `source`."
    )


def open_target(url: str, run_as: str = "") -> Target:
    """Open a database to write to; `run_as` is the user that merges, the login's where empty."""
    from naviglio.adapters.mssql.target import MssqlTarget

    return MssqlTarget(url, run_as=run_as)
