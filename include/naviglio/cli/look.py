"""Commands that look, and the one that answers: validate, plan, status, history, accept."""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from naviglio.cli import places
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
    from rich.console import Console

    from naviglio.flows.history import History
    from naviglio.flows.plan import TablePlan
    from naviglio.flows.status import PipelineStatus
    from naviglio.flows.validate import TableCheck
    from naviglio.model import LedgerRow, Question

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
        show=lambda out: _show_checks(out, checks, None if connect else unknown, bool(errors)),
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
        show=lambda out: _show_plans(out, plans, places.beside(groups, tables)),
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
    return Answer(data={"pipelines": found}, show=lambda out: _show_status(out, found))


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
    return Answer(data=found, show=lambda out: _show_history(out, found))


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
        show=lambda out: _show_questions(out, declared.name, questions, accepted),
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


# --- for people -----------------------------------------------------------------------------------


def _show_checks(
    out: Console,
    checks: list[tuple[Pipeline, list[TableCheck]]],
    unknown: list[str] | None,
    failed: bool,
) -> None:
    from naviglio.cli.show import listing, plural

    if not checks and not failed:
        out.print(f"No pipelines in {places.home().pipelines}.", markup=False)
    for pipeline, found in checks:
        bad = [check for check in found if check.problems]
        said = f"{plural(len(bad), 'table')} to mend" if bad else "fine"
        told = plural(len(pipeline.tables), "table")
        if pipeline.transforms:
            told += f" and {plural(len(pipeline.transforms), 'transform')}"
        out.print(
            f"{pipeline.name}: {told} from {pipeline.source} to {pipeline.target}: {said}",
            markup=False,
        )
        out.print(
            listing(
                [
                    {"table": c.table, "group": c.group, "way": c.way, "key": c.key,
                     "columns": c.columns, "source": c.source, "target": c.target}
                    for c in found
                ],
                optional=("columns", "key"),
            )
        )  # fmt: skip
        for check in bad:
            for problem in check.problems:
                out.print(f"{check.table}: {problem}", markup=False)
    if checks and unknown is not None:
        for conn_id in unknown:
            out.print(f"No connection is called {conn_id!r} here.", markup=False)
        out.print("No database was asked; `--connect` does.")


def _show_plans(out: Console, plans: list[TablePlan], notes: list[str]) -> None:
    from naviglio.cli.show import listing, moment

    for note in notes:
        out.print(note, markup=False)
    rows = [
        {
            "table": p.table, "way": p.way, "would do": _doing(p), "rows": p.rows,
            "position (UTC)": moment(p.position), "fence (UTC)": moment(p.fence),
            "fence held by": p.held_by, "windows": p.windows, "why": p.why, "drift": p.drift,
            "lake lacks": p.lake_lacks, "target lacks": p.target_lacks,
        }
        for p in plans
    ]  # fmt: skip
    out.print(listing(rows, optional=("fence held by", "windows", "why", "drift")))
    if all(p.action == "nothing" and not p.lake_lacks and not p.target_lacks for p in plans):
        out.print("Nothing to do.")


def _doing(plan: TablePlan) -> str:
    words = {
        "whole": "read whole", "changes": "read changes", "compare": "compare hashes",
        "windows": "read windows", "wait": "wait for a fence", "ask": "wait for an answer",
        "compute": "compute",
    }  # fmt: skip
    said = words.get(plan.action, plan.action)
    return f"{said}, compare keys" if plan.sweep else said


def _show_status(out: Console, found: list[PipelineStatus]) -> None:
    from naviglio.cli.show import listing, moment, span

    if not found:
        out.print(f"No pipelines in {places.home().pipelines}.", markup=False)
    for one in found:
        out.print(f"[bold]{one.pipeline}[/bold]")
        rows = [
            {
                "table": t.table, "way": t.way, "position (UTC)": moment(t.position),
                "behind": span(t.behind_s), "fence (UTC)": moment(t.fence),
                "held by": t.held_by, "batch": t.batch or None, "landed (UTC)": t.landed_at_utc,
                "lake batch": t.lake_batch, "lake version": t.lake_version,
                "target batch": t.target_batch, "target version": t.target_version,
                "loaded as": _principal(t.ledger), "in part": t.ledger.ranges if t.ledger else "",
                "gaps": t.gaps, "inputs not seen": t.unseen,
            }
            for t in one.tables
        ]  # fmt: skip
        out.print(
            listing(rows, optional=("gaps", "held by", "loaded as", "in part", "inputs not seen"))
        )
        for side, why in one.away.items():
            out.print(f"{side} gives no answer: {why}", markup=False)
        _show_open(out, one)
        if not any(t.batch for t in one.tables):
            out.print(f"Nothing was captured yet. Begin with `naviglio run {one.pipeline}`.")


def _principal(row: LedgerRow | None) -> str:
    """Return who loaded a target where it was not the login itself."""
    return row.principal if row and row.principal != row.login else ""


def _show_open(out: Console, one: PipelineStatus) -> None:
    from naviglio.cli.show import plural

    for question in one.questions:
        out.print(
            f"question, {question.table}: {question.text}. Answer it: naviglio accept "
            f"{one.pipeline} --table {question.table}",
            markup=False,
        )
    dead = sum(attempt.state == "dead" for attempt in one.attempts)
    if dead:
        out.print(f"{plural(dead, 'dead attempt')}; a later batch removes the files.")
    for attempt in one.attempts:
        if attempt.state != "dead":
            out.print(
                f"{attempt.group}: batch {attempt.number} is being tried ({attempt.state})",
                markup=False,
            )


def _show_history(out: Console, found: History) -> None:
    from naviglio.cli.show import listing, moment, size

    if not found.batches:
        out.print(
            f"{found.table}: nothing was captured yet. Begin with `naviglio run {found.pipeline}`.",
            markup=False,
        )
        return
    rows: list[dict[str, object]] = [
        {
            "batch": b.number, "landed (UTC)": b.at_utc, "kind": b.kind, "upserts": b.upserts,
            "deletes": b.deletes, "size": size(b.bytes), "position (UTC)": moment(b.position),
            "windows": b.windows, "drift": b.drift, "why": b.why, "accepted": b.accepted,
            "attempt": b.attempt,
        }
        for b in found.batches
    ]  # fmt: skip
    out.print(listing(rows, optional=("windows", "drift", "why", "accepted")))
    if found.versions:
        out.print()
        out.print(
            listing(
                [
                    {"lake version": v.version, "committed (UTC)": v.at_utc,
                     "operation": v.operation, "batch": v.batch}
                    for v in found.versions
                ]
            )
        )  # fmt: skip


def _show_questions(out: Console, pipeline: str, questions: list[Question], accepted: bool) -> None:
    from naviglio.cli.show import listing, plural

    if not questions:
        out.print("No open questions.")
        return
    out.print(
        listing(
            [
                {"table": q.table, "kind": q.kind, "asked (UTC)": q.asked_at_utc, "text": q.text}
                for q in questions
            ]
        )
    )
    if accepted:
        count = plural(len(questions), "question")
        out.print(f"Accepted {count}. Go on with `naviglio run {pipeline}`.", markup=False)
