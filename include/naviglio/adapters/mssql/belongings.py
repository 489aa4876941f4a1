"""What belongs to a table besides its rows: made again on the table that is to give it its rows.

The table itself stays when its rows are swapped, and with it its grants, owner, defaults, extended
properties, views and disabled triggers. `ALTER TABLE ... SWITCH` wants the other table to have the
same columns, indexes, compression and checks. What would be lost, or keeps a table from being
switched into, is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mssql_python import Connection

from naviglio.adapters.mssql.fit import Found, FoundColumn
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.sql import columns, quote

_NAME = "COLLATE DATABASE_DEFAULT"  # catalogues have collations of their own
INDEXES = """
SELECT i.index_id, i.name, i.type, i.is_unique, i.is_primary_key, i.is_unique_constraint,
       i.is_padded, i.fill_factor, COALESCE(i.filter_definition, N''), p.data_compression_desc
FROM sys.indexes AS i
JOIN sys.partitions AS p
  ON p.object_id = i.object_id AND p.index_id = i.index_id AND p.partition_number = 1
WHERE i.object_id = ? AND i.type IN (0, 1, 2) AND i.is_hypothetical = 0 AND i.is_disabled = 0
ORDER BY i.index_id
"""
INDEX_COLUMNS = """
SELECT k.index_id, c.name, k.is_descending_key, k.is_included_column
FROM sys.index_columns AS k
JOIN sys.columns AS c ON c.object_id = k.object_id AND c.column_id = k.column_id
WHERE k.object_id = ?
ORDER BY k.index_id, k.key_ordinal, k.index_column_id
"""
CHECKS = """
SELECT k.definition
FROM sys.check_constraints AS k
WHERE k.parent_object_id = ? AND k.is_disabled = 0
ORDER BY k.object_id
"""
LOST = f"""
SELECT DISTINCT l.told
FROM sys.tables AS t
CROSS APPLY (
  SELECT N'trigger ' + QUOTENAME(g.name) {_NAME} + N', which it would not fire' AS told
  FROM sys.triggers AS g WHERE g.parent_id = t.object_id AND g.is_disabled = 0
  UNION ALL
  SELECT N'foreign key ' + QUOTENAME(f.name) {_NAME}
  FROM sys.foreign_keys AS f
  WHERE f.parent_object_id = t.object_id OR f.referenced_object_id = t.object_id
  UNION ALL
  SELECT N'object ' + QUOTENAME(o.name) {_NAME} + N', which is bound to its schema'
  FROM sys.sql_dependencies AS d JOIN sys.objects AS o ON o.object_id = d.object_id
  WHERE d.class = 1 AND d.referenced_major_id = t.object_id AND o.object_id <> t.object_id
    AND o.parent_object_id <> t.object_id
  UNION ALL
  SELECT N'check constraint ' + QUOTENAME(k.name) {_NAME} + N', which is not trusted'
  FROM sys.check_constraints AS k
  WHERE k.parent_object_id = t.object_id AND (k.is_disabled = 1 OR k.is_not_trusted = 1)
  UNION ALL
  SELECT N'index ' + QUOTENAME(i.name) {_NAME} + N': its kind, or that it is disabled'
  FROM sys.indexes AS i
  WHERE i.object_id = t.object_id AND i.name IS NOT NULL AND i.is_hypothetical = 0
    AND (i.type NOT IN (1, 2) OR i.is_disabled = 1 OR i.ignore_dup_key = 1)
  UNION ALL
  SELECT N'its partitions or filegroup: ' + d.name {_NAME}
  FROM sys.indexes AS i JOIN sys.data_spaces AS d ON d.data_space_id = i.data_space_id
  WHERE i.object_id = t.object_id AND (d.type <> N'FG' OR d.is_default = 0)
  UNION ALL
  SELECT N'its filegroup of large values: ' + d.name {_NAME}
  FROM sys.data_spaces AS d WHERE d.data_space_id = t.lob_data_space_id AND d.is_default = 0
  UNION ALL
  SELECT N'the settings of column ' + QUOTENAME(c.name) {_NAME}
  FROM sys.columns AS c LEFT JOIN sys.types AS b ON b.user_type_id = c.system_type_id
  WHERE c.object_id = t.object_id
    AND (c.is_sparse = 1 OR c.is_rowguidcol = 1 OR c.is_filestream = 1 OR c.is_masked = 1
         OR c.encryption_type IS NOT NULL OR c.xml_collection_id <> 0 OR c.rule_object_id <> 0
         OR c.user_type_id <> c.system_type_id
         OR c.is_ansi_padded = 0 AND b.name IN (N'char', N'varchar', N'binary', N'varbinary'))
  UNION ALL SELECT N'its history (a temporal table)' WHERE t.temporal_type <> 0
  UNION ALL SELECT N'change data capture' WHERE t.is_tracked_by_cdc = 1
  UNION ALL SELECT N'change tracking' FROM sys.change_tracking_tables AS w
  WHERE w.object_id = t.object_id
  UNION ALL SELECT N'replication'
  WHERE t.is_replicated = 1 OR t.is_merge_published = 1 OR t.is_sync_tran_subscribed = 1
     OR t.has_replication_filter = 1
  UNION ALL SELECT N'a full-text index' FROM sys.fulltext_indexes AS w
  WHERE w.object_id = t.object_id
  UNION ALL SELECT N'row level security' FROM sys.security_predicates AS w
  WHERE w.target_object_id = t.object_id
  UNION ALL SELECT N'that it is memory-optimized, external or a file table'
  WHERE t.is_memory_optimized = 1 OR t.is_external = 1 OR t.is_filetable = 1
  UNION ALL SELECT N'how it stores large values'
  WHERE t.text_in_row_limit <> 0 OR t.large_value_types_out_of_row = 1
  UNION ALL SELECT N'that it was made under ANSI_NULLS OFF' WHERE t.uses_ansi_nulls = 0
  UNION ALL SELECT N'what the login may not see (it lacks VIEW DEFINITION on it)'
  WHERE HAS_PERMS_BY_NAME(QUOTENAME(SCHEMA_NAME(t.schema_id)) + N'.' + QUOTENAME(t.name),
                          N'OBJECT', N'VIEW DEFINITION') = 0
) AS l
WHERE t.object_id = ?
ORDER BY l.told
"""
_HEAP, _CLUSTERED = 0, 1


@dataclass(frozen=True, kw_only=True)
class Index:
    """A b-tree of a table, or the heap that it is without a clustered one (no keys)."""

    name: str
    type: int
    unique: bool
    constraint: str  # PRIMARY KEY, UNIQUE, or empty
    padded: bool
    fill_factor: int  # percent; 0 is the server's own
    filter: str  # the server's own text, or empty
    compression: str  # NONE, ROW, PAGE
    keys: tuple[tuple[str, bool], ...]  # column, whether descending
    included: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Belongings:
    """What the catalogue has of a table; equal as long as nobody changes it."""

    id: int
    columns: tuple[FoundColumn, ...]
    indexes: tuple[Index, ...]
    checks: tuple[str, ...]
    lost: tuple[str, ...]  # what keeps it from being switched into, for people


def belongings(connection: Connection, found: Found) -> Belongings:
    """Read what belongs to a table."""
    keyed: dict[int, list[tuple[str, bool, bool]]] = {}
    for index_id, *column in fetch(connection, INDEX_COLUMNS, found.id):
        keyed.setdefault(index_id, []).append((column[0], bool(column[1]), bool(column[2])))
    return Belongings(
        id=found.id, columns=found.columns,
        indexes=tuple(
            _index(row, keyed.get(row[0], ())) for row in fetch(connection, INDEXES, found.id)
        ),
        checks=tuple(str(text) for (text,) in fetch(connection, CHECKS, found.id)),
        lost=tuple(str(told) for (told,) in fetch(connection, LOST, found.id)),
    )  # fmt: skip


def create_like(name: str, like: Belongings) -> str:
    """Return the statement that creates a table with the same columns (`name` is quoted)."""
    defined = ", ".join(map(_defined, like.columns))
    heap = next((index for index in like.indexes if index.type == _HEAP), None)
    squeezed = heap is not None and heap.compression != "NONE"
    option = f" WITH (DATA_COMPRESSION = {heap.compression})" if heap and squeezed else ""
    return f"CREATE TABLE {name} ({defined}){option}"


def create_clustered(name: str, like: Belongings) -> list[str]:
    """Return the statement that makes the clustered index, if any: before the rows come."""
    return [create_index(name, index) for index in like.indexes if index.type == _CLUSTERED]


def create_others(name: str, like: Belongings) -> Iterator[str]:
    """Yield the statements that make the other indexes, and the checks: after the rows."""
    for index in like.indexes:
        if index.type not in (_HEAP, _CLUSTERED):
            yield create_index(name, index)
    for check in like.checks:
        yield f"ALTER TABLE {name} WITH CHECK ADD CHECK {check}"


def create_index(name: str, index: Index) -> str:
    """Return the statement that makes such an index on a table (`name` is quoted).

    Names of constraints are the schema's: such an index gets one from the server.
    """
    kind = "CLUSTERED" if index.type == _CLUSTERED else "NONCLUSTERED"
    keys = ", ".join(f"{quote(one)} {'DESC' if down else 'ASC'}" for one, down in index.keys)
    with_ = f" WITH ({', '.join(_options(index))})"
    if index.constraint:
        return f"ALTER TABLE {name} ADD {index.constraint} {kind} ({keys}){with_}"
    unique = "UNIQUE " if index.unique else ""
    included = f" INCLUDE ({columns(index.included)})" if index.included else ""
    where = f" WHERE {index.filter}" if index.filter else ""
    return (
        f"CREATE {unique}{kind} INDEX {quote(index.name)} ON {name} ({keys}){included}{where}"
        + (with_)
    )


def _options(index: Index) -> Iterator[str]:
    yield f"PAD_INDEX = {'ON' if index.padded else 'OFF'}"
    if index.fill_factor:
        yield f"FILLFACTOR = {index.fill_factor}"
    yield f"DATA_COMPRESSION = {index.compression}"


def _defined(column: FoundColumn) -> str:
    collation = f" COLLATE {column.collation}" if column.collation else ""
    return (
        f"{quote(column.name)} {column.spelled}{collation} {'' if column.nullable else 'NOT '}NULL"
    )


def _index(row: Sequence[object], columns_: Sequence[tuple[str, bool, bool]]) -> Index:
    _, name, type_, unique, primary, constraint, padded, fill, filter_, compression = row
    kinds: Mapping[bool, str] = {bool(constraint): "UNIQUE", bool(primary): "PRIMARY KEY"}
    return Index(
        name=str(name or ""), type=int(str(type_)), unique=bool(unique),
        constraint=kinds.get(True, ""), padded=bool(padded), fill_factor=int(str(fill)),
        filter=str(filter_), compression=str(compression),
        keys=tuple((one, down) for one, down, included in columns_ if not included),
        included=tuple(one for one, _, included in columns_ if included),
    )  # fmt: skip
