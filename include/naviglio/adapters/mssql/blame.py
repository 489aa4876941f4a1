"""Which staged row the server refused: it doesn't tell.

Asked after the merge was rolled back, from the staging table, which outlives it. No value but the
key's is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import mssql_python
from mssql_python import Connection

from naviglio import refusals
from naviglio.adapters.mssql import merge as sql
from naviglio.adapters.mssql.errors import column_of, constraint_of, said
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.sql import quote, table
from naviglio.errors import DataError
from naviglio.model import TableName

CHECK = """
SELECT k.definition
FROM sys.check_constraints AS k
WHERE k.parent_object_id = OBJECT_ID(?) AND k.name = ?
"""
UNIQUE = """
SELECT c.name
FROM sys.indexes AS i
JOIN sys.index_columns AS k
  ON k.object_id = i.object_id AND k.index_id = i.index_id AND k.key_ordinal > 0
JOIN sys.columns AS c ON c.object_id = i.object_id AND c.column_id = k.column_id
WHERE i.object_id = OBJECT_ID(?) AND i.name = ? AND i.has_filter = 0
ORDER BY k.key_ordinal
"""
FOREIGN = """
SELECT c.name, n.name, o.name, r.name
FROM sys.foreign_keys AS f
JOIN sys.foreign_key_columns AS k ON k.constraint_object_id = f.object_id
JOIN sys.columns AS c ON c.object_id = k.parent_object_id AND c.column_id = k.parent_column_id
JOIN sys.columns AS r
  ON r.object_id = k.referenced_object_id AND r.column_id = k.referenced_column_id
JOIN sys.objects AS o ON o.object_id = f.referenced_object_id
JOIN sys.schemas AS n ON n.schema_id = o.schema_id
WHERE f.parent_object_id = OBJECT_ID(?) AND f.name = ?
"""


def blame(connection: Connection, merge: sql.Merge, error: mssql_python.Error) -> DataError:
    """Return the error that names target, column or constraint, and key of a refused row.

    Best effort: what a trigger refuses has no key to tell.
    """
    keys: Sequence[object] = ()
    with suppress(mssql_python.Error):
        keys = _keys(connection, merge, constraint_of(error) or "", column_of(error) or "")
    return refusals.refused(str(merge.target), column_of(error), said(error), told(merge, keys))


def told(merge: sql.Merge, *keys: Sequence[object]) -> str:
    """Return keys for a message: `; key (id=7)`, each once; nothing for an empty one."""
    return refusals.keyed(merge.schema.key, *keys)


def where_null(merge: sql.Merge, column: str) -> str:
    """Return the query of a staged row without a value in `column`."""
    return _first(merge, f"s.{quote(column)} IS NULL")


def where_unchecked(merge: sql.Merge, definition: str) -> str:
    """Return the query of a staged row that a CHECK, by the server's own text, refuses."""
    return _first(merge, f"NOT ({definition})")


def where_orphan(merge: sql.Merge, parent: TableName, pairs: Sequence[tuple[str, str]]) -> str:
    """Return the query of a staged row whose parent (child's column, parent's column) is absent."""
    same = " AND ".join(f"p.{quote(theirs)} = s.{quote(mine)}" for mine, theirs in pairs)
    given = " AND ".join(f"s.{quote(mine)} IS NOT NULL" for mine, _ in pairs)
    absent = f"NOT EXISTS (SELECT 1 FROM {table(parent)} AS p WHERE {same})"
    return _first(merge, f"{given} AND {absent}")


def where_taken(merge: sql.Merge, names: Sequence[str]) -> str:
    """Return the query of a staged row whose unique values another row has, staged or stored."""
    key = " AND ".join(f"o.{quote(n)} = s.{quote(n)}" for n in merge.schema.key)
    same = " AND ".join(
        f"(o.{quote(n)} = s.{quote(n)} OR (o.{quote(n)} IS NULL AND s.{quote(n)} IS NULL))"
        for n in names
    )
    others = (f"({sql.staged(merge, alive=True)})", table(merge.target))
    exist = (
        f"EXISTS (SELECT 1 FROM {other} AS o WHERE {same} AND NOT ({key}))" for other in others
    )
    return _first(merge, " OR ".join(exist))


def _first(merge: sql.Merge, condition: str) -> str:
    texts = ", ".join(f"CAST(s.{quote(name)} AS nvarchar(max))" for name in merge.schema.key)
    return f"SELECT TOP (1) {texts} FROM ({sql.staged(merge, alive=True)}) AS s WHERE {condition}"


def _keys(
    connection: Connection, merge: sql.Merge, constraint: str, column: str
) -> Sequence[object]:
    name = table(merge.target)
    for query in _queries(connection, merge, name, constraint, column):
        for key in fetch(connection, query):
            return key
    return ()


def _queries(
    connection: Connection, merge: sql.Merge, name: str, constraint: str, column: str
) -> Sequence[str]:
    if column in merge.schema.names:
        return [where_null(merge, column)]
    constraint = constraint.rpartition(".")[2]
    for (definition,) in fetch(connection, CHECK, name, constraint):
        return [where_unchecked(merge, definition)]
    if unique := [row[0] for row in fetch(connection, UNIQUE, name, constraint)]:
        return [where_taken(merge, unique)] if {*unique} <= {*merge.schema.names} else []
    parents = fetch(connection, FOREIGN, name, constraint)
    if not parents or not {row[0] for row in parents} <= {*merge.schema.names}:
        return []
    parent = TableName(schema=parents[0][1], table=parents[0][2])
    return [where_orphan(merge, parent, [(row[0], row[3]) for row in parents])]
