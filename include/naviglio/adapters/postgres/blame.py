"""Which staged row the server refused: it often doesn't tell.

After the merge was rolled back, the staged rows are tried against an empty probe, a table like the
target, half by half, until one row is left. The probe never outlives the search, and no value but
the key's is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import psycopg

from naviglio import refusals
from naviglio.adapters.postgres import merge as sql
from naviglio.adapters.postgres.errors import is_about_rows, said
from naviglio.adapters.postgres.fit import Found
from naviglio.adapters.postgres.sql import columns, quote, table
from naviglio.described import RESPELLED
from naviglio.errors import DataError
from naviglio.model import TableSchema

_PAIRS = ("21000", "23505")  # two rows of one key, or of one unique value
_VALUE = "22"  # a value that its column's type can't hold
_PAGE = 1024  # more than the rows of a page
_LIKE = "CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What the server refused, and the target as it was before (None: the merge created it)."""

    merge: sql.Merge
    before: Found | None
    error: psycopg.Error


def blame(connection: psycopg.Connection, refusal: Refusal) -> DataError:
    """Return the error that names target, column and key of a row that was refused.

    Best effort: what a trigger or a constraint between tables refuses has no key to tell.
    """
    column, key = refusal.error.diag.column_name, None
    with suppress(psycopg.Error), connection.transaction(force_rollback=True):
        if refusal.error.sqlstate in _PAIRS:
            key = _pair(connection, refusal)
        else:
            column, key = _alone(connection, refusal)
    which = f"; key ({key})" if key else ""
    return refusals.refused(str(refusal.merge.target), column, said(refusal.error), which)


# --- one row that is refused whatever the others are ----------------------------------------------


def _alone(connection: psycopg.Connection, refusal: Refusal) -> tuple[str | None, str | None]:
    merge = refusal.merge
    probe = "pg_temp.probe"  # a role that may only write the target can make one too
    if refusal.before is None:
        connection.execute(sql.create_target(probe, merge.schema))
    else:
        connection.execute(f"CREATE TABLE {probe} (LIKE {table(merge.target)} INCLUDING {_LIKE})")
        if lacking := refusal.before.lacks(merge.schema):
            connection.execute(sql.add_columns(probe, lacking))
    low, high = 0, _pages(connection, merge) * _PAGE
    if not _refused(connection, sql.insert(merge, into=probe, only=_places(low, high))):
        return refusal.error.diag.column_name, None
    while high - low > 1:
        middle = (low + high) // 2
        if _refused(connection, sql.insert(merge, into=probe, only=_places(low, middle))):
            high = middle
        else:
            low = middle
    row = _places(low, high)
    column = refusal.error.diag.column_name or _column(connection, merge, probe, row)
    return column, _key(connection, merge, f"{merge.staging} AS s WHERE {row}")


def _column(connection: psycopg.Connection, merge: sql.Merge, probe: str, row: str) -> str | None:
    """Return the first column whose type can't hold the row's value."""
    for column in merge.schema.columns:
        one = replace(merge, schema=TableSchema(columns=(column,), key=()))
        statement = sql.insert(one, into=probe, only=row)
        if (_refused(connection, statement) or "").startswith(_VALUE):
            return column.name
    return None


def _refused(connection: psycopg.Connection, statement: str) -> str | None:
    """Return the SQLSTATE by which the server refuses the rows, None when it takes them."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)
    except psycopg.Error as error:
        if is_about_rows(error):
            return error.sqlstate
        raise
    return None


def _pages(connection: psycopg.Connection, merge: sql.Merge) -> int:
    size = "pg_relation_size(%s::regclass) / current_setting('block_size')::int"
    found = connection.execute(f"SELECT {size}", (merge.staging,)).fetchone()
    return int(found[0]) if found else 0


def _places(low: int, high: int) -> str:
    """Return the condition on `s` of the places [low, high) in the staging table."""
    first, last = (f"'({at // _PAGE},{at % _PAGE})'::tid" for at in (low, high))
    return f"s.ctid >= {first} AND s.ctid < {last}"


# --- two rows that exclude each other -------------------------------------------------------------


def blame_twins(connection: psycopg.Connection, merge: sql.Merge) -> DataError:
    """Return the error that names the key of two living rows that are one to the target."""
    key = _twin(connection, merge, merge.schema.key)
    return DataError(
        f"target {str(merge.target)!r}: two rows have one key; key ({key}). Nothing was loaded. "
        f"{RESPELLED}"
    )


def _twin(connection: psycopg.Connection, merge: sql.Merge, names: Sequence[str]) -> str | None:
    """Return the key of a living row that has the same values in some columns as another."""
    listed = ", ".join(sql.value(merge, merge.schema.column(name)) for name in names)
    staged = f"{merge.staging} AS s" + ("" if merge.whole else f" WHERE {sql.upserts(merge)}")
    twins = (
        f"(SELECT {columns(merge.schema.key)}, count(*) OVER (PARTITION BY {listed}), "
        f" num_nulls({listed}) AS nulls FROM {staged}) AS s WHERE s.count > 1 AND s.nulls = 0"
    )
    return _key(connection, merge, twins)


def _pair(connection: psycopg.Connection, refusal: Refusal) -> str | None:
    merge = refusal.merge
    names = _unique_columns(connection, refusal)
    if key := _twin(connection, merge, names):
        return key
    values = [sql.value(merge, merge.schema.column(name)) for name in names]
    same = " AND ".join(f"t.{quote(name)} = {one}" for name, one in zip(names, values, strict=True))
    joined = (
        f"{merge.staging} AS s JOIN {table(merge.target)} AS t"
        f" ON {same} AND NOT ({sql.same_key(merge, 't', 's')})"
    )
    return _key(connection, merge, joined)


def _unique_columns(connection: psycopg.Connection, refusal: Refusal) -> tuple[str, ...]:
    """Return the columns of the violated index; the key's where that index is not known."""
    diag = refusal.error.diag
    found = connection.execute(
        "SELECT a.attname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_index i ON i.indexrelid = c.oid AND i.indexprs IS NULL"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
        " WHERE c.relname = %s AND n.nspname = %s",
        (diag.constraint_name, diag.schema_name),
    )
    names = tuple(name for (name,) in found if name in refusal.merge.schema.names)
    return names or refusal.merge.schema.key


def _key(connection: psycopg.Connection, merge: sql.Merge, rows: str) -> str | None:
    """Return the key of one of the rows as text."""
    names = merge.schema.key
    listed = ", ".join(f"s.{quote(name)}::text" for name in names)
    found = connection.execute(f"SELECT {listed} FROM {rows} LIMIT 1").fetchone()
    if found is None:
        return None
    return ", ".join(f"{name}={one}" for name, one in zip(names, found, strict=True))
