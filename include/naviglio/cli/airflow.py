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
    from naviglio.deployment import airflow, settings, users

    place = _place(port)
    first = not (place.folder / "passwords.json").exists()
    report = airflow.start(place, lambda line: print(line, file=sys.stderr))  # noqa: T201  # progress
    word = users.password(place) if first else "as `naviglio airflow password` shows it"
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
    """Tell which of Airflow's processes run; exits with 1 unless all do.

    Example: `naviglio airflow status`
    """
    from naviglio.deployment import airflow

    report = airflow.status(_place(port))
    lines = [f"{n}: {f'process {p}' if p else 'not running'}" for n, p in report.processes.items()]
    return Answer(
        data=report, show=lambda out: out.print("\n".join(lines), markup=False),
        exit_code=0 if report.running else 1,
    )  # fmt: skip


def password(name: Annotated[str, typer.Argument(help="Of this user.")] = "admin") -> Answer:
    """Show the password of Airflow's `admin`, or of another user, again; to the owner of its file.

    Example: `naviglio airflow password`
    """
    from naviglio.deployment import users

    word = users.password(_place(None), name)
    return Answer(data={"password": word}, show=lambda out: out.print(word, markup=False))


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="How somebody logs in.")],
    role: Annotated[str, typer.Option(help="viewer, user, op or admin.")] = "viewer",
) -> Answer:
    """Let somebody log in to this Airflow, or give a user another role; show the password.

    A `viewer` sees all, a `user` also triggers runs and answers questions, an `op` also manages
    connections. It holds from the next `naviglio airflow start`, which starts the api-server anew.

    Example: `naviglio airflow user add ann --role viewer`
    """
    from naviglio.deployment import users

    word = users.add(_place(None), name, role)
    said = f"{name} is {role}, password: {word}\nRun `naviglio airflow start` to make it so."
    return Answer(
        data={"name": name, "role": role, "password": word},
        show=lambda out: out.print(said, markup=False, soft_wrap=True),
    )


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="How somebody logged in.")],
) -> Answer:
    """Let a user log in no more; holds from the next `naviglio airflow start`.

    Example: `naviglio airflow user remove ann`
    """
    from naviglio.deployment import users

    users.remove(_place(None), name)
    said = f"{name} is removed. Run `naviglio airflow start` to make it so."
    return Answer(data={"name": name}, show=lambda out: out.print(said, markup=False))


def list_users() -> Answer:
    """List who may log in to this Airflow.

    Example: `naviglio airflow user list`
    """
    from naviglio.cli.show import listing
    from naviglio.deployment import users

    rows = [{"name": name, "role": role} for name, role in users.roles(_place(None)).items()]
    return Answer(data={"users": rows}, show=lambda out: out.print(listing(rows)))


def execute(
    arguments: Annotated[list[str], typer.Argument(metavar="COMMAND", help="Airflow's own.")],
) -> Answer:
    """Run a command of Airflow itself in the environment of this home's Airflow.

    Example: `naviglio airflow exec dags list`
    """
    from naviglio.deployment import airflow

    command, environ = airflow.command_of(_place(None))
    os.execve(command, [command, *arguments], environ)  # noqa: S606 - no shell is wanted


def _place(port: int | None) -> Place:
    from naviglio.deployment.settings import place_of

    return place_of(places.home(), port, os.environ)


for command in (start, stop, restart, status, password):
    app.command()(answering(command))
app.command("exec", context_settings={"ignore_unknown_options": True})(answering(execute))
user = typer.Typer(no_args_is_help=True, help="Say who may log in to this Airflow.")
user.command("add")(answering(add))
user.command("remove")(answering(remove))
user.command("list")(answering(list_users))
app.add_typer(user, name="user")
