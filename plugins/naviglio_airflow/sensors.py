"""Sensors: tasks that wait for what a source says, without holding a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException

from naviglio_airflow.triggers import RowTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class RowSensor(BaseSensorOperator):
    """Wait until a column of a small table holds a value, such as the day that is closed.

    It is deferred to the triggerer at once. A mistake, such as a table that isn't there, fails it;
    a source that is away is asked again until the sensor's `timeout`.

    Args:
        connection: Id of the connection.
        table: The table, `schema.table` or `table`.
        column: The column to look at.
        value: The text to wait for, usually a template such as `{{ partition_key }}`.
        every_s: Seconds between two looks.
        kwargs: What every sensor takes.
    """

    template_fields: Sequence[str] = ("connection", "table", "column", "value")

    def __init__(
        self,
        *,
        connection: str,
        table: str,
        column: str,
        value: str,
        every_s: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.connection = connection
        self.table, self.column, self.value = table, column, value
        self.every_s = every_s

    def execute(self, context: Context) -> None:
        """Leave the waiting to the triggerer."""
        del context
        schema, _, table = self.table.rpartition(".")
        self.defer(
            trigger=RowTrigger(
                connection=self.connection, schema=schema, table=table, column=self.column,
                value=self.value, every_s=self.every_s,
            ),
            method_name="found",
            timeout=timedelta(seconds=self.timeout),
        )  # fmt: skip

    def found(self, context: Context, event: Mapping[str, Any]) -> None:
        """Go on, or fail with what the trigger said."""
        del context
        if "error" in event:
            raise AirflowFailException(event["error"])
