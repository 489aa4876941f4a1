"""The SQL of a merge, as pure functions.

In every statement `s` is the staged row and `t` the target's. A staged column is its carrier; the
statement casts it to the type and collation of the target's own column, so that keys are equal
where the target takes them for equal. Before anything is written, `flaws` finds the rows whose
values a cast would cut, round or refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from naviglio.adapters.mssql.ddl import Spelled, defined, is_own, staged_type
from naviglio.adapters.mssql.fit import MADE_BY, PROPERTY, FoundColumn
from naviglio.adapters.mssql.sql import DEFAULT_SCHEMA, columns, literal, quote, table
from naviglio.adapters.mssql.staging import staged_names
from naviglio.errors import TargetError
from naviglio.model import BEYOND, DELETE, OP, UPSERT, Column, TableName, TableSchema

ACTION, COUNT = "action", "n"
_BEYOND_KINDS = frozenset({"decimal", "date", "timestamp", "timestamptz"})
_TEXTS = frozenset({"char", "varchar", "nchar", "nvarchar"})
_BYTES = frozenset({"binary", "varbinary"})
# Equal values of these types are identical, so a matched row's key needs no update.
_EXACT = frozenset(
    {"tinyint", "smallint", "int", "bigint", "bit", "decimal", "money", "smallmoney", "date",
     "time", "datetime", "smalldatetime", "datetime2", "uniqueidentifier"}
)  # fmt: skip
_FLOATS = {"real": 4, "float": 8}
_FRACTIONS = frozenset({"time", "datetime2", "datetimeoffset"})
_MOST_BYTES = 8000  # of a varbinary with a length
_BYTEWISE = "COLLATE Latin1_General_100_BIN2"
_BY_CHARACTER = "COLLATE Latin1_General_100_CS_AS_SC"  # counts a surrogate pair once


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
    low: str | None = None
    high: str | None = None


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """Rows that a column can't take: a condition on the staged row `s`, and why, for people."""

    column: str
    condition: str
    why: str


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
        f" @value = {literal(MADE_BY)}, @level0type = N'SCHEMA',"
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
        f" WHERE j.[key] = {literal(column.name)} {_BYTEWISE}) AS {quote(_place(merge, column))}"
        for column in merge.schema.columns
        if _may_be_beyond(merge, column)
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
    if not _may_be_beyond(merge, column):
        return plain
    told = _beyond(merge, column)
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
    if merge.whole:
        return staged(merge)
    keys = _keys("r", merge.schema)
    return (
        f"SELECT f.* FROM (SELECT r.*, ROW_NUMBER() OVER (PARTITION BY {keys} ORDER BY"
        f" CASE r.{quote(OP)} WHEN {literal(UPSERT)} THEN 0 ELSE 1 END) AS {quote('_place')}"
        f" FROM ({staged(merge)}) AS r) AS f WHERE f.{quote('_place')} = 1"
    )


# --- what is wrong with the rows ------------------------------------------------------------------


def flaws(merge: Merge) -> list[Flaw]:
    """Return all that could be wrong with staged rows, by column; empty when nothing can."""
    return [flaw for column in merge.schema.columns for flaw in _flaws(merge, column)]


def survey(merge: Merge, suspected: Sequence[Flaw]) -> str:
    """Return the query that counts the living rows, then those with each flaw."""
    counts = [f"COUNT_BIG(CASE WHEN {flaw.condition} THEN 1 END)" for flaw in suspected]
    where = living(merge)
    return (
        f"SELECT {', '.join(['COUNT_BIG(*)', *counts])} FROM {source(merge)}"
        + (where and f" WHERE {where}")
    )  # fmt: skip


def flawed_key(merge: Merge, flaw: Flaw) -> str:
    """Return the query of the key, as text, of a row with a flaw."""
    conditions = " AND ".join(f"({part})" for part in (living(merge), flaw.condition) if part)
    return f"SELECT TOP (1) {_key_texts(merge)} FROM {source(merge)} WHERE {conditions}"


def twins(merge: Merge) -> str:
    """Return the query of the keys, as text, of two living rows that are one row to the target."""
    keys = _keys("r", merge.schema)
    texts = ", ".join(as_text(f"q.{quote(name)}") for name in merge.schema.key)
    return (
        f"SELECT TOP (2) {texts} FROM (SELECT {keys}, COUNT_BIG(*) OVER (PARTITION BY {keys})"
        f" AS {quote('_twins')} FROM ({staged(merge, alive=True, names=merge.schema.key)}) AS r)"
        f" AS q WHERE q.{quote('_twins')} > 1 ORDER BY {_keys('q', merge.schema)}"
    )


# --- writing --------------------------------------------------------------------------------------


def is_empty(target: TableName) -> str:
    """Return the query that finds no row in an empty target."""
    return f"SELECT TOP (1) 1 FROM {table(target)}"


