"""Tables as Airflow's assets: what they are called, and what their last event said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetWatcher

from naviglio.model import Pipeline, TableSpec

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import InletEventsAccessor

GROUP = "naviglio"
_LOOK_BACK = 50  # events: others than ours may have been made by hand


def named(name: str) -> Asset:
    """Return the asset of a name, such as `warehouse/mart.orders` or `lake/shop/orders`."""
    return Asset(name=name, uri=f"naviglio://{name}", group=GROUP)


def watched(pipeline: str, watcher: AssetWatcher) -> Asset:
    """Return the asset whose events are what a pipeline's `watch` tells."""
    name = f"watch/{_part(pipeline)}"
    return Asset(name=name, uri=f"naviglio://{name}", group=GROUP, watchers=[watcher])


def lake_asset(pipeline: Pipeline, table: TableSpec) -> Asset:
    """Return the asset of a lake table: `lake/PIPELINE/TABLE`."""
    return named(f"lake/{_part(pipeline.name)}/{_part(table.name)}")


def target_asset(pipeline: Pipeline, table: TableSpec) -> Asset:
    """Return the asset of a target: `CONNECTION/SCHEMA.TABLE`."""
    return named(f"{_part(pipeline.target)}/{_part(str(table.target))}")


def last_extra(events: InletEventsAccessor) -> Mapping[str, Any] | None:
    """Return what the last event of ours told; None when there is none."""
    for event in events.ascending(False).limit(_LOOK_BACK):  # noqa: FBT003 - as Airflow has it
        if "lake_table" in (event.extra or {}):
            return event.extra
    return None


def _part(name: str) -> str:
    return quote(name, safe="")
