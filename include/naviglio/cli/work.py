"""Commands that move rows or compare them: run, reconcile, rebuild, resnapshot."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from naviglio.cli import places, views
from naviglio.cli.answers import Answer, error_data
from naviglio.cli.options import First, Last, Partition, PipelineName, TableName, Tables, wishes_of
from naviglio.cli.progress import Watch, watching
from naviglio.errors import ConfigError, NaviglioError
from naviglio.model import Group, Pipeline, Transform

if TYPE_CHECKING:
    from naviglio.capture.table import Wish
    from naviglio.flows.reconcile import Verdict
    from naviglio.flows.replicate import Report
    from naviglio.flows.site import Site
    from naviglio.flows.transform import Submit


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What one run did to one table; None where a step did not happen."""

    table: str
    group: str
    partition: str
    kind: str  # `stream`, `window`, `snapshot`, `none`, `rebuild` or `failed`
    captured: int
    deletes: int
    landed: int  # rows in the batch's files
    batch: int | None
    lake_version: int | None
    inserted: int | None
    updated: int | None
    deleted: int | None
    unchanged: int | None
    seconds: float  # of the group
    why: str  # why rows were read, or loaded, whole


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run of one or more groups."""

    pipeline: str
    tables: list[Carried]
    errors: dict[str, NaviglioError]  # by group


def run(
    pipeline: PipelineName,
    table: Tables = None,
    partition: Partition = None,
    first: First = None,
    last: Last = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read windows again whose count or checksum changed.")
    ] = False,
) -> Answer:
    """Capture what changed, apply it to the lake, load it into the target.

    Every step goes on from its own last commit, so a run may be killed, repeated, or started beside
    another one. With `--partition`, or `--from` and `--to`, only those days of event time are read
    again, one batch a day. A group that fails stops no other one.

    Example: `naviglio run flights --table flights --from 2013-01-01 --to 2013-01-07`
    """
    declared = places.pipeline_named(pipeline)
    wishes = wishes_of(declared, partition, first, last, verify)
    tables = tuple(table or ())
    groups, transforms = places.parted(declared, tables)
    if "" not in wishes:
        groups = _taking_part(declared, groups, tables)
    submit = _submitter(transforms)
    with watching() as watch, places.site_of(declared, watch.tell) as site:
        ran = carry(site, groups, wishes, watch)
        _carry_transforms(site, transforms, submit, ran, watch)
    return _ran(ran, places.beside(groups, tables))


def transform(
    pipeline: PipelineName,
    whole: Annotated[
        bool, typer.Option("--whole", help="Compute every day again, not only touched ones.")
    ] = False,
) -> Answer:
    """Compute the pipeline's transforms from the lake as it is, apply and load them.

    Only the days that changes of the inputs touch are computed, all transforms in one Spark
    application; where nothing is touched, none is started. `naviglio run` does this at its end.

    Example: `naviglio transform flights`
    """
    declared = places.pipeline_named(pipeline)
    if not declared.transforms:
        raise ConfigError(f"pipeline {declared.name!r} declares no `transforms`.")
    ran, submit = Ran(pipeline=declared.name, tables=[], errors={}), _submitter(declared.transforms)
    with watching() as watch, places.site_of(declared, watch.tell) as site:
        _carry_transforms(site, declared.transforms, submit, ran, watch, whole=whole)
    return _ran(ran, [])


def resnapshot(
    pipeline: PipelineName,
    name: Annotated[str, typer.Argument(metavar="TABLE|GROUP", help="What to read whole.")],
) -> Answer:
    """Read a table or group whole from its source, whatever its position says.

    Tables captured together are read together.

    Example: `naviglio resnapshot flights planes`
    """
    from naviglio.capture.table import Wish

    declared = places.pipeline_named(pipeline)
    group = places.group_of(declared, name)
    with watching() as watch, places.site_of(declared, watch.tell) as site:
        ran = carry(site, (group,), {"": Wish(whole="asked by resnapshot")}, watch)
    return _ran(ran, places.beside((group,), () if name == group.name else (name,)))


def rebuild(pipeline: PipelineName, table: TableName) -> Answer:
    """Replay the landing into a table's lake table, then load its target.

    The source is not asked. What the lake table held is kept as an older version.

    Example: `naviglio rebuild flights weather`
    """
    from naviglio.flows.rebuild import rebuild as replay

    declared = places.pipeline_named(pipeline)
    group, spec = places.table_of(declared, table)
    with watching() as watch, places.site_of(declared, watch.tell) as site:
        watch.step(f"rebuild {table}")
        report = replay(site, group, spec)
    rows = [row for row in _rows(group, report, "") if row.table == table]
    return _ran(Ran(pipeline=declared.name, tables=rows, errors={}), [])


def maintain(pipeline: PipelineName, table: Tables = None) -> Answer:
    """Put few large files in place of the many small ones that batches leave in the lake.

    No row changes and no target loads anything for it; it may run beside captures and loads.

    Example: `naviglio maintain flights`
    """
    from naviglio.flows.maintain import maintain as keep

    declared = places.pipeline_named(pipeline)
    specs = [
        spec
        for group in places.groups_of(declared, table or ())
        for spec in group.tables
        if not table or spec.name in table
    ]
    with watching() as watch, places.site_of(declared, watch.tell) as site:
        watch.step("maintain")
        done = keep(site, specs)
    rows = [
        {
            "table": name, "lake_version": found.version if found else None,
            "files_before": found.files_before if found else None,
            "files_after": found.files_after if found else None,
        }
        for name, found in done.items()
    ]  # fmt: skip
    return Answer(
        data={"pipeline": declared.name, "tables": rows},
        show=lambda out: views.show_maintained(out, done),
    )


def reconcile(pipeline: PipelineName, table: Tables = None) -> Answer:
    """Prove that source, lake and target agree, row by row; name the keys that don't.

    Source and lake are compared as they are now, the target with the lake at the version that it
    holds; where the lake has newer batches it ends with 75. Ends with 1 when rows are missing,
    extra or changed. Deletes that the declared capture can't see and rows changed after the last
    capture are counted, and fail nothing.

    Example: `naviglio reconcile flights --table weather`
    """
    declared = places.pipeline_named(pipeline)
    groups = places.groups_of(declared, table or ())
    with watching() as watch, places.site_of(declared, watch.tell) as site:
        verdicts, errors = verdicts_of(site, groups)
    wanted = [v for v in verdicts if not table or v.table in table]
    return Answer(
        data={
            "pipeline": declared.name,
            "ok": not errors and all(v.ok for v in wanted),
            "verdicts": [verdict_data(v) for v in wanted],
            "errors": [error_data(error)["error"] for error in errors],
        },
        show=lambda out: views.show_verdicts(out, wanted, complete=not errors),
        errors=errors,
        exit_code=0 if errors or all(v.ok for v in wanted) else 1,
    )


def carry(site: Site, groups: Iterable[Group], wishes: Mapping[str, Wish], watch: Watch) -> Ran:
    """Replicate every group with every wish, by partition, in order; a failure ends its group."""
    from naviglio.flows.replicate import replicate

    ran = Ran(pipeline=site.pipeline.name, tables=[], errors={})
    for group in groups:
        for partition, wish in wishes.items():
            watch.step(f"run {group.name} {partition}".strip())
            report = replicate(site, group, wish)
            ran.tables.extend(_rows(group, report, partition))
            if report.error is not None:
                ran.errors[group.name] = report.error
                break
    return ran


def _submitter(transforms: Sequence[Transform]) -> Submit:
    """Return who starts Spark; ConfigError, before anything is done, for a wrong connection."""
    from naviglio.transform.cluster import HERE, SPARK, read
    from naviglio.transform.spark import spark_at

    url = places.spark_url() if transforms else HERE
    cluster, home = read(SPARK, url), places.home().root
    return lambda *asked: spark_at(cluster, home, os.environ).submit(*asked)


def _carry_transforms(
    site: Site, transforms: Sequence[Transform], submit: Submit, ran: Ran, watch: Watch,
    *, whole: bool = False,
) -> None:  # fmt: skip
    """Carry the transforms and keep what happened in `ran`."""
    if not transforms:
        return
    from naviglio.flows.transform import carry_transforms

    watch.step("transform")
    reports = carry_transforms(site, transforms, submit, whole=whole)
    for one, report in zip(transforms, reports, strict=True):
        ran.tables.extend(_rows(one.group, report, ""))
        if report.error is not None:
            ran.errors[one.name] = report.error


def verdicts_of(site: Site, groups: Iterable[Group]) -> tuple[list[Verdict], list[NaviglioError]]:
    """Reconcile every group; one that can't be compared stops no other."""
    from naviglio.flows.reconcile import reconcile as compare

    verdicts: list[Verdict] = []
    errors: list[NaviglioError] = []
    for group in groups:
        try:
            verdicts += compare(site, group)
        except NaviglioError as error:
            errors.append(error)
    return verdicts, errors


