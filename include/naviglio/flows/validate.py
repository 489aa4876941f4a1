"""Is a pipeline fit to run? Its tables as its source and target see them, nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from naviglio.capture.columns import refuse_unfit_columns
from naviglio.capture.reading import need_one_moment, refuse_torn
from naviglio.capture.stream import refuse_future
from naviglio.capture.table import refuse_bad_keys, refuse_unseen
from naviglio.errors import ConfigError, NaviglioError, RetryableError
from naviglio.flows.capture import fence_of, reading_of
from naviglio.flows.site import Site
from naviglio.flows.touched import read_program
from naviglio.known import known_all
from naviglio.load.plan import refuse_invisible
from naviglio.model import Group, LedgerRow, Pipeline, TableSchema, TableSpec, Transform
from naviglio.ports import Ranging, Scan


@dataclass(frozen=True, kw_only=True)
class TableCheck:
    """One table; columns and key are the source's where it was asked."""

    group: str
    table: str
    source: str
    target: str
    way: str
    key: tuple[str, ...]
    columns: int | None = None
    problems: tuple[str, ...] = ()
    exit_code: int = 0  # of the first problem


def declared(pipeline: Pipeline) -> list[TableCheck]:
    """Return what the file says of every table and transform; programs must be there."""
    programs = {one.name: _program(one) for one in pipeline.transforms}
    return [
        _with_problems(_declared(group, table), programs.get(table.name, []))
        for group in pipeline.landings
        for table in group.tables
    ]


def _declared(group: Group, table: TableSpec) -> TableCheck:
    return TableCheck(
        group=group.name, table=table.name, source=str(table.source),
        target=str(table.target), way=f"{table.way} {table.modified}".strip(), key=table.key,
    )  # fmt: skip


def validate(site: Site) -> list[TableCheck]:
    """Check every table against source and target; raises RetryableError where one is away.

    A transform is checked as it was last computed: what its program returns, only Spark can tell.
    """
    ledger = site.target.ledger()
    checks = [
        _checked(site, group, table, ledger)
        for group in site.pipeline.groups
        for table in group.tables
    ]
    return checks + [_checked_transform(site, one, ledger) for one in site.pipeline.transforms]


def _checked(
    site: Site, group: Group, table: TableSpec, ledger: dict[str, LedgerRow]
) -> TableCheck:
    said = _declared(group, table)
    errors: list[NaviglioError] = []
    schema = _described(site, table, errors)
    if schema is not None:
        for check in (_keys, _seen, _moment, _target):
            _noting(errors, lambda check=check: check(site, group, table, schema))  # type: ignore[misc]  # the default binds this turn's check
    errors += _owned_by_another(site, table, ledger)
    return _with_problems(said, errors, schema)


def _checked_transform(site: Site, one: Transform, ledger: dict[str, LedgerRow]) -> TableCheck:
    [table] = one.group.tables
    errors, lake = _program(one), site.lake(table)
    schema = lake.schema_if_any()
    if schema is not None:
        _noting(errors, lambda: _target(site, one.group, table, schema))
    errors += _owned_by_another(site, table, ledger)
    return _with_problems(_declared(one.group, table), errors, schema)


def _program(one: Transform) -> list[NaviglioError]:
    errors: list[NaviglioError] = []
    _noting(errors, lambda: read_program(one))
    return errors


def _noting(errors: list[NaviglioError], check: Callable[[], object]) -> None:
    """Keep what a check raises; a side that is away ends all checks."""
    try:
        check()
    except RetryableError:
        raise
    except NaviglioError as error:
        errors.append(error)


def _owned_by_another(
    site: Site, table: TableSpec, ledger: dict[str, LedgerRow]
) -> list[NaviglioError]:
    owner = ledger.get(str(table.target))
    if owner is None or owner.pipeline == site.pipeline.name:
        return []
    return [
        ConfigError(
            f"target {table.target} belongs to pipeline {owner.pipeline!r}: one pipeline a "
            "target. Choose another `target`."
        )
    ]


def _with_problems(
    said: TableCheck, errors: Sequence[NaviglioError], schema: TableSchema | None = None
) -> TableCheck:
    return replace(
        said,
        key=schema.key if schema else said.key,
        columns=len(schema.columns) if schema else None,
        problems=tuple(map(str, errors)),
        exit_code=errors[0].exit_code if errors else 0,
    )


def _described(site: Site, table: TableSpec, errors: list[NaviglioError]) -> TableSchema | None:
    found: list[TableSchema] = []
    _noting(errors, lambda: found.append(site.source.describe(table.source, table.key)))
    if not found:
        return None
    [schema] = found
    named = {"capture: {where: ...}": table.modified, "event_time": table.event_time,
             "deletes: {column: ...}": table.deletes.column or ""}  # fmt: skip
    for where, name in named.items():
        if name and name not in schema.names:
            errors.append(
                ConfigError(
                    f"{table.source} has no column {name!r}, which `{where}` names; "
                    f"{known_all(schema.names, name)} Correct it."
                )
            )
    if not errors:
        zone, traits = site.pipeline.time_zone, site.source.traits
        _noting(errors, lambda: refuse_unfit_columns(table, schema, zone, traits))
    return None if errors else schema


def _keys(site: Site, group: Group, table: TableSpec, schema: TableSchema) -> None:
    del group
    with site.source.snapshot() as snapshot:
        refuse_bad_keys(snapshot, Scan(table=table.source, schema=schema))


def _seen(site: Site, group: Group, table: TableSpec, schema: TableSchema) -> None:
    """Refuse a fence that can't be read, and rows that no stream or window would see."""
    fence = fence_of(site, replace(group, tables=(table,)), {table.name: schema})
    with site.source.snapshot() as snapshot:
        head = site.landing(group).head()
        reading = replace(reading_of(site, group, table, head, snapshot), fence=fence)
        refuse_unseen(reading)
        if table.way == "stream":
            refuse_future(reading)


def _moment(site: Site, group: Group, table: TableSpec, schema: TableSchema) -> None:
    """Refuse what takes an absent row for a deleted one where no one moment can be read."""
    del schema
    with site.source.snapshot() as snapshot:
        refuse_torn(table, snapshot)
        if len(group.tables) > 1:
            need_one_moment(snapshot, f"group {group.name!r}", "a group of several tables")


def _target(site: Site, group: Group, table: TableSpec, schema: TableSchema) -> None:
    del group
    target = site.target_of(table)
    refuse_invisible(table, ranging=isinstance(target, Ranging))
    target.check(table.target, schema, adopt=table.adopt)
