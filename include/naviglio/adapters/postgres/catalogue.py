"""What the server's catalogue says about a table: statements, and their rows as a schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from naviglio.adapters.postgres.sql import DEFAULT_SCHEMA, literal
from naviglio.adapters.postgres.types import CatalogueColumn, can_be_key, kind_of
from naviglio.described import Described, schema_of
from naviglio.model import TableName, TableSchema

LATE = {"m": "a materialized view", "f": "a foreign table"}  # by relkind


def relation(name: TableName) -> str:
    """Return the statement that finds a table: its oid, kind and whether its rows may be read."""
    return (
        "SELECT c.oid::int8 AS oid, c.relkind::text AS kind, "
        "has_schema_privilege(n.oid, 'USAGE') AND (has_table_privilege(c.oid, 'SELECT') "
        "OR NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 "
        "AND NOT a.attisdropped AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT'))) "
        f"AS readable {_from_schema_of(name)} AND c.relname = {literal(name.table)}"
    )


def tables(name: TableName) -> str:
    """Return the statement that lists what the schema of a table holds."""
    return f"SELECT c.relname::text AS name {_from_schema_of(name)} ORDER BY 1 LIMIT 50"


def _from_schema_of(name: TableName) -> str:
    return (
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE n.nspname = {literal(name.schema or DEFAULT_SCHEMA)} "
        "AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
    )


def columns(oid: int) -> str:
    """Return the statement that lists columns in order, domains resolved to their base type."""
    return f"""
WITH RECURSIVE base AS (
  SELECT a.attnum, a.attname, a.atttypid AS oid, a.atttypmod AS typmod, a.attcollation,
    a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid
      AND k.contype = 'n' AND a.attnum = ANY (k.conkey) AND NOT k.convalidated) AS not_null
  FROM pg_attribute a WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT b.attnum, b.attname, t.typbasetype, t.typtypmod, b.attcollation,
    b.not_null OR t.typnotnull
  FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd'
)
SELECT b.attname::text AS name, n.nspname::text AS schema, t.typname::text AS type,
  t.typtype::text AS typtype, format_type(b.oid, b.typmod) AS spelled, b.typmod AS typmod,
  b.not_null AS not_null,
  CASE WHEN b.attcollation <> 100 AND b.attcollation <> 0 AND l.collname <> 'default'
    THEN quote_ident(ln.nspname) || '.' || quote_ident(l.collname) END AS collation,
  en.nspname::text AS element_schema, e.typname::text AS element_type,
  e.typtype::text AS element_typtype
FROM base b JOIN pg_type t ON t.oid = b.oid JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_collation l ON l.oid = b.attcollation
LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
WHERE t.typtype <> 'd' ORDER BY b.attnum"""


def keys(oid: int) -> str:
    """Return the statement that lists unique indexes over columns, the primary key first.

    Only such as hold now for every row: valid, checked at once, without a condition.
    """
    return (
        "SELECT i.indisprimary AS is_primary, "
        "array_to_json(array_agg(a.attname ORDER BY u.place))::text AS names "
        "FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS u (attnum, place), "
        f"pg_attribute a WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid "
        "AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL "
        "AND u.place <= i.indnkeyatts AND a.attrelid = i.indrelid AND a.attnum = u.attnum "
        "GROUP BY i.indexrelid, i.indisprimary ORDER BY i.indisprimary DESC, i.indexrelid"
    )


@dataclass(frozen=True)
class UniqueIndex:
    """A unique index over columns."""

    is_primary: bool
    names: tuple[str, ...]


def unique_index(row: dict[str, Any]) -> UniqueIndex:
    """Return the index of one row of `keys`."""
    return UniqueIndex(is_primary=row["is_primary"], names=tuple(json.loads(row["names"])))


def schema_with_key(
    name: TableName,
    found: Sequence[CatalogueColumn],
    key: Sequence[str],
    unique: Sequence[UniqueIndex],
) -> TableSchema:
    """Return the schema with its key: the declared one, or else the primary key."""
    return schema_of(
        name,
        [
            Described(name=c.name, spelled=c.spelled, column=kind_of(c), fits_key=can_be_key(c))
            for c in found
        ],
        key,
        primary=next((index.names for index in unique if index.is_primary), ()),
        unique=[index.names for index in unique],
    )