def verdict_data(verdict: Verdict) -> dict[str, object]:
    """Return a verdict as data."""
    return {**vars(verdict), "ok": verdict.ok}


def _taking_part(
    pipeline: Pipeline, groups: tuple[Group, ...], tables: tuple[str, ...]
) -> tuple[Group, ...]:
    """Return the groups of a partition run: only tables with an event time take part in it."""
    timed = {t.name for t in pipeline.tables if t.has_partitions}
    if wrong := [table for table in tables if table not in timed]:
        raise ConfigError(
            f"{', '.join(wrong)}: no event time, so no part in partition runs; those with one: "
            f"{', '.join(sorted(timed)) or 'none'}. Leave out `--partition`, `--from` and `--to`."
        )
    found = tuple(g for g in groups if any(t.name in timed for t in g.tables))
    if not found:
        raise ConfigError(
            f"pipeline {pipeline.name!r} has no table with an event time: nothing to read by "
            "partition. Leave out `--partition`, `--from` and `--to`."
        )
    return found


def _rows(group: Group, report: Report, partition: str) -> Iterator[Carried]:
    parts = {part.table: part for part in report.batch.parts} if report.batch else {}
    seconds = round(sum(report.seconds.values()), 3)
    for table in group.tables:
        part, row = parts.get(table.name), report.loaded.get(table.name)
        applied = report.applied.get(table.name) or []
        whys = (part.why if part else "", row.why_whole if row else "")
        kind = part.kind if part else applied[-1].kind if applied else "none"
        yield Carried(
            table=table.name, group=group.name, partition=partition,
            kind="failed" if report.error and not part else kind,
            captured=part.upserts if part else 0, deletes=part.deletes if part else 0,
            landed=sum(file.rows for file in part.files) if part else 0,
            batch=report.batch.number if part and report.batch else None,
            lake_version=applied[-1].version if applied else None,
            inserted=row.inserted if row else None, updated=row.updated if row else None,
            deleted=row.deleted if row else None, unchanged=row.unchanged if row else None,
            seconds=seconds, why="; ".join(dict.fromkeys(why for why in whys if why)),
        )  # fmt: skip


def _ran(ran: Ran, notes: list[str]) -> Answer:
    return Answer(
        data={
            "pipeline": ran.pipeline,
            "tables": ran.tables,
            "errors": [
                {"group": group, **error_data(error)["error"]}
                for group, error in ran.errors.items()
            ],
        },
        show=lambda out: views.show_ran(out, ran, notes),
        errors=list(ran.errors.values()),
    )
