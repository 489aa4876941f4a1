"""The SQL of a merge, as pure functions.

In every statement `s` is the staged row and `t` the target's. A staged column is its carrier; the
statement casts it to the type and collation of the target's own column, so that keys are equal
where the target takes them for equal. Before anything is written, flaws.py finds the rows
whose values a cast would cut, round or refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from naviglio import carriers, refusals
from naviglio.adapters.mssql.ddl import Spelled, defined, staged_type
from naviglio.adapters.mssql.fit import PROPERTY, Found, FoundColumn
from naviglio.adapters.mssql.sql import DEFAULT_SCHEMA, columns, literal, quote, table
from naviglio.adapters.mssql.staging import staged_names
from naviglio.errors import TargetError
from naviglio.model import BEYOND, DELETE, OP, UPSERT, Column, TableName, TableSchema
from naviglio.ports import Staging

ACTION, COUNT = "action", "n"
TEXTS = frozenset({"char", "varchar", "nchar", "nvarchar"})
_BYTES = frozenset({"binary", "varbinary"})
# Equal values of these types are identical, so a matched row's key needs no update.
_EXACT = frozenset(
    {"tinyint", "smallint", "int", "bigint", "bit", "decimal", "money", "smallmoney", "date",
     "time", "datetime", "smalldatetime", "datetime2", "uniqueidentifier"}
)  # fmt: skip
_FLOATS = {"real": 4, "float": 8}
_MOST_BYTES = 8000  # of a varbinary with a length
BYTEWISE = "COLLATE Latin1_General_100_BIN2"


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What one merge is about; `found` are the target's own columns by the schema's names.

    With `low` or `high`, as text, it is about the keys whose first column is in [low, high).
    """

    target: TableName
    schema: TableSchema
    staging: str  # quoted name of the staging table
    found: Mapping[str, FoundColumn]
    whole: bool
    has_beyond: bool
    fold: bool = True  # some key may be staged more than once
    low: str | None = None
    high: str | None = None


def job(target: TableName, schema: TableSchema, staging: Staging, found: Found) -> Merge:
    """Return what a merge of a staging into a table, as the catalogue has it, is about."""
    has = {name: found.column(name) for name in schema.names}
    return Merge(
        target=target, schema=schema, staging=staging.name,
        found={name: column for name, column in has.items() if column is not None},
        whole=staging.whole, has_beyond=staging.has_beyond,
    )  # fmt: skip


# --- the target's table ---------------------------------------------------------------------------


def create_target(target: TableName, schema: TableSchema) -> str:
    """Return the statement that creates a target, in the order of its key."""
    listed = ", ".join(
        f"{quote(c.name)} {defined(c, key=c.name in schema.key)}" for c in schema.columns
    )
    key = columns(schema.key)
    return f"CREATE TABLE {table(target)} ({listed}, PRIMARY KEY ({key}))"


def mark_target(target: TableName) -> str:
    """Return the statement that notes on a table whose it is."""
    return (
        f"EXEC sys.sp_addextendedproperty @name = {literal(PROPERTY)},"
        f" @value = {literal(refusals.MADE_BY)}, @level0type = N'SCHEMA',"
        f" @level0name = {literal(target.schema or DEFAULT_SCHEMA)},"
        f" @level1type = N'TABLE', @level1name = {literal(target.table)}"
    )


def add_columns(target: TableName, lacking: Sequence[Column]) -> str:
    """Return the statement that adds columns to a table."""
    added = ", ".join(f"{quote(c.name)} {defined(c, key=False)}" for c in lacking)
    return f"ALTER TABLE {table(target)} ADD {added}"


# --- staged values --------------------------------------------------------------------------------


def source(merge: Merge) -> str:
    """Return what a statement reads as `s`: with a column for each literal beside the row, if any.

    An aggregate may not contain the subquery that takes such a literal out of its JSON.
    """
    literals = "".join(
        f", (SELECT j.[value] FROM OPENJSON(s.{quote(BEYOND)}) AS j"
        f" WHERE j.[key] = {literal(column.name)} {BYTEWISE}) AS {quote(_place(merge, column))}"
        for column in merge.schema.columns
        if may_be_beyond(merge, column)
    )
    if not literals:
        return f"{merge.staging} AS s"
    return f"(SELECT s.*{literals} FROM {merge.staging} AS s) AS s"


def carried(merge: Merge, column: str) -> str:
    """Return the staged column as it was sent."""
    return f"s.{quote(staged_names(merge.schema)[column])}"


