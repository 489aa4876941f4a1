"""Play the next days: one transaction a step, with the simulated calendar moved in it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta

import psycopg
from psycopg import sql

from naviglio.demo import data
from naviglio.demo.plan import Change, Operation, Step, steps
from naviglio.demo.schema import KEYS
from naviglio.demo.seed import connect
from naviglio.errors import ConfigError, DataError


@dataclass(kw_only=True)
class DayReport:
    """What this call committed of one day.

    `counts` holds rows by (table, operation), the operation being insert, update or delete; a row
    updated twice counts twice.
    """

    day: date
    counts: Counter[tuple[str, Operation]] = field(default_factory=Counter)
    seconds: float = 0.0


def _silent(_day: date, _step: str) -> None:
    pass


def advance(
    url: str, days: int, *, after_step: Callable[[date, str], None] = _silent
) -> list[DayReport]:
    """Play the next `days` days and return what each one changed.

    Every step is its own transaction and moves the calendar in it. A call that was killed loses
    nothing: the next one goes on with the next step; two calls at once take turns. `after_step`
    is called after each commit with the day and the step's name. Same days, same rows, always,
    but for `modified_at`. A day that the data lacks is refused before anything is played.
    """
    if days < 1:
        raise ConfigError(f"demo advance: cannot play {days} days. Give 1 or more.")
    reports: dict[date, DayReport] = {}
    with connect(url) as connection:
        last = _last_day(connection, days)
        started = time.monotonic()
        while (played := _play_next(connection, last)) is not None:
            day, step, counts = played
            report = reports.setdefault(day, DayReport(day=day))
            report.counts.update(counts)
            report.seconds += time.monotonic() - started
            after_step(day, step.name)
            started = time.monotonic()
    return list(reports.values())


def _last_day(connection: psycopg.Connection, days: int) -> date:
    """Return the day up to which to play."""
    try:
        row = connection.execute("select day from demo_clock").fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    if row is None:
        raise DataError(
            "demo advance: not seeded yet. Begin with `naviglio demo seed --until 2013-01-07`."
        )
    left = (data.LAST_DAY - row[0]).days
    if days > left:
        raise DataError(
            f"demo advance: cannot play {days} days after {row[0]}: the data ends with "
            f"{data.LAST_DAY}, days left: {left}. Play fewer, or start again with "
            "`naviglio demo seed --reset`."
        )
    last: date = row[0] + timedelta(days=days)
    return last


def _play_next(
    connection: psycopg.Connection, last: date
) -> tuple[date, Step, Counter[tuple[str, Operation]]] | None:
    """Commit the next step, whoever played the one before; None when `last` is played in full."""
    with connection.transaction():
        row = connection.execute("select day, steps from demo_clock for update").fetchone()
        if row is None or row[0] >= last:
            return None
        day, done = row[0] + timedelta(days=1), row[1]
        plan = steps(day)
        step = plan[done]
        counts: Counter[tuple[str, Operation]] = Counter()
        for change in step.changes:
            counts[change.table, change.operation] += _apply(connection, change)
        if done + 1 < len(plan):
            connection.execute("update demo_clock set steps = steps + 1")
        else:
            connection.execute("update demo_clock set day = %s, steps = 0", [day])
        return day, step, counts


def _apply(connection: psycopg.Connection, change: Change) -> int:
    rows = json.dumps(change.rows, default=str)
    return connection.execute(statement(change), [rows]).rowcount


def statement(change: Change) -> sql.Composed:
    """Return the one statement of a change; its parameter is the rows as a JSON array.

    The table's own row type gives the values their types, so no type is named here.
    """
    key = KEYS[change.table]
    columns = list(change.rows[0])
    values = [column for column in columns if column not in key]
    template = {
        "insert": "insert into {table} ({columns}) select {columns} from {rows}",
        "update": "update {table} as old set {values} from {rows} where {same}",
        "delete": "delete from {table} as old using {rows} where {same}",
    }[change.operation]
    table = sql.Identifier(change.table)
    comma, equal = sql.SQL(", "), sql.SQL("{0} = new.{0}")
    return sql.SQL(template).format(
        table=table,
        rows=sql.SQL("jsonb_populate_recordset(null::{}, %s) as new").format(table),
        columns=comma.join(map(sql.Identifier, columns)),
        values=comma.join(equal.format(sql.Identifier(column)) for column in values),
        same=sql.SQL(" and ").join(
            sql.SQL("old.{0} = new.{0}").format(sql.Identifier(column)) for column in key
        ),
    )
