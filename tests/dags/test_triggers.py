"""What the triggers tell: each new file state and value once, what is awaited, and mistakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException, TaskDeferred
from airflow.triggers.base import BaseEventTrigger

from naviglio.model import TableName, Watch
from naviglio_airflow.sensors import RowSensor
from naviglio_airflow.triggers import FileChangeTrigger, RowTrigger, trigger_of
from tests.dags.told import context
from tests.integration.lines import Line

SOON_S = 0.02


@pytest.fixture(autouse=True)
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow knows no connection: those of the environment are used."""

    async def none(conn_id: str) -> Connection:
        raise AirflowNotFoundException(conn_id)

    monkeypatch.setattr(Connection, "async_get", none)


def told(
    trigger: BaseEventTrigger, *between: Callable[[], object], more: bool = False
) -> list[Any]:
    """Run a trigger: let each thing happen after one event more; return all events.

    It is rebuilt from what Airflow stores first. With `more`, wait for an event that may not come.
    """
    path, arguments = trigger.serialize()
    assert path.startswith("naviglio_airflow.triggers.")
    rebuilt = type(trigger)(**arguments)

    async def listen() -> list[Any]:
        stream = aiter(rebuilt.run())
        events = [(await asyncio.wait_for(anext(stream), 20)).payload]
        for happen in between:
            happen()
            events.append((await asyncio.wait_for(anext(stream), 20)).payload)
        if more:
            with pytest.raises((TimeoutError, StopAsyncIteration)):
                await asyncio.wait_for(anext(stream), 20 * SOON_S)
        return events

    return asyncio.run(listen())


def test_a_file_is_told_of_once_for_each_state(tmp_path: Path) -> None:
    """When it is there, when it is written again or replaced; not while it lies there."""
    path = tmp_path / "closed"
    path.write_text("1")

    def moved_in() -> None:
        (tmp_path / "new").write_text("3")
        (tmp_path / "new").replace(path)

    trigger = FileChangeTrigger(path=str(path), every_s=SOON_S)
    events = told(trigger, lambda: path.write_text("22"), moved_in, more=True)
    assert events == [{"file": str(path)}] * 3


def test_new_values_of_a_column_are_told(line: Line) -> None:
    """All that stand there at first, then each new one; a source that is away is asked again."""
    line.source("CREATE TABLE closings (day date)", "INSERT INTO closings VALUES ('2013-01-01')")
    trigger = RowTrigger(
        connection="operations", schema=line.name, table="closings", column="day", every_s=SOON_S
    )
    events = told(
        trigger,
        lambda: line.source("INSERT INTO closings VALUES ('2013-01-02'), ('2013-01-02'), (NULL)"),
        more=True,
    )
    assert [event["values"] for event in events] == [["2013-01-01"], ["2013-01-02"]]


def test_a_sensor_waits_for_its_value(line: Line) -> None:
    """It defers at once, goes on when the value is there, and fails with what is mistaken."""
    line.source("CREATE TABLE closings (day date, n int)", "INSERT INTO closings VALUES (NULL, 1)")
    table = f"{line.name}.closings"
    sensor = RowSensor(
        task_id="closed", connection="operations", table=table, column="day", value="2013-01-03",
        every_s=SOON_S, timeout=60,
    )  # fmt: skip
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(context())
    trigger = deferred.value.trigger
    assert isinstance(trigger, RowTrigger)
    line.source("INSERT INTO closings VALUES ('2013-01-02', 2), ('2013-01-03', 3)")
    (event,) = told(trigger, more=True)
    sensor.found(context(), event)

    trigger.column = "days"
    (event,) = told(trigger, more=True)
    with pytest.raises(AirflowFailException, match="no column 'days'"):
        sensor.found(context(), event)


def test_a_watch_names_its_trigger() -> None:
    """What the YAML says arrives at the trigger, without any secret."""
    file = trigger_of(Watch(file="/in/done", every_s=3.0))
    assert file.serialize()[1] == {"path": "/in/done", "every_s": 3.0}
    row = trigger_of(
        Watch(connection="ops", table=TableName(schema="m", table="t"), column="c", every_s=4.0)
    )
    assert row.serialize()[1] == {
        "connection": "ops", "schema": "m", "table": "t", "column": "c", "value": None,
        "every_s": 4.0,
    }  # fmt: skip
