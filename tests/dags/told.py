"""What Airflow tells a task, and what it keeps of a task's events, for tests without Airflow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from airflow.sdk import Asset, Context
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.execution_time.context import OutletEventAccessors

from tests.integration.lines import Line


@dataclass
class Events:
    """Airflow's events of one asset: newest last, as its database keeps them."""

    kept: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def ascending(self, ascending: bool) -> Events:  # noqa: FBT001 - Airflow's own signature
        """Stand for the newest first."""
        assert not ascending
        return self

    def limit(self, limit: int) -> Iterator[SimpleNamespace]:
        """Return the newest ones."""
        return iter([SimpleNamespace(extra=extra) for _, extra in reversed(self.kept)][:limit])

    @property
    def keys(self) -> list[str]:
        """All keys published so far, in the order of their events."""
        return [key for key, _ in self.kept]


def context(
    kind: str = "manual",
    key: str | None = None,
    events: Mapping[Asset, Events] | None = None,
    **params: Any,
) -> Context:
    """Return what a run tells its tasks, as far as they look."""
    # as a task gets it
    run = SimpleNamespace(run_type=DagRunType(kind), partition_key=key, conf=dict(params))
    told = {
        "dag_run": run, "params": params, "outlet_events": OutletEventAccessors(),
        "inlet_events": defaultdict(Events) if events is None else events,
    }  # fmt: skip
    return cast("Context", told)


def path_of(line: Line) -> Path:
    """Return the pipeline's file."""
    return line.home.pipelines / f"{line.pipeline.name}.yaml"