def value(merge: Merge, column: Column) -> str:
    """Return the expression of a staged value in the type and collation of its target column."""
    found = merge.found[column.name]
    plain = _cast(column, found, carried(merge, column.name))
    if not may_be_beyond(merge, column):
        return plain
    told = told_beyond(merge, column)
    return (
        f"CASE WHEN {told} IS NULL THEN {plain}"
        f" ELSE TRY_CAST({told} AS {found.spelled}) END"
    )  # fmt: skip


def living(merge: Merge) -> str:
    """Return the condition on `s` that leaves deletes out; empty where there are none."""
    return "" if merge.whole else f"s.{quote(OP)} = {literal(UPSERT)}"


def staged(merge: Merge, *, alive: bool = False, names: Sequence[str] = ()) -> str:
    """Return the query of the staged rows under the target's names; only upserts with `alive`."""
    listed = [
        f"{value(merge, merge.schema.column(name))} AS {quote(name)}"
        for name in names or merge.schema.names
    ]
    if not (merge.whole or alive):
        listed.append(f"s.{quote(OP)}")
    where = living(merge) if alive else ""
    return f"SELECT {', '.join(listed)} FROM {source(merge)}" + (where and f" WHERE {where}")


def folded(merge: Merge) -> str:
    """Return the query of one staged change for each key of the target: an upsert beats deletes."""
    if merge.whole or not merge.fold:
        return staged(merge)
    keys, place = key_columns("r", merge.schema), aside(merge, "_place")
    return (
        f"SELECT f.* FROM (SELECT r.*, ROW_NUMBER() OVER (PARTITION BY {keys} ORDER BY"
        f" CASE r.{quote(OP)} WHEN {literal(UPSERT)} THEN 0 ELSE 1 END) AS {place}"
        f" FROM ({staged(merge)}) AS r) AS f WHERE f.{place} = 1"
    )


# --- writing --------------------------------------------------------------------------------------


def is_empty(target: TableName) -> str:
    """Return the query that finds no row in an empty target."""
    return f"SELECT TOP (1) 1 FROM {table(target)}"


def insert(merge: Merge, into: TableName | None = None) -> str:
    """Return a plain insert of staged rows: for a table without rows, in the order of its key.

    Under a lock of the table the server logs pages, not rows.
    """
    names = columns(merge.schema.names)
    return (
        f"INSERT INTO {table(into or merge.target)} WITH (TABLOCK) ({names})"
        f" SELECT {names} FROM ({staged(merge, alive=True)}) AS s"
        f" ORDER BY {key_columns('s', merge.schema)}"
    )


def merge_batch(merge: Merge) -> str:
    """Return the batch that merges and gives the number of rows by action."""
    return (
        "SET NOCOUNT ON;\n"
        f"DECLARE @done TABLE ({quote(ACTION)} nvarchar(10) NOT NULL);\n"
        f"{merge_statement(merge)}\n"
        f"SELECT {quote(ACTION)}, COUNT_BIG(*) AS {quote(COUNT)} FROM @done"
        f" GROUP BY {quote(ACTION)};"
    )


def merge_statement(merge: Merge) -> str:
    """Return the MERGE.

    UPDLOCK and HOLDLOCK take the locks that a writer needs in one step, so two MERGEs of one key
    neither both insert it nor wait for each other. A row that is stored as it is staged stays
    untouched.
    """
    names = merge.schema.names
    upsert = "" if merge.whole else f" AND s.{quote(OP)} = {literal(UPSERT)}"
    parts = [
        f"MERGE {table(merge.target)} WITH (UPDLOCK, HOLDLOCK) AS t",
        f"USING ({_ranged(merge)}) AS s",
        "ON " + " AND ".join(f"t.{quote(n)} = s.{quote(n)}" for n in merge.schema.key),
    ]
    if not merge.whole:
        parts.append(f"WHEN MATCHED AND s.{quote(OP)} = {literal(DELETE)} THEN DELETE")
    if changing := _changing(merge):
        new = ", ".join(f"{quote(n)} = s.{quote(n)}" for n in changing)
        parts.append(
            f"WHEN MATCHED AND EXISTS (SELECT {_bytes('s', merge, changing)} EXCEPT"
            f" SELECT {_bytes('t', merge, changing)}) THEN UPDATE SET {new}"
        )
    values = ", ".join(f"s.{quote(n)}" for n in names)
    parts.append(
        f"WHEN NOT MATCHED BY TARGET{upsert} THEN INSERT ({columns(names)}) VALUES ({values})"
    )
    if merge.whole:
        within = in_range(merge, "t")
        parts.append(f"WHEN NOT MATCHED BY SOURCE{within and f' AND {within}'} THEN DELETE")
    return "\n".join([*parts, "OUTPUT $action INTO @done;"])


