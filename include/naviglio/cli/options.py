"""Arguments and options that several commands take, and what partitions they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from naviglio.errors import ConfigError
from naviglio.model import Pipeline

if TYPE_CHECKING:
    from naviglio.capture.table import Wish

PipelineName = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="Its name, or the path of its YAML file.")
]
SomePipeline = Annotated[
    str | None,
    typer.Argument(metavar="[PIPELINE]", help="Its name or file; all pipelines without one."),
]
TableName = Annotated[str, typer.Argument(metavar="TABLE", help="One of its tables.")]
Tables = Annotated[
    list[str] | None,
    typer.Option("--table", metavar="TABLE", help="Only this table; may be repeated."),
]
Partition = Annotated[
    str | None, typer.Option(metavar="DAY", help="Only this day of event time: YYYY-MM-DD.")
]
First = Annotated[
    str | None, typer.Option("--from", metavar="DAY", help="The first day of a range.")
]
Last = Annotated[
    str | None, typer.Option("--to", metavar="DAY", help="The last day of a range, included.")
]


def wishes_of(
    pipeline: Pipeline, partition: str | None, first: str | None, last: str | None, verify: bool
) -> dict[str, Wish]:
    """Return one wish a partition by its key; without partitions, one wish under an empty key."""
    from zoneinfo import ZoneInfo

    from naviglio.capture.table import Wish
    from naviglio.partitions import windows_between

    if partition and (first or last):
        raise ConfigError("`--partition` is one day, `--from` and `--to` are a range. Give one.")
    if bool(first) != bool(last):
        raise ConfigError("a range needs both ends. Give `--from DAY --to DAY`.")
    if not partition and not first:
        return {"": Wish(verify=verify)}
    if verify:
        raise ConfigError("`--verify` finds its days itself. Leave out the partitions, or it.")
    begin, end = partition or first or "", partition or last or ""
    windows = windows_between(begin, end, ZoneInfo(pipeline.time_zone))
    return {key: Wish(windows=(window,)) for key, window in windows.items()}
