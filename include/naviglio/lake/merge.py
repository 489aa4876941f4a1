"""The SQL of a lake table's MERGE: pure functions, in the dialect of delta-rs (DataFusion)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

from naviglio.model import BEYOND, Column, TableSchema, Window
from naviglio.storage.engine import quoted

_INSTANT = 'Timestamp(Microsecond, Some("UTC"))'


def exact(side: str, column: Column) -> str:
    """Return a column so that `=` tells its bytes apart: for floats -0.0 = 0.0, for text not."""
    name = f"{side}.{quoted(column.name)}"
    return f"CAST({name} AS VARCHAR)" if column.carrier in ("float", "double") else name


def same_key(schema: TableSchema) -> str:
    """Whether target `t` and source `s` have the same key."""
    columns = (schema.column(name) for name in schema.key)
    return " AND ".join(f"({exact('t', c)} = {exact('s', c)})" for c in columns)


def within(column: Column, low: object, high: object) -> str | None:
    """Return that the target's `column` is in [low, high]; None for carriers left alone.

    Narrows the files that a MERGE opens: their statistics hold the column's bounds.
    """
    if column.carrier == "bool" or not isinstance(low, int | date):
        return None
    if not isinstance(high, int | date):
        return None
    name = f"t.{quoted(column.name)}"
    return f"({name} >= {_literal(column, low)}) AND ({name} <= {_literal(column, high)})"


def differs(schema: TableSchema) -> str:
    """Whether any value of `t` and `s` differs byte for byte."""
    beyond = f"(t.{quoted(BEYOND)} IS DISTINCT FROM s.{quoted(BEYOND)})"
    columns = (c for c in schema.columns if c.name not in schema.key)
    # Each comparison in parentheses: `a IS DISTINCT FROM b OR c` compares with (b OR c).
    found = [f"({exact('t', c)} IS DISTINCT FROM {exact('s', c)})" for c in columns]
    return " OR ".join([*found, beyond])


def values(schema: TableSchema) -> dict[str, str]:
    """Return the assignments of an update or insert."""
    return {quoted(n): f"s.{quoted(n)}" for n in (*schema.names, BEYOND)}


def in_windows(event_time: Column, windows: Iterable[Window], side: str = "t.") -> str:
    """Whether the target's event time is in one of `windows`; times without a zone count as UTC."""
    name = f"{side}{quoted(event_time.name)}"
    spans = ((_literal(event_time, w.start), _literal(event_time, w.end)) for w in windows)
    return " OR ".join(f"(({name} >= {start}) AND ({name} < {end}))" for start, end in spans)


def _literal(column: Column, value: int | date) -> str:
    if not isinstance(value, date):
        return str(value)
    if not isinstance(value, datetime):
        return f"CAST('{value.isoformat()}' AS DATE)"
    moment = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    kind = _INSTANT if "tz=" in column.carrier else "Timestamp(Microsecond, None)"
    return f"arrow_cast('{moment.isoformat()}', '{kind}')"