def insert(merge: Merge) -> str:
    """Return a plain insert of staged rows: for a target without rows, in the order of its key.

    Under a lock of the table the server logs pages, not rows.
    """
    names = columns(merge.schema.names)
    return (
        f"INSERT INTO {table(merge.target)} WITH (TABLOCK) ({names})"
        f" SELECT {names} FROM ({staged(merge, alive=True)}) AS s"
        f" ORDER BY {_keys('s', merge.schema)}"
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
    collate = f" {_collate(found)}" if Spelled.of(found.spelled).name in _TEXTS else ""
    bounds = ((">=", merge.low), ("<", merge.high))
    return " AND ".join(
        f"{alias}.{quote(name)} {sign} CAST({literal(bound)}{collate} AS {found.spelled})"
        for sign, bound in bounds
        if bound is not None
    )


# --- one column -----------------------------------------------------------------------------------


def _flaws(merge: Merge, column: Column) -> Iterator[Flaw]:
    found = merge.found[column.name]
    sent = carried(merge, column.name)
    told = _beyond(merge, column) if _may_be_beyond(merge, column) else ""
    if column.name in merge.schema.key or not found.nullable:
        empty = f"{sent} IS NULL" + (f" AND {told} IS NULL" if told else "")
        yield Flaw(column=column.name, condition=empty, why="is NULL, which the target refuses")
    if told:
        yield Flaw(
            column=column.name, condition=_changed(told, found),
            why=f"is beyond what SQL Server's {found.spelled} holds",
        )  # fmt: skip
    if column.carrier == "string":
        yield from _text_flaws(column, found, sent)


def _text_flaws(column: Column, found: FoundColumn, sent: str) -> Iterator[Flaw]:
    type_ = Spelled.of(found.spelled)
    if type_.name not in _TEXTS:
        why = f"is no {found.spelled}, or would be rounded"
        yield Flaw(column=column.name, condition=_changed(sent, found), why=why)
        return
    stored = sent
    if not type_.name.startswith("n"):
        stored = f"CAST({sent} {_collate(found)} AS varchar(max))"
        lost = f"CAST({stored} AS nvarchar(max)) {_BYTEWISE} <> {sent} {_BYTEWISE}"
        why = f"has characters that {found.spelled} {_collate(found)} can't hold"
        yield Flaw(column=column.name, condition=lost, why=why)
    if type_.first is not None and type_.first > 0:
        room = type_.first * (2 if type_.name.startswith("n") else 1)
        long = f"DATALENGTH({stored}) > {room}"
        yield Flaw(column=column.name, condition=long, why=f"is too long for {found.spelled}")
    if column.kind == "text" and column.length is not None and not is_own(column):
        counted = f"LEN(({sent} + N'.') {_BY_CHARACTER}) - 1"  # LEN leaves blanks at the end out
        long, why = f"{counted} > {column.length}", f"is longer than {column.source_type}"
        yield Flaw(column=column.name, condition=long, why=why)


def _changed(text: str, found: FoundColumn) -> str:
    """Return the condition that a text is no value of a type, or not exactly one."""
    type_ = Spelled.of(found.spelled)
    into = f"TRY_CAST({text} AS {found.spelled})"
    conditions = [f"{text} IS NOT NULL AND {into} IS NULL"]
    if type_.name == "decimal":
        places = f"LEN({text}) - CHARINDEX(N'.', {text})"
        conditions.append(f"CHARINDEX(N'.', {text}) > 0 AND {places} > {type_.second}")
    elif type_.name in _FRACTIONS:
        conditions.append(f"TRY_CAST({text} AS {type_.name}(7)) <> {into}")
    elif type_.name == "uniqueidentifier":  # of which a cast takes the first 36 characters
        conditions.append(f"DATALENGTH({text}) <> 72")
    return " OR ".join(f"({one})" for one in conditions)


def _cast(column: Column, found: FoundColumn, sent: str) -> str:
    """Return the cast of a staged value: of a delete, which nobody looked at, it may not fail."""
    if Spelled.of(found.spelled).name in _TEXTS:
        return f"CAST({sent} {_collate(found)} AS {found.spelled})"
    if column.carrier == "string":
        return f"TRY_CAST({sent} AS {found.spelled})"
    same = staged_type(column) == found.spelled
    return sent if same else f"CAST({sent} AS {found.spelled})"


def _collate(found: FoundColumn) -> str:
    if not re.fullmatch(r"\w+", found.collation or "", re.ASCII):
        raise TargetError(f"column {found.name!r} has no collation that could be named.")
    return f"COLLATE {found.collation}"


def _may_be_beyond(merge: Merge, column: Column) -> bool:
    return merge.has_beyond and column.kind in _BEYOND_KINDS and column.carrier != "string"


def _beyond(merge: Merge, column: Column) -> str:
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
    if type_.name in _TEXTS:
        width = (type_.first or 0) * (2 if type_.name.startswith("n") else 1)
        size = width if 0 < width <= _MOST_BYTES else "max"
        return f"CAST({one} AS varbinary({size})), DATALENGTH({one})"
    return f"CAST(CAST({one} AS nvarchar(max)) AS varbinary(max))"


def _keys(alias: str, schema: TableSchema) -> str:
    return ", ".join(f"{alias}.{quote(name)}" for name in schema.key)


def _key_texts(merge: Merge) -> str:
    return ", ".join(as_text(carried(merge, name)) for name in merge.schema.key)


def as_text(one: str) -> str:
    """Return the expression of a value as text, for people and bounds."""
    return f"CAST({one} AS nvarchar(max))"
