"""What tasks publish: each final partition at least once, and none without a change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from naviglio_airflow.assets import lake_asset, target_asset
from naviglio_airflow.dags import dag_of
from naviglio_airflow.operators import NaviglioOperator, PublishingOperator
from tests.dags.told import Events, context, path_of
from tests.integration.lines import Line


@dataclass
class World:
    """A pipeline, and the events that its tasks have left; a lost task leaves none."""

    line: Line
    events: dict[Asset, Events] = field(default_factory=dict)

    def run(self, kind: str = "manual", key: str | None = None, lost: str = "") -> None:
        """Execute every task; of the one that is `lost`, Airflow never hears."""
        tasks = dag_of(self.line.pipeline, path_of(self.line)).task_dict
        for group in self.line.pipeline.groups:
            for step in ("capture", "apply", "load"):
                name = f"{group.name}.{step}"
                self._execute(cast("NaviglioOperator", tasks[name]), kind, key, heard=name != lost)

    def _execute(self, task: NaviglioOperator, kind: str, key: str | None, *, heard: bool) -> None:
        for asset in task.outlets:
            self.events.setdefault(asset, Events())
        told = context(kind, key, self.events)
        try:
            NaviglioOperator.execute(task, told)
        except AirflowSkipException:
            return
        if heard and isinstance(task, PublishingOperator):
            for asset in task.outlets:
                event = told["outlet_events"][asset]
                self.events[asset].kept += [(k, event.extra) for k in sorted(event.partition_keys)]

    def of(self, table: str) -> Events:
        """Return the events of a target."""
        spec = {t.name: t for t in self.line.pipeline.tables}[table]
        return self.events[target_asset(self.line.pipeline, spec)]


DAYS = ["2013-01-06", "2013-01-07", "2013-01-08", "2013-01-09"]


def test_partitions_are_published_when_they_change_and_only_then(line: Line) -> None:
    """All days at first; nothing for nothing; then the days of changed, moved and deleted rows."""
    world = World(line)
    world.run()
    assert world.of("t").keys == DAYS
    extra = world.of("t").kept[-1][1]
    assert (extra["batch"], extra["rows"], extra["late_before"]) == (1, 4, "")
    assert len(world.of("r").keys) == 1
    lake = lake_asset(line.pipeline, line.pipeline.tables[0])
    assert (lake.name, lake.uri) == (f"lake/{line.name}/t", f"naviglio://lake/{line.name}/t")
    assert world.events[lake].keys == DAYS

    world.run()
    assert world.of("t").keys == DAYS
    assert len(world.of("r").keys) == 1

    line.source(
        "DELETE FROM t WHERE id = 1",
        "UPDATE t SET at = at - interval '3 days', modified_at = now() WHERE id = 2",
        "UPDATE r SET x = 'b'",
    )
    world.run("scheduled", "2013-01-09")
    late = ["2013-01-04", "2013-01-06", "2013-01-07"]
    assert world.of("t").keys == [*DAYS, *late]
    assert world.of("t").kept[-1][1]["late_before"] > "2013-01-10"
    assert len(world.of("r").keys) == 2


def test_a_stream_along_numbers_publishes_what_has_landed(line: Line) -> None:
    """Its position tells no time: a day that is over is published, and again with a late row."""
    line.declare(
        t="{capture: {where: version, lag: 0}, event_time: at, deletes: none}",
    )
    line.source(
        "ALTER TABLE t ADD version int",
        "UPDATE t SET version = id",
    )
    world = World(line)
    world.run()
    assert world.of("t").keys == DAYS
    line.source("INSERT INTO t (id, at, version) VALUES (9, now() + interval '3 days', 9)",
                "INSERT INTO t (id, at, version) VALUES (10, '2013-01-07 12:00Z', 10)")  # fmt: skip
    world.run()
    assert world.of("t").keys == [*DAYS, "2013-01-07"]


def test_an_event_that_was_lost_comes_again(line: Line) -> None:
    """The load committed and its task was lost: the next run publishes what it had to say."""
    world = World(line)
    world.run(lost="t.load")
    assert world.of("t").keys == []
    world.run()
    assert world.of("t").keys == DAYS
    line.source("UPDATE t SET x = 'new', modified_at = now() WHERE id = 3")
    world.run(lost="t.load")
    line.source("UPDATE t SET x = 'new', modified_at = now() WHERE id = 4")
    world.run()
    assert world.of("t").keys == [*DAYS, *DAYS[2:]]


def test_a_day_that_goes_on_is_published_when_it_is_over(line: Line) -> None:
    """Rows of a day beyond the fence wait until the fence is past its end."""
    world = World(line)
    world.run()
    line.source("INSERT INTO t VALUES (9, now() + interval '3 days', now(), 'to come')")
    world.run()
    assert world.of("t").keys == DAYS
    line.source("UPDATE t SET at = '2013-01-20 12:00Z', modified_at = now() WHERE id = 9")
    world.run()
    assert world.of("t").keys == [*DAYS, "2013-01-20"]


def test_a_day_that_is_read_again_is_published_again(line: Line) -> None:
    """So a backfill tells those who depend on the day, also where nothing changed."""
    world = World(line)
    world.run()
    world.run("backfill", "2013-01-07")
    assert world.of("t").keys == [*DAYS, "2013-01-07"]
    world.run()
    assert world.of("t").keys == [*DAYS, "2013-01-07"]


def test_events_made_by_hand_are_no_state(line: Line) -> None:
    """An event without our extra, such as one of the UI's button, moves nothing."""
    world = World(line)
    world.run()
    world.of("t").kept.append(("2013-02-01", {"from_rest_api": True}))
    world.run()
    assert world.of("t").keys == [*DAYS, "2013-02-01"]


@pytest.mark.parametrize("names", [("a b", "x/y"), ("ü", "lake")])
def test_any_table_name_makes_an_asset(line: Line, names: tuple[str, str]) -> None:
    """Names with blanks, slashes and letters beyond ASCII become URIs that Airflow takes."""
    line.declare(t=f"{{capture: diff, target: {{schema: '{names[0]}', table: '{names[1]}'}}}}")
    asset = target_asset(line.pipeline, line.pipeline.tables[0])
    assert asset.uri == f"naviglio://{asset.name}"
    assert asset.name.isascii()
