"""Commands that look, and the one that answers: validate, plan, status, history, accept."""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from naviglio.cli import places, views
from naviglio.cli.answers import Answer, error_data
from naviglio.cli.loads import load_plan
from naviglio.cli.options import (
    First,
    Last,
    Partition,
    PipelineName,
    SomePipeline,
    TableName,
    Tables,
    wishes_of,
)
from naviglio.errors import ConfigError, NaviglioError
from naviglio.model import Pipeline

if TYPE_CHECKING:
    from naviglio.flows.status import PipelineStatus
    from naviglio.flows.validate import TableCheck
    from naviglio.model import Question

_MOST = 1_000_000  # entries of a history


def validate(
    pipeline: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PIPELINE|FILE]...", help="Names or files; all without one."),
    ] = None,
    connect: Annotated[
        bool, typer.Option("--connect", help="Ask source and target as well.")
    ] = False,
) -> Answer:
    """Check pipelines: their files, and with `--connect` what source and target say of them.

    Without `--connect` no database is touched. With it every source table is described (a type
    that can't be carried is refused by name), keys and fence are read, targets are checked.

    Example: `naviglio validate include/pipelines/flights.yaml --connect`
    """
    pipelines, errors = _read(pipeline or [])
    checks: list[tuple[Pipeline, list[TableCheck]]] = []
    for one in pipelines:
        try:
            checks.append((one, _checks(one, connect)))
        except NaviglioError as error:
            named = str(error).startswith("pipeline ")
            errors.append(error if named else type(error)(f"pipeline {one.name!r}: {error}"))
    codes = [check.exit_code for _, found in checks for check in found]
    unknown: list[str] = []
    if not connect:
        try:
            unknown = places.unknown_connections(one for one, _ in checks)
        except NaviglioError as error:  # a file of connections that is unfit
            errors.append(error)
    return Answer(
        data={
            "pipelines": [{"pipeline": one.name, "tables": found} for one, found in checks],
            "errors": [error_data(error)["error"] for error in errors],
            "unknown_connections": unknown,
        },
        show=lambda out: views.show_checks(out, checks, None if connect else unknown, bool(errors)),
        errors=errors,
        exit_code=next((code for code in codes if code), 0) if not errors else 0,
    )


def plan(
    pipeline: PipelineName,
    table: Tables = None,
    partition: Partition = None,
    first: First = None,
    last: Last = None,
    load: Annotated[
        bool, typer.Option("--load", help="How targets would be loaded from the lake as it is.")
    ] = False,
) -> Answer:
    """Tell what a run would do; nothing is changed anywhere.

    With `--load`, by which way each target would be loaded now, and the figures that choose it.

    Example: `naviglio plan flights --partition 2013-01-05`
    """
    if load:
        if partition or first or last:
            raise ConfigError("`--load` is about the lake as it is. Leave out the partitions.")
        return load_plan(pipeline, table or ())
    from naviglio.capture.table import Wish
    from naviglio.flows.plan import plan as plan_group
    from naviglio.flows.plan import plan_transform

    declared = places.pipeline_named(pipeline)
    wishes = wishes_of(declared, partition, first, last, verify=False)
    wish = Wish(windows=tuple(window for wish in wishes.values() for window in wish.windows))
    tables = table or ()
    groups, transforms = places.parted(declared, tables)
    with places.site_of(declared) as site:
        plans = [found for group in groups for found in plan_group(site, group, wish)]
        plans += [plan_transform(site, one) for one in transforms]
    return Answer(
        data={"pipeline": declared.name, "tables": plans},
        show=lambda out: views.show_plans(out, plans, places.beside(groups, tables)),
    )


