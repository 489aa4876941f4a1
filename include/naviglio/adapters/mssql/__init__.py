"""SQL Server: source and target."""

from __future__ import annotations

from typing import TYPE_CHECKING

IMPERSONATES = True  # a target may work as another principal than its login

if TYPE_CHECKING:  # the driver is imported when a connection is opened
    from naviglio.ports import Source, Target


def open_source(url: str) -> Source:
    """Open a database to read from."""
    from naviglio.adapters.mssql.source import MssqlSource

    return MssqlSource(url)


def open_target(url: str, run_as: str = "") -> Target:
    """Open a database to write to; `run_as` is the user that merges, the login's where empty."""
    from naviglio.adapters.mssql.target import MssqlTarget

    return MssqlTarget(url, run_as=run_as)
