"""The SQL of the merge, as pure functions.

In every statement `s` is the staging table and `t` the target. What is carried as text is cast by
TRY_CAST, since of a delete, which nobody looked at, a cast may not fail; the rows whose values
would be lost by it are found, and refused, before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from naviglio.adapters.duckdb.fit import FoundColumn
from naviglio.adapters.duckdb.sql import columns, literal, quote
from naviglio.adapters.duckdb.types import SECOND_DIGITS, TEXT, Decimal, staged_type, target_type
from naviglio.carriers import may_be_beyond
from naviglio.model import BEYOND, DELETE, OP, UPSERT, Column, TableSchema

_FLOATS = frozenset({"FLOAT", "DOUBLE"})
_SECONDS = frozenset({"TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"})


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What one merge is about; `found` are the target's own columns by the schema's names."""

    target: str  # quoted name of the target
    schema: TableSchema
    staging: str  # quoted name of the staging table
    found: Mapping[str, FoundColumn]
    whole: bool
    has_beyond: bool


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """Rows that a column can't take: a condition on the staged row `s`, and why, for people."""

    column: str
    condition: str
    why: str


# --- the target's table ---------------------------------------------------------------------------


def create_target(name: str, schema: TableSchema) -> str:
    """Return the statement that creates a target (`name` is quoted).

    Only the key is NOT NULL: a source that drops such a constraint later must not break a load.
    """
    defined = ", ".join(f"{quote(c.name)} {target_type(c)}" for c in schema.columns)
    return f"CREATE TABLE {name} ({defined}, PRIMARY KEY ({columns(schema.key)}))"


def add_column(name: str, column: Column) -> str:
    """Return the statement that adds a column to a table (`name` is quoted)."""
    return f"ALTER TABLE {name} ADD COLUMN {quote(column.name)} {target_type(column)}"


# --- staged values --------------------------------------------------------------------------------


def value(merge: Merge, column: Column) -> str:
    """Return the expression of a staged value in the type of its target column."""
    spelled, sent = merge.found[column.name].spelled, f"s.{quote(column.name)}"
    if column.carrier == "string":
        return sent if spelled == TEXT else f"TRY_CAST({sent} AS {spelled})"
    plain = sent if staged_type(column) == spelled else f"CAST({sent} AS {spelled})"
    if not _may_be_beyond(merge, column):
        return plain
    told = _beyond(column)
    return f"CASE WHEN {told} IS NULL THEN {plain} ELSE TRY_CAST({told} AS {spelled}) END"


def living(merge: Merge) -> str:
    """Return the condition on `s` that leaves deletes out."""
    return "true" if merge.whole else f"s.{quote(OP)} = {literal(UPSERT)}"


def staged(merge: Merge, *, alive: bool) -> str:
    """Return the query of the staged rows under the target's names; only upserts with `alive`."""
    listed = [f"{value(merge, c)} AS {quote(c.name)}" for c in merge.schema.columns]
    if not (merge.whole or alive):
        listed.append(f"s.{quote(OP)}")
    where = living(merge) if alive else "true"
    return f"SELECT {', '.join(listed)} FROM {merge.staging} AS s WHERE {where}"


def folded(merge: Merge) -> str:
    """Return the query of one staged change for each key: an upsert beats deletes."""
    keys = columns(merge.schema.key)
    return (
        f"SELECT * FROM ({staged(merge, alive=False)}) QUALIFY row_number() OVER"
        f" (PARTITION BY {keys} ORDER BY {quote(OP)} = {literal(DELETE)}) = 1"
    )


# --- what is wrong with the rows ------------------------------------------------------------------


def flaws(merge: Merge) -> list[Flaw]:
    """Return all that could be wrong with staged rows, by column."""
    return [flaw for column in merge.schema.columns for flaw in _flaws(merge, column)]


def survey(merge: Merge, suspected: Sequence[Flaw]) -> str:
    """Return the query that counts the living rows, then those with each flaw."""
    counts = ["count(*)", *(f"count(*) FILTER (WHERE {flaw.condition})" for flaw in suspected)]
    return f"SELECT {', '.join(counts)} FROM {merge.staging} AS s WHERE {living(merge)}"


def flawed_key(merge: Merge, flaw: Flaw) -> str:
    """Return the query of the key, as text, of a row with a flaw."""
    keys = _texts("s", merge.schema.key)
    condition = f"{living(merge)} AND ({flaw.condition})"
    return f"SELECT {keys} FROM {merge.staging} AS s WHERE {condition} LIMIT 1"


def keys(merge: Merge) -> str:
    """Return the query of the most living rows, and of the most rows, that one key has."""
    alive = "count(*)" if merge.whole else f"count(*) FILTER ({quote(OP)} = {literal(UPSERT)})"
    return (
        f"SELECT coalesce(max(living), 0), coalesce(max(n), 0) FROM (SELECT {alive} AS living,"
        f" count(*) AS n FROM ({staged(merge, alive=False)}) GROUP BY {columns(merge.schema.key)})"
    )


