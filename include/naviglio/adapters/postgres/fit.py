"""Whether a table of the target can take the rows of a logical schema."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from naviglio import refusals
from naviglio.adapters.postgres.sql import DEFAULT_SCHEMA
from naviglio.adapters.postgres.types import MOST_SECOND_DIGITS, target_type
from naviglio.model import Column, TableName, TableSchema

_ORDINARY = "r"  # of a partitioned table an upsert can't tell inserted from updated rows
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, kw_only=True)
class FoundColumn:
    """A column of a table in the target, as the catalogue has it."""

    name: str
    spelled: str  # the type with its modifiers
    base: str  # the type without them
    required: bool  # an insert that leaves it out fails
    computed: bool  # an insert can't set it


@dataclass(frozen=True, kw_only=True)
class Found:
    """A table of the target, as the catalogue has it."""

    kind: str
    comment: str
    owned: bool
    lacking_rights: tuple[str, ...]
    unique: tuple[frozenset[str], ...]  # columns of each index that ON CONFLICT can name
    columns: tuple[FoundColumn, ...]

    @property
    def types(self) -> dict[str, str]:
        """The columns' types without modifiers."""
        return {column.name: column.base for column in self.columns}

    def lacks(self, schema: TableSchema) -> list[Column]:
        """Return the columns of `schema` that the table does not have."""
        names = self.types
        return [column for column in schema.columns if column.name not in names]


_TABLE = """
SELECT c.oid, c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), ''),
       pg_has_role(c.relowner, 'USAGE'),
       array(SELECT r FROM unnest(%(rights)s::text[]) r
             WHERE NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_table_privilege(c.oid, r))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(table)s
"""
_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS spelled,
       format_type(a.atttypid, -1) AS base,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS required,
       a.attgenerated <> '' OR a.attidentity = 'a' AS computed
FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_UNIQUE = """
SELECT array_agg(a.attname::text)
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey[0:i.indnkeyatts - 1]) k
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
GROUP BY i.indexrelid
"""
_MAY_CREATE = """
SELECT CASE WHEN to_regnamespace(quote_ident(%(schema)s)) IS NULL
            THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege(%(schema)s, 'CREATE')
                 AND has_schema_privilege(%(schema)s, 'USAGE')
       END
"""


def find(connection: psycopg.Connection, target: TableName) -> Found | None:
    """Read what the catalogue says of a table; None when it is absent."""
    name = {"schema": target.schema or DEFAULT_SCHEMA, "table": target.table}
    table = connection.execute(_TABLE, {**name, "rights": list(_RIGHTS)}).fetchone()
    if table is None:
        return None
    oid, kind, comment, owned, lacking = table
    with connection.cursor(row_factory=class_row(FoundColumn)) as cursor:
        columns = tuple(cursor.execute(_COLUMNS, (oid,)))
    unique = connection.execute(_UNIQUE, (oid,))
    return Found(
        kind=kind, comment=comment, owned=owned, lacking_rights=tuple(lacking),
        unique=tuple(frozenset(names) for (names,) in unique), columns=columns,
    )  # fmt: skip


def may_create(connection: psycopg.Connection, schema: str) -> bool:
    """Tell whether the role may create a table in the schema, or the schema where it is absent."""
    return connection.execute(_MAY_CREATE, {"schema": schema}).fetchone() == (True,)


def misfits(found: Found, schema: TableSchema) -> list[str]:
    """Return what keeps a table from taking the rows, each with what to do; empty when nothing."""
    if found.kind != _ORDINARY:
        return ["it is a view, or a foreign or partitioned table. Name an ordinary table"]
    problems = []
    if found.lacking_rights:
        problems.append(f"the role lacks {', '.join(found.lacking_rights)} on it. Grant the rights")
    lacks = found.lacks(schema)
    if lacks and not found.owned:
        problems.append(
            f"it has no column {', '.join(repr(c.name) for c in lacks)}, and only the table's owner"
            " may add one. Add the column or make the role a member of the owner"
        )
    if frozenset(schema.key) not in found.unique:
        problems.append(
            f"it has no unique index on exactly its key ({', '.join(schema.key)}). Create one"
        )
    return problems + _columns_that_misfit(found, schema)


def _columns_that_misfit(found: Found, schema: TableSchema) -> list[str]:
    wanted = {column.name: column for column in schema.columns}
    problems = []
    for column in found.columns:
        source = wanted.get(column.name)
        if source is None:
            if column.required:
                problems.append(refusals.required(column.name))
        elif column.computed:
            problems.append(refusals.computed(column.name))
        elif not (_is_same(column.spelled, source) or holds(column.spelled, source)):
            problems.append(refusals.narrower(column.name, column.spelled, target_type(source)))
    return problems


# --- types --------------------------------------------------------------------------------------

_TYPE = re.compile(
    r"(?P<name>.*?) ?(?:\((?P<first>\d+)(?:, ?(?P<second>-?\d+))?\))?"
    r"(?P<zone> with(?:out)? time zone)?"
)
_SPELLED = {  # of target_type, as the catalogue spells them
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "varchar": "character varying",
}
_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}
_WIDER = {
    "smallint": ("smallint", "integer", "bigint"),
    "integer": ("integer", "bigint"),
    "bigint": ("bigint",),
    "real": ("real", "double precision"),
}
_OTHERS = ("money", "xml")  # no source of PostgreSQL says these: another vendor's, of other values


@dataclass(frozen=True)
class _Type:
    name: str
    first: int | None
    second: int

    @classmethod
    def of(cls, text: str) -> _Type:
        match = _TYPE.fullmatch(text)
        if match is None:
            return cls(text, None, 0)
        name = match["name"] + (match["zone"] or "")
        first = int(match["first"]) if match["first"] else None
        return cls(_SPELLED.get(name, name), first, int(match["second"] or 0))


def _is_same(actual: str, column: Column) -> bool:
    """Tell whether a column of the source has this very type."""
    return actual == column.source_type and actual not in _OTHERS


def holds(actual: str, column: Column) -> bool:
    """Tell whether a column of type `actual` (as the catalogue spells it) holds every value."""
    want, have = _Type.of(target_type(column)), _Type.of(actual)
    if have.name == "text":
        return column.carrier == "string"  # carried as text, so text holds it as it is
    if have.name == "numeric":
        return _in_numeric(want, have)
    if want.name in ("text", "character varying"):
        unbounded = have.first is None
        wide = want.first is not None and not unbounded and (have.first or 0) >= want.first
        return have.name == "character varying" and (unbounded or wide)
    if have.name not in _WIDER.get(want.name, (want.name,)):
        return False
    return have.first is None or have.first >= (column.precision or MOST_SECOND_DIGITS)


def _in_numeric(want: _Type, have: _Type) -> bool:
    if want.name not in (*_DIGITS, "numeric"):
        return False
    if have.first is None:
        return True
    digits = _DIGITS.get(want.name, want.first)
    if digits is None:
        return False
    return have.second >= want.second and have.first - have.second >= digits - want.second
