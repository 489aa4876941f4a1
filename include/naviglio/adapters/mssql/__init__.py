"""SQL Server: source and target."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the driver is imported when a connection is opened
    from naviglio.ports import Target


def open_target(url: str) -> Target:
    """Open a database to write to."""
    from naviglio.adapters.mssql.target import MssqlTarget

    return MssqlTarget(url)
