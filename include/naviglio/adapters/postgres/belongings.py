"""What belongs to a table besides its rows: carried to the table that takes its place, or named.

Carried: owner, grants, comments, defaults, checks, generated columns, indexes, primary key and
unique constraints. All else that the server knows to depend on the table is named as it names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from naviglio.adapters.postgres.sql import literal, quote

LIKE = (
    "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE"
    " INCLUDING COMPRESSION INCLUDING COMMENTS"
)
_INDEX = """
SELECT x.indexrelid, x.indisunique AS unique, x.indisvalid, x.indisclustered, c.reltablespace,
       c.relname AS name, coalesce(k.contype::text, '') AS constraint,
       pg_get_indexdef(x.indexrelid) AS def,
       format('CREATE %%sINDEX %%I ON %%I.%%I',
              CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END,
              c.relname, n.nspname, t.relname) AS prefix
FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.conrelid = t.oid
WHERE t.oid = %(oid)s
"""
_INDEXES = f"""
SELECT name, "unique", "constraint", substr(def, length(prefix) + 1) AS rest
FROM ({_INDEX}) i ORDER BY name
"""
_LOST = f"""
WITH t AS (
  SELECT c.*, y.typarray FROM pg_class c JOIN pg_type y ON y.oid = c.reltype WHERE c.oid = %(oid)s
), i AS ({_INDEX}), k AS (
  SELECT k.*, k.contype IN ('c', 'n', 'p', 'u') AND NOT k.condeferrable AS carried
  FROM pg_constraint k JOIN t ON k.conrelid = t.oid
), own AS (
  SELECT 'pg_class'::regclass AS class, unnest(ARRAY[t.oid, t.reltoastrelid]) AS oid FROM t
  UNION ALL SELECT 'pg_class'::regclass, x.indexrelid FROM pg_index x, t
  WHERE x.indrelid IN (t.oid, t.reltoastrelid)
  UNION ALL SELECT 'pg_type'::regclass, unnest(ARRAY[t.reltype, t.typarray]) FROM t
  UNION ALL SELECT 'pg_attrdef'::regclass, d.oid FROM pg_attrdef d JOIN t ON d.adrelid = t.oid
  UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM k WHERE carried
)
SELECT DISTINCT told FROM (
  SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS told
  FROM pg_depend d JOIN own ON d.refclassid = own.class AND d.refobjid = own.oid
  WHERE NOT EXISTS (SELECT FROM own o WHERE o.class = d.classid AND o.oid = d.objid)
  UNION ALL
  SELECT pg_describe_object('pg_constraint'::regclass, k.oid, 0) FROM k WHERE NOT carried
  UNION ALL SELECT 'row security' FROM t WHERE relrowsecurity OR relforcerowsecurity
  UNION ALL SELECT 'its replica identity' FROM t WHERE relreplident <> 'd'
  UNION ALL SELECT 'its storage parameters' FROM t WHERE reloptions IS NOT NULL
  UNION ALL SELECT 'its tablespace' FROM t WHERE reltablespace <> 0
  UNION ALL SELECT 'that it is not logged' FROM t WHERE relpersistence <> 'p'
  UNION ALL SELECT 'its type' FROM t WHERE reloftype <> 0
  UNION ALL SELECT 'its parent table' FROM pg_inherits h JOIN t ON h.inhrelid = t.oid
  UNION ALL SELECT 'its security label' FROM pg_seclabel s JOIN t ON s.objoid = t.oid
  UNION ALL SELECT 'its owner ' || quote_ident(pg_get_userbyid(relowner)) FROM t
  WHERE NOT pg_has_role(relowner, 'USAGE')
  UNION ALL SELECT 'the settings of column ' || quote_ident(attname)
  FROM pg_attribute a JOIN t ON a.attrelid = t.oid
  WHERE attnum > 0 AND NOT attisdropped
    AND (attoptions IS NOT NULL OR coalesce(attstattarget, -1) >= 0)
  UNION ALL SELECT 'the settings of index ' || quote_ident(name) FROM i
  WHERE NOT indisvalid OR indisclustered OR reltablespace <> 0 OR NOT starts_with(def, prefix)
     OR EXISTS (SELECT FROM pg_description d WHERE d.objoid = i.indexrelid)
) lost ORDER BY told
"""
_SHAPE = """
SELECT md5(concat_ws(chr(10),
  (SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull,
          attcollation, attgenerated, attstorage, attcompression,
          pg_get_expr(d.adbin, d.adrelid)), ',' ORDER BY attnum)
   FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE a.attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped),
  (SELECT string_agg(pg_get_indexdef(indexrelid), ',' ORDER BY indexrelid)
   FROM pg_index WHERE indrelid = %(oid)s),
  (SELECT string_agg(conname || ' ' || pg_get_constraintdef(oid), ',' ORDER BY conname)
   FROM pg_constraint WHERE conrelid = %(oid)s)))
