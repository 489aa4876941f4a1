"""Whether a table of the target can take the rows of a logical schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mssql_python import Connection

from naviglio import refusals
from naviglio.adapters.mssql.ddl import holds, spelled, target_type
from naviglio.adapters.mssql.sql import DEFAULT_SCHEMA
from naviglio.errors import ConfigError
from naviglio.model import Column, TableName, TableSchema

PROPERTY = "naviglio"  # its name
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "ALTER")


@dataclass(frozen=True, kw_only=True)
class FoundColumn:
    """A column of a table in the target, as the catalogue has it."""

    name: str
    spelled: str  # the type with its modifiers
    collation: str | None
    nullable: bool
    required: bool  # an insert that leaves it out fails
    computed: bool  # an insert can't set it


@dataclass(frozen=True, kw_only=True)
class Found:
    """A table of the target, as the catalogue has it."""

    id: int
    kind: str
    comment: str
    lacking_rights: tuple[str, ...]
    folds: bool  # the database takes names that differ in case for one
    unique: tuple[frozenset[str], ...]  # columns of each unique index that holds for every row
    columns: tuple[FoundColumn, ...]

    @cached_property
    def _by_name(self) -> Mapping[str, FoundColumn]:
        return {self._fold(column.name): column for column in self.columns}

    def column(self, name: str) -> FoundColumn | None:
        """Return the column that the server takes for `name`."""
        return self._by_name.get(self._fold(name))

    def lacks(self, schema: TableSchema) -> list[Column]:
        """Return the columns of `schema` that the table does not have."""
        return [column for column in schema.columns if self.column(column.name) is None]

    def has_key(self, schema: TableSchema) -> bool:
        """Tell whether a unique index stands on exactly the key."""
        key = {self._fold(name) for name in schema.key}
        return any({self._fold(name) for name in names} == key for names in self.unique)

    def _fold(self, name: str) -> str:
        return name.casefold() if self.folds else name


TABLE = f"""
SELECT o.object_id, RTRIM(o.type), COALESCE(CAST(p.value AS nvarchar(400)), N''),
       CASE WHEN N'a' = N'A' THEN 1 ELSE 0 END,
       HAS_PERMS_BY_NAME(QUOTENAME(n.name) + N'.' + QUOTENAME(o.name), N'OBJECT', N'SELECT'),
       HAS_PERMS_BY_NAME(QUOTENAME(n.name) + N'.' + QUOTENAME(o.name), N'OBJECT', N'INSERT'),
       HAS_PERMS_BY_NAME(QUOTENAME(n.name) + N'.' + QUOTENAME(o.name), N'OBJECT', N'UPDATE'),
       HAS_PERMS_BY_NAME(QUOTENAME(n.name) + N'.' + QUOTENAME(o.name), N'OBJECT', N'DELETE'),
       HAS_PERMS_BY_NAME(QUOTENAME(n.name) + N'.' + QUOTENAME(o.name), N'OBJECT', N'ALTER')
FROM sys.objects AS o
JOIN sys.schemas AS n ON n.schema_id = o.schema_id
LEFT JOIN sys.extended_properties AS p
  ON p.class = 1 AND p.major_id = o.object_id AND p.minor_id = 0 AND p.name = N'{PROPERTY}'
WHERE n.name = ? AND o.name = ?
"""
COLUMNS = """
SELECT c.name, b.name, c.max_length, c.precision, c.scale, c.collation_name, c.is_nullable,
       CASE WHEN c.is_nullable = 0 AND c.default_object_id = 0 AND c.is_identity = 0
            AND c.is_computed = 0 AND c.generated_always_type = 0 AND b.name <> N'timestamp'
            THEN 1 ELSE 0 END,
       CASE WHEN c.is_computed = 1 OR c.is_identity = 1 OR c.generated_always_type <> 0
            OR b.name = N'timestamp' THEN 1 ELSE 0 END
FROM sys.columns AS c
LEFT JOIN sys.types AS b ON b.user_type_id = c.system_type_id
WHERE c.object_id = ?
ORDER BY c.column_id
"""
UNIQUE = """
SELECT i.index_id, c.name
FROM sys.indexes AS i
JOIN sys.index_columns AS k
  ON k.object_id = i.object_id AND k.index_id = i.index_id AND k.key_ordinal > 0
JOIN sys.columns AS c ON c.object_id = i.object_id AND c.column_id = k.column_id
WHERE i.object_id = ? AND i.is_unique = 1 AND i.is_disabled = 0 AND i.has_filter = 0
  AND i.ignore_dup_key = 0
