"""What starts runs or lets tasks go on: a file that appears, a row that says so.

They look again and again in Airflow's triggerer, where nobody waits for them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from naviglio.errors import NaviglioError, RetryableError
from naviglio.model import TableName, Watch

log = logging.getLogger("naviglio.airflow")
_MOST_TOLD = 100  # values, the last ones in the order of their texts: an event is no place for more


class FileChangeTrigger(BaseEventTrigger):
    """Tells of a file when it appears, and again whenever it is replaced or written.

    The file stays. A file that is there when the triggerer starts counts as one that appears.

    Args:
        path: The file's path, as the triggerer sees it.
        every_s: Seconds between two looks.
    """

    def __init__(self, *, path: str, every_s: float = 30.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # has no annotations
        self.path = path
        self.every_s = every_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class and arguments, as Airflow stores them."""
        return _serialized(self, path=self.path, every_s=self.every_s)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each state of the file that is new."""
        known: tuple[int, ...] | None = None
        while True:
            found = await asyncio.to_thread(_state_of, Path(self.path))
            if found is not None and found != known:
                yield TriggerEvent({"file": self.path})
            known = found
            await asyncio.sleep(self.every_s)


class RowTrigger(BaseEventTrigger):
    """Tells of new values in a column of a small table, or once that one value is there.

    Reads through the project's own adapters, so a connection of any vendor will do. A source that
    is away is asked again. What stands there when the triggerer starts counts as new.

    Args:
        connection: Id of the connection.
        schema: Schema of the table; empty for the connection's default.
        table: The table, such as one that says which days are closed.
        column: The column to look at.
        value: The text of a value to wait for; none: tell of every new one.
        every_s: Seconds between two looks.
    """

    def __init__(
        self,
        *,
        connection: str,
        table: str,
        column: str,
        schema: str = "",
        value: str | None = None,
        every_s: float = 30.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # has no annotations
        self.connection = connection
        self.schema, self.table, self.column = schema, table, column
        self.value = value
        self.every_s = every_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class and arguments, as Airflow stores them."""
        return _serialized(
            self, connection=self.connection, schema=self.schema, table=self.table,
            column=self.column, value=self.value, every_s=self.every_s,
        )  # fmt: skip

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for new values; of a mistake, only where someone waits for one value."""
        known: frozenset[str] = frozenset()
        while True:
            try:
                values = await self._values()
            except RetryableError as error:
                log.warning("%s", error)
            except NaviglioError as error:
                log.error("%s", error)  # noqa: TRY400 - whose mistake it is stands in the text
                if self.value is not None:
                    yield TriggerEvent({"error": str(error)})
                    return
            else:
                if self.value is None and values - known:
                    newest = sorted(values - known)[-_MOST_TOLD:]
                    yield TriggerEvent({"table": self.table, "values": newest})
                elif self.value is not None and self.value in values:
                    yield TriggerEvent({"table": self.table, "values": [self.value]})
                    return
                known = values
            await asyncio.sleep(self.every_s)

    async def _values(self) -> frozenset[str]:
        from naviglio.flows.watch import values_of

        one = _OneUrl(await _url(self.connection))
        table = TableName(schema=self.schema, table=self.table)
        return await asyncio.to_thread(values_of, one, self.connection, table, self.column)


def trigger_of(watch: Watch) -> BaseEventTrigger:
    """Return the trigger that a pipeline's `watch` asks for."""
    if watch.table is None:
        return FileChangeTrigger(path=watch.file, every_s=watch.every_s)
    return RowTrigger(
        connection=watch.connection, schema=watch.table.schema, table=watch.table.table,
        column=watch.column, every_s=watch.every_s,
    )  # fmt: skip


@dataclass(frozen=True)
class _OneUrl:
    found: str

    def url(self, conn_id: str) -> str:
        """Return the URL that was looked up before."""
        del conn_id
        return self.found


async def _url(conn_id: str) -> str:
    """Look a connection up as a task does, but without blocking the triggerer's loop."""
    from naviglio.config.home import Home
    from naviglio.connections.connections import Connections
    from naviglio_airflow.connections import url_of

    try:
        return url_of(await Connection.async_get(conn_id))
    except AirflowNotFoundException:
        home = Home.find(os.environ)
        return Connections(os.environ, home.connections).url(conn_id)


def _state_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _serialized(trigger: BaseEventTrigger, **given: Any) -> tuple[str, dict[str, Any]]:
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}", given
