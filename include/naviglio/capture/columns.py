"""Can the columns that a table's capture goes by carry what is asked of them?"""

from __future__ import annotations

from naviglio.errors import ConfigError
from naviglio.known import known_all
from naviglio.model import Column, Kind, Order, TableSchema, TableSpec
from naviglio.ports import SourceTraits

_INSTANTS: tuple[Kind, ...] = ("timestamptz",)
_FLAGS: tuple[Kind, ...] = ("bool", "timestamptz", "timestamp", "date")
_ORDERS: dict[Kind, Order] = {
    "timestamptz": "time", "timestamp": "time",
    "int16": "number", "int32": "number", "int64": "number",
}  # fmt: skip


def order_of(column: Column, traits: SourceTraits) -> Order | None:
    """Return what a stream along the column goes by; None where it can't go along it."""
    if column.source_type in traits.orders:
        return traits.orders[column.source_type]
    return _ORDERS.get(column.kind)


def goes_by_time(schema: TableSchema | None, spec: TableSpec) -> bool:
    """Whether the points of a stream are moments, as far as is known."""
    kinds = {column.name: column.kind for column in schema.columns} if schema else {}
    return _ORDERS.get(kinds.get(spec.modified, "timestamptz")) == "time"


def refuse_unfit_columns(
    spec: TableSpec, schema: TableSchema, time_zone: str, traits: SourceTraits
) -> None:
    """Raise ConfigError for a column that is missing or whose type would lose rows.

    A fence is an instant: a modification time without a zone may lie hours below it, unless its
    zone is declared. An event time without a zone names another day wherever the pipeline's day is
    not UTC's. A number is no flag: 0 would count as deleted.
    """
    local: tuple[Kind, ...] = ("timestamp", "date") if time_zone == "UTC" else ()
    if spec.way == "stream":
        _check_stream(spec, schema, traits)
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


def _check_stream(spec: TableSpec, schema: TableSchema, traits: SourceTraits) -> None:
    column = _present(spec, schema, "where", spec.modified)
    if schema.late:
        raise ConfigError(
            f"{spec.source} is {schema.late}: rows come to it later than their {column.name!r} "
            "says, so a stream would pass them over. Capture by `diff`."
        )
    order = order_of(column, traits)
    what = f"{spec.source}: column {column.name!r} is {column.source_type}"
    if order is None:
        versions = "".join(f", {name}" for name, one in traits.orders.items() if one == "version")
        raise ConfigError(
            f"{what}, but `where` needs a moment (timestamptz, or timestamp with its `zone`) or "
            f"integers that grow{versions}. Name another column, or capture by `diff`."
        )
    if order == "number" and spec.lag is None:
        raise ConfigError(
            f"{what}, and no source tells which numbers open transactions still write. Declare "
            "`lag`, how far below the highest number all are settled, e.g. "
            f"{{where: {column.name}, lag: 1000}}."
        )
    if order != "number" and spec.lag is not None:
        raise ConfigError(f"{what}, and `lag` counts integers. Remove it.")
    if spec.zone and order != "time":
        raise ConfigError(f"{what}, and `zone` is of times. Remove it.")
    if order == "time" and column.kind == "timestamp" and not spec.zone:
        raise ConfigError(
            f"{what}, without a zone, so it is no point in time. If all writers set it to UTC, "
            f"declare {{where: {column.name}, zone: UTC}}: local clocks go back once a year, so no "
            "other zone will do. Else capture by `diff`."
        )


def _check(
    spec: TableSpec, schema: TableSchema, use: str, name: str, kinds: tuple[Kind, ...]
) -> None:
    column = _present(spec, schema, use, name)
    if column.kind not in kinds:
        raise ConfigError(
            f"{spec.source}: column {name!r} is {column.source_type}, but `{use}` needs one of "
            f"{', '.join(kinds)}{_hint(use)}. Name another column, or capture by `diff`."
        )


def _present(spec: TableSpec, schema: TableSchema, use: str, name: str) -> Column:
    if name not in schema.names:
        raise ConfigError(
            f"{spec.source} has no column {name!r} (`{use}`); {known_all(schema.names, name)}"
        )
    return schema.column(name)


def _hint(use: str) -> str:
    if use == "event_time":
        return " (times without a zone only with `time_zone: UTC`)"
    return ""
