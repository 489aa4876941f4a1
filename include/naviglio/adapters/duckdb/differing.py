"""Rows that differ, found once by one join; then deleted, updated in what changed, and inserted.

A row that is stored as it is staged stays untouched, and so does a column in which no row differs:
`MERGE INTO` sets each column of each matched row, and its time goes by how many it sets.
"""

from __future__ import annotations

from collections.abc import Sequence

from naviglio.adapters.duckdb.merge import Merge, changes, changing, differs, same_key
from naviglio.adapters.duckdb.sql import columns, literal, quote
from naviglio.model import OP, UPSERT

_WORK = f"{quote('temp')}.{quote('main')}.{quote('naviglio_work')}"


def find_work(merge: Merge, *, fold: bool) -> str:
    """Return the statement that keeps what must change.

    Of a row its `place` in the target, whether it is `alive`, its values c1, c2 ... and, of those
    that may change, whether they differ: d1, d2 ...; no name of a user can be one of these.
    """
    alive = "true" if merge.whole else f"s.{quote(OP)} = {literal(UPSERT)}"
    values = [f"s.{quote(n)} AS c{i}" for i, n in enumerate(merge.schema.names, 1)]
    flags = [f"{differs(merge, name)} AS {flag}" for name, flag in _flags(merge).items()]
    staged = changes(merge, fold=fold)
    found = (
        f"SELECT t.rowid AS place, {alive} AS alive, {', '.join([*values, *flags])}"
        f" FROM ({staged}) AS s LEFT JOIN {merge.target} AS t ON {same_key(merge)}"
    )
    changed = " OR ".join(_flags(merge).values()) or "false"
    found = (
        f"SELECT * FROM ({found}) WHERE CASE WHEN place IS NULL THEN alive"
        f" ELSE NOT alive OR {changed} END"
    )
    if merge.whole:
        found += (
            " UNION ALL BY NAME SELECT t.rowid AS place, false AS alive"
            f" FROM {merge.target} AS t ANTI JOIN ({staged}) AS s ON {same_key(merge)}"
        )
    return f"CREATE OR REPLACE TEMP TABLE {_WORK} AS {found}"


def count_work(merge: Merge) -> str:
    """Return the query of the rows to insert, update and delete, then whether columns change."""
    updated = "alive AND place IS NOT NULL"
    flags = [f"coalesce(bool_or({f}) FILTER ({updated}), false)" for f in _flags(merge).values()]
    counts = [
        f"count(*) FILTER ({one})" for one in ("alive AND place IS NULL", updated, "NOT alive")
    ]
    return f"SELECT {', '.join([*counts, *flags])} FROM {_WORK}"


def delete_gone(merge: Merge) -> str:
    """Return the statement that deletes the rows that go."""
    return f"DELETE FROM {merge.target} WHERE rowid IN (SELECT place FROM {_WORK} WHERE NOT alive)"


def update_changed(merge: Merge, names: Sequence[str]) -> str:
    """Return the statement that sets the columns `names` of the rows that differ."""
    place = {name: i for i, name in enumerate(merge.schema.names, 1)}
    new = ", ".join(f"{quote(name)} = w.c{place[name]}" for name in names)
    return (
        f"UPDATE {merge.target} AS t SET {new} FROM {_WORK} AS w"
        " WHERE t.rowid = w.place AND w.alive"
    )


def insert_new(merge: Merge) -> str:
    """Return the statement that inserts the rows that come."""
    names = merge.schema.names
    listed = ", ".join(f"c{i}" for i in range(1, len(names) + 1))
    return (
        f"INSERT INTO {merge.target} ({columns(names)}) SELECT {listed} FROM {_WORK}"
        " WHERE alive AND place IS NULL"
    )


def drop_work() -> str:
    """Return the statement that drops what was kept."""
    return f"DROP TABLE IF EXISTS {_WORK}"


def _flags(merge: Merge) -> dict[str, str]:
    return {name: f"d{i}" for i, name in enumerate(changing(merge), 1)}
