"""Create the operational system and load its past in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from io import BytesIO

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pyarrow import csv

from naviglio.demo import data, schema
from naviglio.errors import ConfigError, DataError, SourceError


@dataclass(frozen=True, kw_only=True)
class SeedReport:
    """What was loaded: rows by table, in the order of loading."""

    until: date
    rows: dict[str, int]
    seconds: float


def _silent(_table: str, _rows: int) -> None:
    pass


def seed(
    url: str,
    until: date,
    report: Callable[[str, int], None] = _silent,
    *,
    reset: bool = False,
) -> SeedReport:
    """Load all days up to `until` (New York days, included) as final, and the registries whole.

    All or nothing, and once: a database that is already seeded is refused with `DataError`, unless
    `reset` is given, which drops the demo's tables first. `report` hears each loaded table.
    """
    if not data.FIRST_DAY <= until <= data.LAST_DAY:
        raise DataError(
            f"demo seed: the data has no day {until}; it has {data.FIRST_DAY} to {data.LAST_DAY}. "
            "Choose one of them for `--until`."
        )
    started = time.monotonic()
    with connect(url) as connection, connection.transaction():
        _create(connection, reset=reset)
        rows = {}
        for name in data.TABLES:
            rows[name] = _copy(connection, name, data.until(name, until))
            report(name, rows[name])
        connection.execute("insert into demo_clock (day) values (%s)", [until])
        connection.execute(schema.INDEX)
    return SeedReport(until=until, rows=rows, seconds=time.monotonic() - started)


def now_playing(url: str) -> date | None:
    """Return the last day that was played (or seeded) in full; None before the first seed."""
    with connect(url) as connection:
        return _day(connection)


@contextmanager
def connect(url: str) -> Iterator[psycopg.Connection]:
    """Connect as the application, in autocommit mode; a refusal is a `SourceError`."""
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its message would quote the URL, password and all
        raise ConfigError(
            "demo: the operational database's URL cannot be read. "
            "Write it as postgresql://user:password@host:port/name."
        ) from None
    try:
        with psycopg.connect(url, autocommit=True, application_name="naviglio-demo") as connection:
            yield connection
    except psycopg.Error as error:
        raise SourceError(
            f"demo: the operational database refused: {str(error).strip()}. "
            "Is it running (`naviglio start`), and is the connection that of the application?"
        ) from error


def _create(connection: psycopg.Connection, *, reset: bool) -> None:
    # Two seeds at once: the second waits here and then finds the first one's tables.
    connection.execute("select pg_advisory_xact_lock(hashtext('naviglio demo seed'))")
    day = _day(connection)
    if day is not None and not reset:
        raise DataError(
            f"demo seed: already seeded, and played until {day}. Play on with `naviglio demo "
            "advance`, or start again with `naviglio demo seed --reset`."
        )
    if day is not None:
        connection.execute(schema.DROP)
    try:
        connection.execute(schema.CREATE)
    except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateFunction) as error:
        raise DataError(
            f"demo seed: {error.diag.message_primary}, and the demo did not make it. "
            "Use an empty database; nothing was changed."
        ) from error


def _day(connection: psycopg.Connection) -> date | None:
    found = connection.execute("select to_regclass('demo_clock')").fetchone()
    if found == (None,):
        return None
    row = connection.execute("select day from demo_clock").fetchone()
    return row[0] if row else None


def _copy(connection: psycopg.Connection, name: str, rows: pa.Table) -> int:
    # Arrow's CSV and COPY agree: NULL is an unquoted nothing, floats have all their digits.
    buffer = BytesIO()
    csv.write_csv(rows, buffer, csv.WriteOptions(include_header=False))
    statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(
        sql.Identifier(name), sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    )
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            copy.write(buffer.getbuffer())
        return cursor.rowcount