def status(pipeline: SomePipeline = None) -> Answer:
    """Tell how far every table is, what holds it, and what waits for a person.

    A source or target that is away leaves its columns empty. A table without changes keeps its
    position: `naviglio plan` counts the rows that wait.

    Example: `naviglio status flights`
    """
    from naviglio.flows.status import status as status_of

    named = [places.pipeline_named(pipeline)] if pipeline else places.all_pipelines()
    found: list[PipelineStatus] = []
    for one in named:
        with places.site_of(one) as site:
            found.append(status_of(site))
    return Answer(data={"pipelines": found}, show=lambda out: views.show_status(out, found))


def history(
    pipeline: PipelineName,
    table: TableName,
    limit: Annotated[
        int, typer.Option(min=1, max=_MOST, help="How many of the newest to show.")
    ] = 20,
) -> Answer:
    """List a table's batches and the versions of its lake table, newest first.

    Example: `naviglio history flights weather --limit 5`
    """
    from naviglio.flows.history import history as history_of

    declared = places.pipeline_named(pipeline)
    group, spec = places.table_of(declared, table)
    with places.site_of(declared) as site:
        found = history_of(site, group, spec, limit)
    return Answer(data=found, show=lambda out: views.show_history(out, found))


def accept(
    pipeline: PipelineName,
    table: Tables = None,
    only_list: Annotated[
        bool, typer.Option("--list", help="Only list the open questions.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")] = False,
) -> Answer:
    """Answer what only a person can decide: a mass delete, a drifted schema, another landing.

    An accepted question lets exactly what it found land with the next run; anything more asks
    again. To refuse, mend the source: the question goes by itself.

    Example: `naviglio accept flights --list`
    """
    from naviglio.flows.accept import accept as answer
    from naviglio.flows.accept import open_questions

    declared = places.pipeline_named(pipeline)
    for name in table or ():
        places.table_of(declared, name)
    if not table and not only_list:
        raise ConfigError("which questions? Name their table by `--table`, or look by `--list`.")
    with places.site_of(declared) as site:
        found = [
            (group, question)
            for group in declared.landings
            for question in open_questions(site, group)
            if not table or question.table in table
        ]
        questions = [question for _, question in found]
        accepted = bool(found) and not only_list and (yes or _confirmed(questions))
        for group, question in found if accepted else ():
            answer(site, group, [question], by=_account())
    return Answer(
        data={"pipeline": declared.name, "questions": questions, "accepted": accepted},
        show=lambda out: views.show_questions(out, declared.name, questions, accepted),
    )


def _read(names: list[str]) -> tuple[list[Pipeline], list[NaviglioError]]:
    from naviglio.config.pipeline import read_folder

    if not names:
        folder = read_folder(places.home().pipelines)
        return list(folder.pipelines.values()), list(dict.fromkeys(folder.errors.values()))
    pipelines: list[Pipeline] = []
    errors: list[NaviglioError] = []
    for name in names:
        try:
            pipelines.append(places.pipeline_named(name))
        except ConfigError as error:
            errors.append(error)
    return pipelines, errors


def _checks(pipeline: Pipeline, connect: bool) -> list[TableCheck]:
    from naviglio.connections.run_as import RunAs
    from naviglio.flows.validate import declared
    from naviglio.flows.validate import validate as check

    RunAs(places.home().run_as, places.home().run_as_file).check(pipeline)
    if not connect:
        return declared(pipeline)
    with places.site_of(pipeline) as site:
        return check(site)


def _account() -> str:
    """Return the name of the system account, whatever the environment says."""
    with suppress(KeyError):  # an account that only a container's start knows
        return pwd.getpwuid(os.getuid()).pw_name
    return f"uid {os.getuid()}"


def _confirmed(questions: list[Question]) -> bool:
    """Ask on a terminal; elsewhere nobody can confirm."""
    if not sys.stdin.isatty():
        raise ConfigError("nobody is here to confirm. Give `--yes` to accept without asking.")
    for question in questions:
        typer.echo(f"{question.table}, {question.kind}: {question.text}", err=True)
    try:
        return typer.confirm("Let this land?", default=False, err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None