# --- key ranges -----------------------------------------------------------------------------------


def _ranged(merge: Merge) -> str:
    where = in_range(merge, "p")
    return f"SELECT p.* FROM ({folded(merge)}) AS p WHERE {where}" if where else folded(merge)


def in_range(merge: Merge, alias: str) -> str:
    """Return the condition that a first key column is in the merge's range; empty for all."""
    name = merge.schema.key[0]
    found = merge.found[name]
    collate = f" {collation(found)}" if Spelled.of(found.spelled).name in TEXTS else ""
    bounds = ((">=", merge.low), ("<", merge.high))
    return " AND ".join(
        f"{alias}.{quote(name)} {sign} CAST({literal(bound)}{collate} AS {found.spelled})"
        for sign, bound in bounds
        if bound is not None
    )


# --- one column -----------------------------------------------------------------------------------


def _cast(column: Column, found: FoundColumn, sent: str) -> str:
    """Return the cast of a staged value: of a delete, which nobody looked at, it may not fail."""
    if Spelled.of(found.spelled).name in TEXTS:
        return f"CAST({sent} {collation(found)} AS {found.spelled})"
    if column.carrier == "string":
        return f"TRY_CAST({sent} AS {found.spelled})"
    same = staged_type(column) == found.spelled
    return sent if same else f"CAST({sent} AS {found.spelled})"


def collation(found: FoundColumn) -> str:
    """Return the clause of a column's own collation; TargetError where it has none."""
    if not re.fullmatch(r"\w+", found.collation or "", re.ASCII):
        raise TargetError(f"column {found.name!r} has no collation that could be named.")
    return f"COLLATE {found.collation}"


def may_be_beyond(merge: Merge, column: Column) -> bool:
    """Tell whether some staged value of a column may stand beside the row."""
    return merge.has_beyond and carriers.may_be_beyond(column)


def told_beyond(merge: Merge, column: Column) -> str:
    """Return the literal that stands beside the row for a column, NULL for none."""
    return f"s.{quote(_place(merge, column))}"


def _place(merge: Merge, column: Column) -> str:
    return f"beyond {staged_names(merge.schema)[column.name]}"


def _changing(merge: Merge) -> list[str]:
    """Return the columns to compare and to set: of the key those whose equals may differ."""
    exact = {
        name for name in merge.schema.key
        if Spelled.of(merge.found[name].spelled).name in _EXACT
    }  # fmt: skip
    return [name for name in merge.schema.names if name not in exact]


def _bytes(alias: str, merge: Merge, names: Sequence[str]) -> str:
    """Return expressions that are equal where the stored values are, byte for byte.

    The server pads bytes with zeros when it compares them: their length is compared as well.
    """
    return ", ".join(
        _exactly(f"{alias}.{quote(name)}", Spelled.of(merge.found[name].spelled)) for name in names
    )


def _exactly(one: str, type_: Spelled) -> str:
    if type_.name in _EXACT:
        return one
    if type_.name in _FLOATS:
        return f"CAST({one} AS binary({_FLOATS[type_.name]}))"  # 0.0 and -0.0 are equal
    if type_.name == "datetimeoffset":
        return f"{one}, DATEPART(tzoffset, {one})"
    if type_.name in _BYTES:
        return f"{one}, DATALENGTH({one})"
    if type_.name in TEXTS:
        width = (type_.first or 0) * (2 if type_.name.startswith("n") else 1)
        size = width if 0 < width <= _MOST_BYTES else "max"
        return f"CAST({one} AS varbinary({size})), DATALENGTH({one})"
    return f"CAST(CAST({one} AS nvarchar(max)) AS varbinary(max))"


def aside(merge: Merge, name: str) -> str:
    """Return a quoted name that none of the columns has, whatever a user called them."""
    taken = {column.casefold() for column in merge.schema.names}
    while name in taken:
        name += "_"
    return quote(name)


def key_columns(alias: str, schema: TableSchema) -> str:
    """Return the key's columns of `alias`, separated by commas."""
    return ", ".join(f"{alias}.{quote(name)}" for name in schema.key)


def as_text(one: str) -> str:
    """Return the expression of a value as text, for people and bounds."""
    return f"CAST({one} AS nvarchar(max))"