def twin(merge: Merge) -> str:
    """Return the query of the key, as text, that stands on two living rows."""
    names = merge.schema.key
    return (
        f"SELECT {_texts('q', names)} FROM ({staged(merge, alive=True)}) AS q"
        f" GROUP BY {columns(names)} HAVING count(*) > 1 LIMIT 1"
    )


def breaking(merge: Merge, check: str) -> str:
    """Return the query of the key, as text, of a row that a CHECK of the target refuses."""
    return (
        f"SELECT {_texts('q', merge.schema.key)} FROM ({staged(merge, alive=True)}) AS q"
        f" WHERE NOT ({check}) LIMIT 1"
    )


# --- writing --------------------------------------------------------------------------------------


def insert(merge: Merge) -> str:
    """Return a plain insert of staged rows: for a target without rows."""
    names = columns(merge.schema.names)
    return f"INSERT INTO {merge.target} ({names}) {staged(merge, alive=True)}"


# --- one column -----------------------------------------------------------------------------------


def _flaws(merge: Merge, column: Column) -> Iterator[Flaw]:
    found, sent = merge.found[column.name], f"s.{quote(column.name)}"
    told = _beyond(column) if _may_be_beyond(merge, column) else ""
    if column.name in merge.schema.key or not found.nullable:
        empty = f"{sent} IS NULL" + (f" AND {told} IS NULL" if told else "")
        yield Flaw(column=column.name, condition=empty, why="is NULL, which the target refuses")
    if told:
        why = f"is beyond what DuckDB's {found.spelled} holds"
        yield Flaw(column=column.name, condition=_lost(told, found.spelled), why=why)
    if column.carrier == "string" and found.spelled != TEXT:
        why = f"is no {found.spelled}, or would be rounded"
        yield Flaw(column=column.name, condition=_lost(sent, found.spelled), why=why)
    if column.kind == "text" and column.length is not None:  # DuckDB's VARCHAR(n) has no bound
        long = f"length({sent}) > {column.length}"
        yield Flaw(column=column.name, condition=long, why=f"is longer than {column.source_type}")


def _lost(text: str, spelled: str) -> str:
    """Return the condition that a text is no value of a type, or not exactly one."""
    lost = f"{text} IS NOT NULL AND TRY_CAST({text} AS {spelled}) IS NULL"
    bounds = Decimal.of(spelled)
    digits = bounds.scale if bounds else SECOND_DIGITS if spelled in _SECONDS else None
    if digits is None:
        return lost
    return f"({lost}) OR regexp_matches({text}, '[.][0-9]{{{digits + 1},}}')"


def _may_be_beyond(merge: Merge, column: Column) -> bool:
    return merge.has_beyond and may_be_beyond(column)


def _beyond(column: Column) -> str:
    """Return the literal beside the row for a column, NULL for none; `BC` as DuckDB reads it."""
    told = f"(s.{quote(BEYOND)}::JSON::MAP(VARCHAR, VARCHAR))[{literal(column.name)}]"
    if column.kind == "decimal":
        return told
    return rf"regexp_replace({told}, '^(\S+)(.*) BC$', '\1 (BC)\2')"


def changing(merge: Merge) -> list[str]:
    """Return the columns to compare and to set: of the key those whose equals may differ."""
    key = {n for n in merge.schema.key if merge.found[n].spelled not in _FLOATS}
    return [name for name in merge.schema.names if name not in key]


def changes(merge: Merge, *, fold: bool) -> str:
    """Return the query of staged rows, one a key where `fold`."""
    return folded(merge) if fold else staged(merge, alive=False)


def same_key(merge: Merge) -> str:
    """Return the condition that `t` and `s` have one key."""
    return " AND ".join(f"t.{quote(n)} = s.{quote(n)}" for n in merge.schema.key)


def differs(merge: Merge, name: str) -> str:
    """Return the condition that a column of `t` is not stored as `s` is staged."""
    spelled, one, other = merge.found[name].spelled, f"t.{quote(name)}", f"s.{quote(name)}"
    if spelled == "JSON":
        return f"{one}::VARCHAR IS DISTINCT FROM {other}::VARCHAR"
    if merge.found[name].folds:  # what is equal by its collation may be spelled in another way
        return f"encode({one}) IS DISTINCT FROM encode({other})"
    distinct = f"{one} IS DISTINCT FROM {other}"
    if spelled in _FLOATS:  # 0.0 and -0.0 are equal
        return f"({distinct} OR coalesce(signbit({one}) <> signbit({other}), false))"
    return distinct


def _texts(alias: str, names: Sequence[str]) -> str:
    return ", ".join(f"CAST({alias}.{quote(name)} AS VARCHAR)" for name in names)
