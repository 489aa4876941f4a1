"""A pipeline as a DAG: wiring only, nothing is read and no driver imported."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    DAG,
    AssetAll,
    AssetWatcher,
    BaseOperator,
    CronPartitionTimetable,
    Param,
    PartitionedAssetTimetable,
    PartitionedAtRuntime,
    TaskGroup,
)
from airflow.sdk.bases.timetable import BaseTimetable

from naviglio.model import Pipeline, TableSpec, Watch
from naviglio_airflow.assets import lake_asset, named, target_asset, watched
from naviglio_airflow.names import dag_id_of, starter_id_of
from naviglio_airflow.operators import ApplyOperator, CaptureOperator, LoadOperator
from naviglio_airflow.transforms import TransformOperator
from naviglio_airflow.triggers import trigger_of
from naviglio_airflow.wishes import DAY, TABLES, VERIFY

MOST_GROUPS = 20  # beyond, a task for each step of each group would cost more than its work
_PICTURE = 48  # letters in a line that are seen without scrolling
_HOW = {
    # After 10, 30, 90, 270, 300 s: a server that restarts is waited for.
    "retries": 5,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 3.0,
    "max_retry_delay": timedelta(minutes=5),
    # Of two runs' tasks at the same step one would lose the race and do its work again.
    "max_active_tis_per_dag": 1,
    # What is begun is ended first: a backfill's many captures hold up no other run's load.
    "weight_rule": "upstream",
}


def dag_of(pipeline: Pipeline, path: Path) -> DAG:
    """Return the DAG of a pipeline whose file is `path`."""
    runs = pipeline.runs
    dag = DAG(
        dag_id_of(pipeline.name),
        description=pipeline.description or None,
        doc_md=doc_of(pipeline),
        schedule=_schedule(pipeline),
        catchup=False,
        max_active_runs=runs.most_at_once,
        tags=["naviglio", *runs.tags],
        params=_form(pipeline),
        default_args={"owner": runs.owner, **_HOW},
        is_paused_upon_creation=bool(runs.cron or runs.assets),
    )
    applied: list[BaseOperator] = []
    with dag:
        for name, groups in _lanes(pipeline):
            with TaskGroup(name):
                file = str(path)
                tables = [t for g in pipeline.groups if g.name in groups for t in g.tables]
                capture = CaptureOperator(
                    task_id="capture", pipeline=file, groups=groups, pool=runs.pool("capture")
                )
                apply = ApplyOperator(
                    task_id="apply",
                    pipeline=file,
                    groups=groups,
                    pool=runs.pool("apply"),
                    outlets=[lake_asset(pipeline, table) for table in tables],
                )
                load = LoadOperator(
                    task_id="load",
                    pipeline=file,
                    groups=groups,
                    pool=runs.pool("load"),
                    outlets=[target_asset(pipeline, table) for table in tables],
                )
                _ = capture >> apply >> load
                applied.append(apply)
        if pipeline.transforms:
            _ = applied >> _transforms(pipeline, path)
    return dag


def starter_of(pipeline: Pipeline) -> DAG | None:
    """Return the DAG that starts a run of the pipeline whenever its `watch` has something to tell.

    It is a DAG of its own, so that the pipeline's keeps its days, and with them its backfills.
    """
    if pipeline.runs.watch is None:
        return None
    watcher = AssetWatcher(name=pipeline.name, trigger=trigger_of(pipeline.runs.watch))
    with DAG(
        starter_id_of(pipeline.name),
        description=f"Starts {dag_id_of(pipeline.name)}: {_told(pipeline.runs.watch)}",
        schedule=[watched(pipeline.name, watcher)],
        catchup=False,
        max_active_runs=1,
        tags=["naviglio", *pipeline.runs.tags],
        default_args={"owner": pipeline.runs.owner, "retries": 3},
        is_paused_upon_creation=True,
    ) as dag:
        TriggerDagRunOperator(
            task_id="start", trigger_dag_id=dag_id_of(pipeline.name), logical_date=None
        )
    return dag


def _told(watch: Watch) -> str:
    if watch.table is None:
        return f"a new {watch.file}"
    return f"a new {watch.column} in {watch.table} of {watch.connection}"


def _transforms(pipeline: Pipeline, path: Path) -> BaseOperator:
    """Make the tasks of the transforms; return the first. A failed table doesn't hold them up."""
    names = [transform.name for transform in pipeline.transforms]
    tables = [table for one in pipeline.transforms for table in one.group.tables]
    with TaskGroup("transforms"):
        transform = TransformOperator(
            task_id="transform",
            pipeline=str(path),
            trigger_rule="all_done",
            pool=pipeline.runs.pool("transform"),
        )
        apply = ApplyOperator(
            task_id="apply", pipeline=str(path), groups=names, trigger_rule="all_done",
            pool=pipeline.runs.pool("apply"),
            outlets=[lake_asset(pipeline, table) for table in tables],
        )  # fmt: skip
        load = LoadOperator(
            task_id="load", pipeline=str(path), groups=names, pool=pipeline.runs.pool("load"),
            outlets=[target_asset(pipeline, table) for table in tables],
        )  # fmt: skip
        # A run is what its last tasks are: a transform that failed must not end in a green one.
        _ = transform >> apply >> load
        _ = transform >> load
    return transform


