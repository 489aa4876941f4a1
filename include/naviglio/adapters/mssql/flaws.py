"""Staged rows that the target can't take as they are, found before anything is written.

Values that a cast would cut, round or refuse, and keys that are one to the target's collation. In
every statement `s` is the staged row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mssql_python import Connection

from naviglio import refusals
from naviglio.adapters.mssql.blame import told
from naviglio.adapters.mssql.ddl import Spelled, is_own
from naviglio.adapters.mssql.fit import FoundColumn
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.merge import (
    BYTEWISE,
    TEXTS,
    Merge,
    as_text,
    aside,
    carried,
    collation,
    key_columns,
    living,
    may_be_beyond,
    source,
    staged,
    told_beyond,
)
from naviglio.adapters.mssql.sql import literal, quote
from naviglio.described import RESPELLED
from naviglio.errors import DataError
from naviglio.model import OP, UPSERT, Column

_FRACTIONS = frozenset({"time", "datetime2", "datetimeoffset"})
_BY_CHARACTER = "COLLATE Latin1_General_100_CS_AS_SC"  # counts a surrogate pair once


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """Rows that a column can't take: a condition on the staged row `s`, and why, for people."""

    column: str
    condition: str
    why: str


@dataclass(frozen=True)
class Looked:
    """What was found of rows that all fit: how many live, and whether a key is staged twice."""

    living: int
    fold: bool


def refuse_flaws(connection: Connection, job: Merge) -> Looked:
    """Refuse rows that don't fit, and living rows whose keys are one to the target."""
    suspected = flaws(job)
    living_rows, *flawed = fetch(connection, survey(job, suspected))[0]
    for flaw, rows in zip(suspected, flawed, strict=True):
        if rows:
            key = fetch(connection, flawed_key(job, flaw))[0]
            raise refusals.unfit(job.target, flaw.column, flaw.why, told(job, key), rows)
    ((twice, most),) = fetch(connection, keys(job))
    if twice > 1:
        found = fetch(connection, twins(job))
        raise DataError(
            f"target {str(job.target)!r}: two rows are one to the key's collation"
            f"{told(job, *found)}. Nothing was loaded. {RESPELLED} Or give the target's key a "
            "collation that tells them apart."
        )
    return Looked(int(living_rows), fold=most > 1)


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


def keys(merge: Merge) -> str:
    """Return the query of the most living rows, and of the most rows, that one key has."""
    alive = "*" if merge.whole else f"CASE r.{quote(OP)} WHEN {literal(UPSERT)} THEN 1 END"
    return (
        "SELECT ISNULL(MAX(k.[living]), 0), ISNULL(MAX(k.[staged]), 0) FROM (SELECT"
        f" COUNT_BIG({alive}) AS [living], COUNT_BIG(*) AS [staged]"
        f" FROM ({staged(merge, names=merge.schema.key)}) AS r"
        f" GROUP BY {key_columns('r', merge.schema)}) AS k"
    )


def twins(merge: Merge) -> str:
    """Return the query of the keys, as text, of two living rows that are one row to the target."""
    names, more = key_columns("r", merge.schema), aside(merge, "_twins")
    texts = ", ".join(as_text(f"q.{quote(name)}") for name in merge.schema.key)
    return (
        f"SELECT TOP (2) {texts} FROM (SELECT {names}, COUNT_BIG(*) OVER (PARTITION BY {names})"
        f" AS {more} FROM ({staged(merge, alive=True, names=merge.schema.key)}) AS r)"
        f" AS q WHERE q.{more} > 1 ORDER BY {key_columns('q', merge.schema)}"
    )


def _flaws(merge: Merge, column: Column) -> Iterator[Flaw]:
    found = merge.found[column.name]
    sent = carried(merge, column.name)
    beside = told_beyond(merge, column) if may_be_beyond(merge, column) else ""
    if column.name in merge.schema.key or not found.nullable:
        empty = f"{sent} IS NULL" + (f" AND {beside} IS NULL" if beside else "")
        yield Flaw(column=column.name, condition=empty, why="is NULL, which the target refuses")
    if beside:
        yield Flaw(
            column=column.name, condition=_changed(beside, found),
            why=f"is beyond what SQL Server's {found.spelled} holds",
        )  # fmt: skip
    if column.carrier == "string":
        yield from _text_flaws(column, found, sent)


def _text_flaws(column: Column, found: FoundColumn, sent: str) -> Iterator[Flaw]:
    type_ = Spelled.of(found.spelled)
    if type_.name not in TEXTS:
        why = f"is no {found.spelled}, or would be rounded"
        yield Flaw(column=column.name, condition=_changed(sent, found), why=why)
        return
    stored = sent
    if not type_.name.startswith("n"):
        stored = f"CAST({sent} {collation(found)} AS varchar(max))"
        lost = f"CAST({stored} AS nvarchar(max)) {BYTEWISE} <> {sent} {BYTEWISE}"
        why = f"has characters that {found.spelled} {collation(found)} can't hold"
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


def _key_texts(merge: Merge) -> str:
    return ", ".join(as_text(carried(merge, name)) for name in merge.schema.key)
