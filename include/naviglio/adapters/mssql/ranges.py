"""Key ranges of a staging: where to cut it, and how many rows each has."""

from __future__ import annotations

from naviglio.adapters.mssql.merge import Merge, as_text, aside, in_range, staged
from naviglio.adapters.mssql.sql import quote


def cuts(merge: Merge, parts: int) -> str:
    """Return the query of the first key column's values that part the staged rows evenly."""
    key = quote(merge.schema.key[0])
    rows, place, all_ = (
        staged(merge, names=merge.schema.key[:1]), aside(merge, "_place"), aside(merge, "_rows"),
    )  # fmt: skip
    return (
        f"SELECT {as_text(f'q.{key}')} FROM (SELECT DISTINCT p.{key} FROM (SELECT r.{key},"
        f" ROW_NUMBER() OVER (ORDER BY r.{key}) AS {place},"
        f" COUNT_BIG(*) OVER () AS {all_} FROM ({rows}) AS r) AS p"
        f" WHERE p.{place} % (p.{all_} / {parts} + 1) = 0) AS q"
        f" ORDER BY q.{key}"
    )


def count_range(merge: Merge) -> str:
    """Return the query that counts the living rows of a merge's range."""
    alive = staged(merge, alive=True, names=merge.schema.key[:1])
    where = in_range(merge, "r")
    return f"SELECT COUNT_BIG(*) FROM ({alive}) AS r" + (where and f" WHERE {where}")
