"""A real table on a real server, its life, and what must hold of landing, lake and target.

What is compared is read here by SQL and DuckDB, not by the product's own reconciliation.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from deltalake import DeltaTable

from naviglio.capture.table import Wish
from naviglio.connections.connections import Connections
from naviglio.errors import NaviglioError, RetryableError
from tests.chaos.process import Victim
from tests.chaos.victim import Errand, How, Way, run_once

_ROW = "id, day, modified_at, counter, note"
_FIRST = 300  # rows at the start; ids below 10 belong to the long transaction
Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class State:
    """What anybody can see of the three commits."""

    manifests: tuple[str, ...]
    lake: int
    ledger: Row | None


class Scene:
    """One source table with its landing, lake table and target."""

    def __init__(self, urls: Mapping[str, str], folder: Path, way: Way) -> None:
        self.urls = urls
        self.table = f"kills_{uuid.uuid4().hex[:12]}"
        self.first_day = datetime.now(UTC).date() - timedelta(days=4)
        self.errand = Errand(
            folder=str(folder), way=way, table=self.table, since=self.first_day.isoformat()
        )
        named = {f"NAVIGLIO_CONN_{name.upper()}": url for name, url in urls.items()}
        self.connections = Connections(named, None)
        self._open: list[psycopg.Connection] = []
        self.connect()
        self.chance, self.newest = random.Random(0), _FIRST
        self._make()

    def connect(self) -> None:
        """Open the test's own connections, again after the server was away."""
        for connection in self._open:
            connection.close()
        places = (("operations_app", "operations"), ("warehouse", "warehouse"))
        self._open = [
            psycopg.connect(self.urls[login], autocommit=True, dbname=database)
            for login, database in (*places, ("admin", "warehouse"))
        ]
        self.source, self.warehouse, self.admin = self._open

    def close(self) -> None:
        """Remove the tables."""
        try:
            self.source.execute(f"DROP TABLE IF EXISTS {self.table}")
            self.warehouse.execute(f"DROP TABLE IF EXISTS kills.{self.table}")
            self.warehouse.execute(
                "DELETE FROM naviglio.ledger WHERE target = %s", (f"kills.{self.table}",)
            )
        finally:
            for connection in self._open:
                connection.close()

    # --- the source's life ----------------------------------------------------------------------

    def _make(self) -> None:
        self.source.execute(
            f"CREATE TABLE {self.table} (id bigint PRIMARY KEY, day timestamptz NOT NULL,"
            " modified_at timestamptz NOT NULL DEFAULT now(), counter int NOT NULL, note text)"
        )
        self.insert(1, _FIRST)

    def insert(self, low: int, high: int, note_bytes: int = 32) -> None:
        """Insert rows with these ids."""
        self.source.execute(
            f"INSERT INTO {self.table} (id, day, counter, note)"
            " SELECT i, %s::timestamptz + i %% 4 * interval '1 day', 0,"
            " repeat(md5(i::text), %s) FROM generate_series(%s::int, %s) i",
            (f"{self.first_day} 06:00+00", note_bytes // 32, low, high),
        )

    def live(self) -> None:
        """Insert, update, move and delete a few rows, in short transactions."""
        self.insert(self.newest + 1, self.newest + 4)
        self.newest += 4
        some = self.chance.sample(range(10, self.newest + 1), 8)
        self.source.execute(
            f"UPDATE {self.table} SET counter = counter + 1, modified_at = now(),"
            " day = day + CASE WHEN id %% 5 = 0 AND day < %s THEN interval '1 day' ELSE '0' END"
            " WHERE id = ANY(%s)",
            (f"{self.first_day + timedelta(days=3)} 00:00+00", some[:6]),
        )
        self.source.execute(f"DELETE FROM {self.table} WHERE id = ANY(%s)", (some[6:],))

    @contextmanager
    def long_transaction(self) -> Iterator[psycopg.Connection]:
        """Write early in a transaction that the caller commits late."""
        with psycopg.connect(self.urls["operations_app"]) as connection:
            connection.execute(
                f"UPDATE {self.table} SET counter = counter + 1, modified_at = now() WHERE id < 4"
            )
            connection.execute(f"DELETE FROM {self.table} WHERE id = 5")
            connection.execute(
                f"INSERT INTO {self.table} (id, day, counter, note) VALUES (-1, %s, 0, 'late')",
                (f"{self.first_day} 07:00+00",),
            )
            yield connection

    # --- runs -----------------------------------------------------------------------------------

    @property
    def usual(self) -> Wish:
        """What a scheduled run asks for."""
        return Wish(verify=self.errand.way in ("partition", "verify"))

    def run(self, wish: Wish | None = None, lock_wait_s: float = 20.0) -> NaviglioError | None:
        """Run in this process; return what went wrong."""
        errand = replace(self.errand, lock_wait_s=lock_wait_s)
        return run_once(errand, self.connections, wish or self.usual, lambda *_: None)

    def victim(self, where: str, how: How, **more: Any) -> Victim:
        """Start a process that is struck there."""
        return Victim(replace(self.errand, where=where, how=how, **more), self.urls)

    def heal(self) -> None:
        """Let two more batches come, then rest: now everything must be equal and tidy."""
        for _ in range(2):
            self.live()
            self._well()
        self._well()
        self.check()

    def _well(self) -> None:
        error = self.run()
        assert error is None, error

    def state(self) -> State:
        """Return what the three commits show now."""
        query = "SELECT * FROM naviglio.ledger WHERE target = %s"
        return State(
            manifests=tuple(path.name for path in self._manifests()),
            lake=DeltaTable(self._lake).version(),
            ledger=self.warehouse.execute(query, (f"kills.{self.table}",)).fetchone(),
        )

    # --- what must hold -------------------------------------------------------------------------

    def check(self) -> None:
        """Check that source, lake and target are equal and that nothing else is left."""
        here = self.rows_of_source()
        assert self.rows_of_lake() == here
        assert self.rows_of_target() == here
        self.check_landing()
        self.check_tidy()

    def rows_of_source(self) -> list[Row]:
        """Return all rows of the source, by id."""
        return self.source.execute(f"SELECT {_ROW} FROM {self.table} ORDER BY id").fetchall()

    def rows_of_target(self) -> list[Row]:
        """Return all rows of the target, by id."""
        query = f"SELECT {_ROW} FROM kills.{self.table} ORDER BY id"
        return self.warehouse.execute(query).fetchall()

    def rows_of_lake(self) -> list[Row]:
        """Return all rows of the lake table, by id."""
        files = DeltaTable(self._lake).file_uris()
        return _query(f"SELECT {_ROW} FROM {_parquet(files)} ORDER BY id")

    def check_landing(self) -> None:
        """One manifest a number, each following the last; its files whole; replayed, the lake."""
        previous, landings, rows = "", set(), dict[int, Row]()
        for number, path in enumerate(self._manifests(), start=1):
            data = path.read_bytes()
            manifest = json.loads(data)
            assert path.name == f"{number:010d}.json"
            assert (manifest["number"], manifest["previous"]) == (number, previous)
            previous = hashlib.sha256(data).hexdigest()
            landings.add(manifest["landing"])
            for part in manifest["parts"]:
                rows = self._replayed(rows, part)
        assert len(landings) == 1
        assert [rows[key] for key in sorted(rows)] == self.rows_of_lake()

    def check_tidy(self) -> None:
        """No files but those of batches; no staging table, once the server knows who is dead."""
        batches = {
            f"{number:010d}-{json.loads(path.read_bytes())['attempt']}"
            for number, path in enumerate(self._manifests(), start=1)
        }
        assert {path.name for path in (self._landing / "data").iterdir()} == batches
        until = time.monotonic() + 20
        while self.staged() and time.monotonic() < until:
            time.sleep(0.2)
            self._well()
        assert self.staged() == []

    def staged(self) -> list[str]:
        """Return the names of all staging tables."""
        found = self.warehouse.execute(
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = 'naviglio' AND starts_with(relname, 's_') AND relkind = 'r'"
        )
        return [name for (name,) in found]

    # --- inner ----------------------------------------------------------------------------------

    @property
    def _landing(self) -> Path:
        return Path(self.errand.folder, "landing", "kills", self.table)

    @property
    def _lake(self) -> str:
        return str(Path(self.errand.folder, "lake", "kills", self.table))

    def _manifests(self) -> list[Path]:
        """Return the manifests that anybody can see, by number."""
        found = (self._landing / "manifests").iterdir()
        return sorted(path for path in found if re.fullmatch(r"\d{10}\.json", path.name))

    def _replayed(self, rows: dict[int, Row], part: Mapping[str, Any]) -> dict[int, Row]:
        if part["kind"] == "snapshot":
            rows = {}
        for window in part["windows"]:
            start, end = (datetime.fromisoformat(window[side]) for side in ("start", "end"))
            rows = {key: row for key, row in rows.items() if not start <= row[1] < end}
        for file in part["files"]:
            path = self._landing / file["path"]
            data = path.read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
            change = "_op" if part["kind"] == "stream" else "'upsert'"
            for *row, op in _query(f"SELECT {_ROW}, {change} FROM {_parquet([str(path)])}"):
                if op == "upsert":
                    rows[row[0]] = tuple(row)
                else:
                    rows.pop(row[0], None)
        return rows


def may_retry(error: NaviglioError | None) -> bool:
    """Whether a run ended well, or with what trying again mends."""
    return error is None or isinstance(error, RetryableError)


def _query(query: str) -> list[Row]:
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.execute("SET TimeZone = 'UTC'")
        return engine.sql(query).fetchall()


def _parquet(files: list[str]) -> str:
    return f"read_parquet({files!r}, union_by_name = true, hive_partitioning = false)"
