"""Is a pipeline fit to run? Its tables as its source and target see them, nothing changed."""

from __future__ import annotations

from dataclasses import dataclass

from naviglio.errors import ConfigError, DataError, NaviglioError, RetryableError
from naviglio.flows.capture import fence_of
from naviglio.flows.site import Site
from naviglio.model import Group, LedgerRow, TableSchema, TableSpec
from naviglio.ports import Scan


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


def declared(site_group: Group, table: TableSpec) -> TableCheck:
    """Return what the file says of a table."""
    return TableCheck(
        group=site_group.name, table=table.name, source=str(table.source),
        target=str(table.target), way=f"{table.way} {table.modified}".strip(), key=table.key,
    )  # fmt: skip


def validate(site: Site) -> list[TableCheck]:
    """Check every table against source and target; raises RetryableError where one is away."""
    ledger = site.target.ledger()
    return [
        _checked(site, group, table, ledger)
        for group in site.pipeline.groups
        for table in group.tables
    ]


def _checked(
    site: Site, group: Group, table: TableSpec, ledger: dict[str, LedgerRow]
) -> TableCheck:
    said = declared(group, table)
    errors: list[NaviglioError] = []
    schema = _described(site, table, errors)
    if schema is not None:
        for check in (_keys, _fence, _target):
            try:
                check(site, group, table, schema)
            except RetryableError:
                raise
            except NaviglioError as error:
                errors.append(error)
    owner = ledger.get(str(table.target))
    if owner is not None and owner.pipeline != site.pipeline.name:
        errors.append(
            ConfigError(
                f"target {table.target} belongs to pipeline {owner.pipeline!r}: one pipeline a "
                "target. Choose another `target`."
            )
        )
    return TableCheck(
        **{
            **vars(said),
            "key": schema.key if schema else said.key,
            "columns": len(schema.columns) if schema else None,
            "problems": tuple(map(str, errors)),
            "exit_code": errors[0].exit_code if errors else 0,
        }
    )


def _described(site: Site, table: TableSpec, errors: list[NaviglioError]) -> TableSchema | None:
    try:
        schema = site.source.describe(table.source, table.key)
    except RetryableError:
        raise
    except NaviglioError as error:
        errors.append(error)
        return None
    named = {"capture: {where: ...}": table.modified, "event_time": table.event_time,
             "deletes: {column: ...}": table.deletes.column or ""}  # fmt: skip
    for where, name in named.items():
        if name and name not in schema.names:
            errors.append(
                ConfigError(
                    f"{table.source} has no column {name!r}, which `{where}` names; known: "
                    f"{', '.join(schema.names)}. Correct it."
                )
            )
    return None if errors else schema


def _keys(site: Site, group: Group, table: TableSpec, schema: TableSchema) -> None:
    """Refuse a key that tells no rows apart; the table is read for it where no index vouches."""
    if schema.key_is_unique:
        return
    with site.source.snapshot() as snapshot:
        bad = snapshot.bad_keys(Scan(table=table.source, schema=schema))
    if bad:
        raise DataError(
            f"{table.source}: the key {list(schema.key)} of group {group.name!r} is NULL or stands "
            f"on more than one row, e.g. {', '.join(bad)}. Mend the rows, or declare another `key`."
        )


def _fence(site: Site, group: Group, table: TableSpec, schema: TableSchema) -> None:
    del table, schema
    fence_of(site, group)


def _target(site: Site, group: Group, table: TableSpec, schema: TableSchema) -> None:
    del group
    site.target.check(table.target, schema, adopt=table.adopt)
