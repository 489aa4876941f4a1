"""Commands for Spark: its Delta connector."""

from __future__ import annotations

import os

import typer

from naviglio.cli import places
from naviglio.cli.answers import Answer, answering

app = typer.Typer(no_args_is_help=True, help="Prepare Spark, which computes the transforms.")


def jars() -> Answer:
    """Fetch Spark's Delta connector into `spark/jars` of the home, or NAVIGLIO_SPARK_JARS.

    Two files, checked against pinned checksums; a run that needs them does this by itself. From
    Maven Central, or a mirror that NAVIGLIO_MAVEN names. Afterwards Spark needs no network.

    Example: `naviglio spark jars`
    """
    from naviglio.transform.jars import fetch, folder_of

    found = [str(path) for path in fetch(folder_of(os.environ, places.home().root), os.environ)]
    return Answer(data={"jars": found}, show=lambda out: out.print("\n".join(found), markup=False))


app.command()(answering(jars))
