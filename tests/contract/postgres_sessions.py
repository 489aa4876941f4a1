"""What other sessions of a PostgreSQL server do to a load: hold a row, or end its session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from naviglio.adapters.postgres.sql import table
from naviglio.model import TableName


class Sessions:
    """Part of a contract's tests: `outside` may end sessions, and holds rows in one more."""

    outside: psycopg.Connection[dict[str, Any]]

    def kill_copying(self) -> None:
        """End the session that copies rows into a staging table, once there is one."""
        self._end("query LIKE 'COPY %%'")

    def kill_merging(self) -> None:
        """End the session whose merge waits for another's lock, once there is one."""
        self._end("wait_event_type = 'Lock'")

    @contextmanager
    def holding(self, name: TableName, number: int) -> Iterator[None]:
        """Keep another session's lock on a row of a table."""
        info = self.outside.info
        with psycopg.connect(info.dsn, password=info.password) as other:
            other.execute(f"UPDATE {table(name)} SET id = id WHERE id = {number}".encode())
            yield
            other.rollback()

    def _end(self, condition: str) -> None:
        query = (
            "SELECT pg_terminate_backend(pid, 5000) AS ended FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'active'"
            f" AND pid <> pg_backend_pid() AND {condition}"
        )
        for _ in range(1000):
            if found := self.outside.execute(query.replace("%%", "%").encode()).fetchall():
                assert found == [{"ended": True}]
                return
            time.sleep(0.01)
        raise AssertionError("there was no such session")
