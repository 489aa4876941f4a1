"""Commands for the embedded Airflow: start, stop, restart, status, password."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from naviglio.cli import places
from naviglio.cli.answers import Answer, answering

if TYPE_CHECKING:
    from naviglio.deployment.settings import Place

app = typer.Typer(no_args_is_help=True, help="Run an Airflow of this home on this machine.")
Port = Annotated[
    int | None,
    typer.Option("--port", help="Else NAVIGLIO_AIRFLOW_PORT, that of the last start, 8080."),
]


def start(port: Port = None) -> Answer:
    """Start Airflow over the embedded PostgreSQL and wait until it is healthy.

    Example: `naviglio airflow start`
    """
    from naviglio.deployment import airflow, settings

    place = _place(port)
    first = not (place.folder / "passwords.json").exists()
    report = airflow.start(place, lambda line: print(line, file=sys.stderr))  # noqa: T201  # progress
    word = settings.password(place) if first else "as `naviglio airflow password` shows it"
    said = f"Airflow runs at {report.url}. Log in as {settings.ADMIN}, password: {word}"
    return Answer(data=report, show=lambda out: out.print(said, markup=False, soft_wrap=True))


def stop() -> Answer:
    """Stop Airflow; its history stays.

    Example: `naviglio airflow stop`
    """
    from naviglio.deployment import airflow

    lived = airflow.stop(_place(None))
    said = "Airflow stopped." if lived else "Airflow was not running."
    return Answer(data={"was_running": lived}, show=lambda out: out.print(said))


def restart(port: Port = None) -> Answer:
    """Stop Airflow and start it again.

    Example: `naviglio airflow restart`
    """
    stop()
    return start(port)


def status(port: Port = None) -> Answer:
    """Tell which of Airflow's processes run.

    Example: `naviglio airflow status`
    """
    from naviglio.deployment import airflow

    report = airflow.status(_place(port))
    lines = [f"{n}: {f'process {p}' if p else 'not running'}" for n, p in report.processes.items()]
    return Answer(data=report, show=lambda out: out.print("\n".join(lines), markup=False))


def password() -> Answer:
    """Show the password of Airflow's `admin` again, to the owner of its file only.

    Example: `naviglio airflow password`
    """
    from naviglio.deployment import settings

    word = settings.password(_place(None))
    return Answer(data={"password": word}, show=lambda out: out.print(word, markup=False))


def _place(port: int | None) -> Place:
    from naviglio.deployment.settings import place_of

    return place_of(places.home(), port, os.environ)


for command in (start, stop, restart, status, password):
    app.command()(answering(command))
