"""Commands for the embedded database server: start, stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naviglio.cli import places
from naviglio.cli.answers import Answer

if TYPE_CHECKING:
    from rich.console import Console

    from naviglio.flows.embedded import ServerReport


def start() -> Answer:
    """Start the embedded PostgreSQL and write down its connections.

    It is made at the first start, below NAVIGLIO_HOME, for this account only; it goes on after the
    command ends. Connections of these names that point elsewhere are left alone.

    Example: `naviglio start`
    """
    from naviglio.flows.embedded import start as start_server

    home = places.home()
    report = start_server(home)
    return Answer(data=report, show=lambda out: _show_started(out, report, str(home.connections)))


def stop() -> Answer:
    """Stop the embedded PostgreSQL; its data stays.

    Example: `naviglio stop`
    """
    from naviglio.flows.embedded import stop as stop_server

    report = stop_server(places.home())
    said = "stopped" if report.was_running else "was not running"
    return Answer(data=report, show=lambda out: out.print(f"PostgreSQL {said}."))


def _show_started(out: Console, report: ServerReport, file: str) -> None:
    from naviglio.cli.show import listing

    said = "is already running" if report.was_running else "runs"
    out.print(f"PostgreSQL {said} in {report.folder}.", markup=False)
    out.print(f"Its connections, with their passwords, are in {file}:", markup=False)
    out.print(
        listing([{"connection": c, "address": url} for c, url in report.connections.items()])
        if report.connections
        else "none"
    )
    for conn_id in report.kept:
        out.print(f"{conn_id} points elsewhere there and was left alone.", markup=False)