def doc_of(pipeline: Pipeline) -> str:
    """Return a description and a picture of a pipeline, in Markdown."""
    rows = "\n".join(
        f"| {table.name} | {table.source} | {_way(table)} | {table.target} |"
        for table in pipeline.tables
    )
    rows += "".join(
        f"\n| {one.name} | {', '.join(i.table for i in one.inputs)} | Spark | {one.target} |"
        for one in pipeline.transforms
    )
    return (
        f"{pipeline.description}\n\n"
        f"```text\n{picture_of(pipeline)}\n```\n\n"
        "| table | source | captured by | target |\n|---|---|---|---|\n"
        f"{rows}\n\n"
        + textwrap.dedent(
            f"""\
            A run takes what is new since the last one. A backfill, or a run by hand that names a
            day (in {pipeline.time_zone}, such as `2013-01-05`), reads the rows of that day again;
            tables captured by `diff` take no part in it.
            """
        )
    )


def picture_of(pipeline: Pipeline) -> str:
    """Return a drawing of the data path, as narrow as Airflow's window for it."""
    computed = [one.name for one in pipeline.transforms]
    spark = _listed("  +-- Spark computes: ", computed) if computed else []
    return "\n".join(
        [
            pipeline.source,
            *_listed("  | capture: ", [group.name for group in pipeline.groups]),
            "landing",
            "  | apply",
            "lake",
            *spark,
            "  | load",
            pipeline.target,
        ]
    )


def _listed(before: str, names: Sequence[str]) -> list[str]:
    return textwrap.wrap(
        before + ", ".join(names), _PICTURE, subsequent_indent="  |   ", break_long_words=False
    )


def _lanes(pipeline: Pipeline) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the task groups: one a group, or a few lanes that work through many."""
    names = [group.name for group in pipeline.groups]
    if len(names) <= MOST_GROUPS:
        yield from ((name, [name]) for name in names)
        return
    for lane in range(pipeline.runs.lanes):
        yield f"lane_{lane + 1}", names[lane :: pipeline.runs.lanes]


def _schedule(pipeline: Pipeline) -> BaseTimetable:
    """Return the days' timetable; without a schedule one that still takes a partition key."""
    if pipeline.runs.assets:
        return PartitionedAssetTimetable(assets=AssetAll(*map(named, pipeline.runs.assets)))
    if not pipeline.runs.cron:
        return PartitionedAtRuntime()
    return CronPartitionTimetable(
        pipeline.runs.cron, timezone=pipeline.time_zone, run_offset=-1, key_format="%Y-%m-%d"
    )


def _form(pipeline: Pipeline) -> dict[str, Param]:
    """Return the form of a run by hand."""
    tables = [table.name for table in pipeline.tables]
    return {
        TABLES: Param(
            [],
            type=["array", "null"],  # a type without null would be marked as required
            items={"type": "string", "enum": tables},
            examples=tables,
            title="Tables",
            description="Only these, with those captured together with them; none: all.",
        ),
        DAY: Param(
            None,
            type=["string", "null"],
            format="date",
            title="Day",
            description=f"Read the rows of this day again (in {pipeline.time_zone}); none: all "
            "that is new since the last run.",
        ),
        VERIFY: Param(
            default=False,
            type=["boolean", "null"],
            title="Verify",
            description="Read windows again whose count or checksum changed.",
        ),
    }


def _way(table: TableSpec) -> str:
    return f"where {table.modified}" if table.way == "stream" else table.way
