"""PostgreSQL: source, destination and the embedded server."""

from __future__ import annotations

from typing import TYPE_CHECKING

IMPERSONATES = True  # a target may work as another principal than its login

if TYPE_CHECKING:  # the drivers are imported when a connection is opened
    from naviglio.ports import Source, Target


def open_source(url: str) -> Source:
    """Open a database to read from."""
    from naviglio.adapters.postgres.source import PostgresSource

    return PostgresSource(url)


def open_target(url: str, run_as: str = "") -> Target:
    """Open a database to write to; `run_as` is the role that merges, the login where empty."""
    from naviglio.adapters.postgres.target import PostgresTarget

    return PostgresTarget(url, run_as=run_as)
