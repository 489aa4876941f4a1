"""The command line: `naviglio ...`. Commands import what is heavy only when they run."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Annotated

import typer

from naviglio import __version__
from naviglio.cli import airflow, demo, look, server, spark, work
from naviglio.cli.answers import answering

EXIT_CODES = (
    "Exit codes: 0 fine, 1 reconcile found differences, 2 configuration, 3 source, 4 target, "
    "5 storage, 6 data, 7 a question waits, 8 identity, 75 try again, 130 interrupted."
)

app = typer.Typer(
    name="naviglio",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they print the values of variables, passwords among them
    rich_markup_mode="markdown",
    help=(
        "Carry changed rows from operational databases, through a data lake, into a SQL warehouse."
        "\n\nExample: `naviglio demo run`, then `naviglio status flights`"
    ),
    epilog=EXIT_CODES,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and end.")
    ] = False,
) -> None:
    del version


for command in (
    *(look.validate, look.plan, work.run, work.transform, look.status, look.history),
    *(work.reconcile, work.rebuild, work.resnapshot, work.maintain, look.accept),
    *(server.start, server.stop),
):
    app.command()(answering(command))
app.add_typer(demo.app, name="demo")
app.add_typer(airflow.app, name="airflow")
app.add_typer(spark.app, name="spark")


class _NoPandas(MetaPathFinder):
    """Nothing here uses pandas, but Arrow imports it at its first conversion where it is installed.

    That took as long as half of a run that finds nothing to do. Without it Arrow does the same.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("no command needs pandas", name="pandas")


def main() -> None:
    """Run the command that the process was started with."""
    sys.meta_path.insert(0, _NoPandas())
    app()
