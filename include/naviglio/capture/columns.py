"""Can the columns that a table's capture goes by carry what is asked of them?"""

from __future__ import annotations

from naviglio.errors import ConfigError
from naviglio.model import Kind, TableSchema, TableSpec

_INSTANTS: tuple[Kind, ...] = ("timestamptz",)
_FLAGS: tuple[Kind, ...] = ("bool", "timestamptz", "timestamp", "date")


def refuse_unfit_columns(spec: TableSpec, schema: TableSchema, time_zone: str) -> None:
    """Raise ConfigError for a column that is missing or whose type would lose rows.

    A fence is an instant: a modification time without a zone may lie hours below it. An event time
    without a zone names another day wherever the pipeline's day is not UTC's. A number is no flag:
    0 would count as deleted.
    """
    local: tuple[Kind, ...] = ("timestamp", "date") if time_zone == "UTC" else ()
    if spec.way == "stream":
        _check(spec, schema, "where", spec.modified, _INSTANTS)
    if spec.event_time:
        _check(spec, schema, "event_time", spec.event_time, _INSTANTS + local)
        column = schema.column(spec.event_time)
        if (column.precision or 0) > 6:  # noqa: PLR2004 - digits of a microsecond
            raise ConfigError(
                f"{spec.source}: column {column.name!r} is {column.source_type}, finer than the "
                "microseconds of an `event_time`. Name another column, or read the table through a "
                "view that casts it."
            )
    if spec.deletes.column:
        _check(spec, schema, "deletes: column", spec.deletes.column, _FLAGS)


def _check(
    spec: TableSpec, schema: TableSchema, use: str, name: str, kinds: tuple[Kind, ...]
) -> None:
    if name not in schema.names:
        raise ConfigError(
            f"{spec.source} has no column {name!r} (`{use}`); it has {list(schema.names)}."
        )
    column = schema.column(name)
    if column.kind not in kinds:
        raise ConfigError(
            f"{spec.source}: column {name!r} is {column.source_type}, but `{use}` needs one of "
            f"{', '.join(kinds)}{_hint(use)}. Name another column, or capture by `diff`."
        )


def _hint(use: str) -> str:
    if use == "event_time":
        return " (times without a zone only with `time_zone: UTC`)"
    return ""
