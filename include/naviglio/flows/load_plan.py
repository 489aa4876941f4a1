"""How each target would be loaded, and by which figures; nothing is changed anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from naviglio.flows.site import Site
from naviglio.load.plan import choose, figures_of
from naviglio.model import Group, LedgerRow, TableSpec


@dataclass(frozen=True, kw_only=True)
class TableLoad:
    """One target; `way` is `merge`, `swap` or `nothing`, rows are None where they aren't known."""

    group: str
    table: str
    target: str
    run_as: str
    way: str
    why: str
    lake_rows: int | None = None
    changed_rows: int | None = None
    target_rows: int | None = None
    target_indexes: int = 0  # that can be off while it is merged
    rebuild: bool = False  # and will be


def load_plan(site: Site, group: Group) -> list[TableLoad]:
    """Tell what a load would do now for every table of the group, from the lake as it is."""
    ledger = site.target.ledger()
    return [_table(site, group, table, ledger) for table in group.tables]


def _table(site: Site, group: Group, table: TableSpec, ledger: dict[str, LedgerRow]) -> TableLoad:
    row = ledger.get(str(table.target))
    feed = site.lake(table).feed(row)
    if feed is None:
        return TableLoad(
            group=group.name, table=table.name, target=str(table.target), run_as=table.run_as,
            way="nothing", why="the target holds the lake's newest version",
        )  # fmt: skip
    target = site.target_of(table)
    target.check(table.target, feed.schema, adopt=table.adopt)
    figures = figures_of(target, table, feed, loaded=row is not None)
    plan = choose(figures)
    return TableLoad(
        group=group.name, table=table.name, target=str(table.target), run_as=table.run_as,
        way=plan.way, why=plan.why, lake_rows=figures.lake_rows,
        changed_rows=figures.changed_rows,
        target_rows=figures.target.rows if figures.target else None,
        target_indexes=figures.target.indexes if figures.target else 0, rebuild=plan.rebuild,
    )  # fmt: skip
