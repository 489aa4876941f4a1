"""`naviglio plan --load`: by which way each target would be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from naviglio.cli import places
from naviglio.cli.answers import Answer

if TYPE_CHECKING:
    from rich.console import Console

    from naviglio.flows.load_plan import TableLoad


def load_plan(pipeline: str, tables: Sequence[str]) -> Answer:
    """Tell how the targets of a pipeline, or of some tables, would be loaded now."""
    from naviglio.flows.load_plan import load_plan as plan

    declared = places.pipeline_named(pipeline)
    groups = places.groups_of(declared, tables)
    with places.site_of(declared) as site:
        loads = [found for group in groups for found in plan(site, group)]
    return Answer(
        data={"pipeline": declared.name, "loads": loads}, show=lambda out: _show(out, loads)
    )


def _show(out: Console, loads: list[TableLoad]) -> None:
    from naviglio.cli.show import listing

    rows: list[dict[str, object]] = [
        {
            "table": one.table, "target": one.target, "as": one.run_as, "way": one.way,
            "changed rows": one.changed_rows, "lake rows": one.lake_rows,
            "target rows": one.target_rows, "indexes": one.target_indexes or None,
            "why": one.why,
        }
        for one in loads
    ]  # fmt: skip
    out.print(listing(rows, optional=("as", "changed rows", "lake rows", "target rows", "indexes")))