"""
_OWNER = """
SELECT quote_ident(r.rolname), obj_description(c.oid, 'pg_class'), c.relacl IS NOT NULL
FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = %s
"""
_GRANTS = """
SELECT a.privilege_type || p.column, CASE WHEN a.grantee = 0 THEN 'PUBLIC'
       ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM (SELECT relacl AS acl, '' AS column FROM pg_class WHERE oid = %(oid)s
      UNION ALL SELECT attacl, ' (' || quote_ident(attname) || ')' FROM pg_attribute
      WHERE attrelid = %(oid)s AND NOT attisdropped) p, aclexplode(p.acl) a
"""


@dataclass(frozen=True, kw_only=True)
class Index:
    """An index; `rest` is its definition behind the table's name."""

    name: str
    unique: bool
    constraint: str  # p, u, or empty
    rest: str


def lost(connection: psycopg.Connection, oid: int) -> list[str]:
    """Return what a table that takes this one's place would not have, as the server names it."""
    found = connection.execute(_LOST.encode(), {"oid": oid})
    return [told for (told,) in found]


def shape(connection: psycopg.Connection, oid: int) -> str:
    """Return a mark of all that is carried into the new table while it is made."""
    found = connection.execute(_SHAPE.encode(), {"oid": oid}).fetchone()
    return str(found[0]) if found else ""


def indexes(connection: psycopg.Connection, oid: int) -> list[Index]:
    """Return the indexes of a table, by name."""
    with connection.cursor(row_factory=class_row(Index)) as cursor:
        return list(cursor.execute(_INDEXES.encode(), {"oid": oid}))


def grants(connection: psycopg.Connection, oid: int, name: str) -> Iterator[str]:
    """Yield the statements that give `name` (quoted) the comment, owner and grants of `oid`."""
    found = connection.execute(_OWNER, (oid,)).fetchone()
    owner, comment, granted = found or ("", None, False)
    if comment is not None:
        yield f"COMMENT ON TABLE {name} IS {literal(comment)}"
    yield f"ALTER TABLE {name} OWNER TO {owner}"
    if granted:
        yield f"REVOKE ALL ON {name} FROM PUBLIC, {owner}"
    for right, grantee, option in connection.execute(_GRANTS, {"oid": oid}).fetchall():
        yield f"GRANT {right} ON {name} TO {grantee}{option}"


def create_index(index: Index, temporary: str, name: str) -> str:
    """Return the statement that makes an index like `index` on another table (`name` is quoted)."""
    unique = "UNIQUE " if index.unique else ""
    return f"CREATE {unique}INDEX {quote(temporary)} ON {name}{index.rest}"


def name_index(index: Index, temporary: str, schema: str, name: str) -> str:
    """Return the statement that gives such an index its name, and its constraint."""
    if not index.constraint:
        return f"ALTER INDEX {quote(schema)}.{quote(temporary)} RENAME TO {quote(index.name)}"
    kind = "PRIMARY KEY" if index.constraint == "p" else "UNIQUE"
    return (
        f"ALTER TABLE {name} ADD CONSTRAINT {quote(index.name)} {kind} USING INDEX"
        f" {quote(temporary)}"
    )