ORDER BY i.index_id
"""
FOLDS = "SELECT CASE WHEN N'a' = N'A' THEN 1 ELSE 0 END"
MAY_CREATE = """
SELECT CASE WHEN SCHEMA_ID(?) IS NULL
            THEN HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'CREATE SCHEMA')
            ELSE HAS_PERMS_BY_NAME(QUOTENAME(?), N'SCHEMA', N'ALTER') END,
       HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'CREATE TABLE')
"""


def find(connection: Connection, target: TableName) -> Found | None:
    """Read what the catalogue says of a table; None when it is absent."""
    name = (target.schema or DEFAULT_SCHEMA, target.table)
    table = rows(connection, TABLE, *name)
    if not table:
        return None
    object_id, kind, comment, folds, *rights = table[0]
    unique: dict[int, set[str]] = {}
    for index_id, column in rows(connection, UNIQUE, object_id):
        unique.setdefault(index_id, set()).add(column)
    return Found(
        id=object_id, kind=kind, comment=comment, folds=bool(folds),
        lacking_rights=tuple(r for r, has in zip(_RIGHTS, rights, strict=True) if not has),
        unique=tuple(map(frozenset, unique.values())),
        columns=tuple(map(_column, rows(connection, COLUMNS, object_id))),
    )  # fmt: skip


def made(connection: Connection, target: TableName) -> Found:
    """Read what the catalogue says of a table that was just created."""
    found = find(connection, target)
    if found is None:
        raise refusals.not_made(target)
    return found


def may_create(connection: Connection, schema: str) -> bool:
    """Tell whether the login may create a table in the schema, or the schema where it is absent."""
    return [tuple(row) for row in rows(connection, MAY_CREATE, schema, schema)] == [(1, 1)]


def rows(connection: Connection, query: str, *bound: object) -> list[tuple[Any, ...]]:
    """Return all rows of a query."""
    cursor = connection.cursor()
    try:
        found = cursor.execute(query, bound) if bound else cursor.execute(query)
        return [tuple(row) for row in found.fetchall()]
    finally:
        cursor.close()


def misfits(found: Found, schema: TableSchema) -> list[str]:
    """Return what keeps a table from taking the rows, each with what to do; empty when nothing."""
    if found.kind != "U":
        return ["it is a view or another object. Name an ordinary table"]
    problems = []
    lacks = found.lacks(schema)
    needed = {*_RIGHTS} if lacks else {*_RIGHTS} - {"ALTER"}
    if lacking := [right for right in found.lacking_rights if right in needed]:
        problems.append(f"the login lacks {', '.join(lacking)} on it. Grant the rights")
    if not found.has_key(schema):
        problems.append(
            f"it has no unique index on exactly its key ({', '.join(schema.key)}), without a filter"
            " or IGNORE_DUP_KEY. Create one"
        )
    return problems + _columns_that_misfit(found, schema)


def refuse_alike(connection: Connection, schema: TableSchema) -> None:
    """Refuse columns that are one to a database that ignores the case of names."""
    seen: dict[str, str] = {}
    for name in schema.names:
        other = seen.setdefault(name.casefold(), name)
        if other != name and rows(connection, FOLDS) == [(1,)]:
            raise ConfigError(
                f"columns {other!r} and {name!r} are one to this database, whose collation ignores "
                "case. Rename one at the source, or load into a database that tells them apart."
            )


def refuse_misfit(target: TableName, found: Found, schema: TableSchema) -> None:
    """Refuse a table that can't take the rows, and tell all that keeps it from it."""
    if problems := misfits(found, schema):
        raise refusals.misfit(target, problems)


def _column(row: tuple[Any, ...]) -> FoundColumn:
    name, base, max_length, precision, scale, collation, nullable, required, computed = row
    return FoundColumn(
        name=name, spelled=spelled(base or "a type of its own", max_length, precision, scale),
        collation=collation, nullable=bool(nullable), required=bool(required),
        computed=bool(computed),
    )  # fmt: skip


def _columns_that_misfit(found: Found, schema: TableSchema) -> list[str]:
    problems, known = [], set()
    for column in schema.columns:
        has = found.column(column.name)
        if has is None:
            continue
        known.add(has.name)
        key = column.name in schema.key
        if has.computed:
            problems.append(refusals.computed(has.name))
        elif not holds(has.spelled, column, key=key):
            problems.append(refusals.narrower(has.name, has.spelled, target_type(column, key=key)))
    problems += [
        refusals.required(column.name)
        for column in found.columns
        if column.required and column.name not in known
    ]
    return problems
