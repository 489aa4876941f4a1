"""Whether a table of the target can take the rows of a logical schema."""

from __future__ import annotations

from dataclasses import dataclass, replace

import duckdb

from naviglio import refusals
from naviglio.adapters.duckdb.session import rows
from naviglio.adapters.duckdb.sql import DEFAULT_SCHEMA, ROW_NUMBER, fold, quote
from naviglio.adapters.duckdb.types import TEXT, holds, target_type
from naviglio.model import Column, TableName, TableSchema


@dataclass(frozen=True, kw_only=True)
class FoundColumn:
    """A column of a table in the target, as the catalogue has it."""

    name: str
    spelled: str
    nullable: bool
    has_default: bool
    computed: bool  # an insert can't set it
    folds: bool = False  # by its collation, texts of other bytes are equal


@dataclass(frozen=True, kw_only=True)
class Found:
    """A table of the target, as the catalogue has it."""

    schema: str  # as the catalogue spells it
    table: str
    is_table: bool
    comment: str
    primary: frozenset[str]  # folded columns of the primary key; empty without one
    unique: tuple[frozenset[str], ...]  # folded columns of each primary key and unique constraint
    checks: tuple[str, ...]  # expressions
    columns: tuple[FoundColumn, ...]

    def column(self, name: str) -> FoundColumn | None:
        """Return the column that DuckDB takes for `name`."""
        return {fold(one.name): one for one in self.columns}.get(fold(name))

    def lacks(self, schema: TableSchema) -> list[Column]:
        """Return the columns of `schema` that the table does not have."""
        return [column for column in schema.columns if self.column(column.name) is None]


_ALIKE = ("'a'", "'A'", "'á'")  # NOCASE and NOACCENT take two of them for one
_FIND = """
SELECT schema_name, table_name, true, coalesce(comment, '') FROM duckdb_tables()
WHERE database_name = ? AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)
UNION ALL
SELECT schema_name, view_name, false, coalesce(comment, '') FROM duckdb_views()
WHERE database_name = ? AND lower(schema_name) = lower(?) AND lower(view_name) = lower(?)
"""
_COLUMNS = """
SELECT c.column_name, c.data_type, c.is_nullable, c.column_default IS NOT NULL,
       i.is_generated = 'ALWAYS'
FROM duckdb_columns() AS c
JOIN information_schema.columns AS i
  ON i.table_catalog = c.database_name AND i.table_schema = c.schema_name
 AND i.table_name = c.table_name AND i.column_name = c.column_name
WHERE c.database_name = ? AND c.schema_name = ? AND c.table_name = ?
ORDER BY c.column_index
"""
_CONSTRAINTS = """
SELECT constraint_type, constraint_column_names, expression FROM duckdb_constraints()
WHERE database_name = ? AND schema_name = ? AND table_name = ?
"""


def find(connection: duckdb.DuckDBPyConnection, catalogue: str, target: TableName) -> Found | None:
    """Read what the catalogue says of a table; None when it is absent."""
    wanted = (catalogue, target.schema or DEFAULT_SCHEMA, target.table)
    for schema, name, is_table, comment in rows(connection, _FIND, *wanted, *wanted):
        if (fold(schema), fold(name)) == (fold(wanted[1]), fold(target.table)):
            place = (catalogue, schema, name)
            constraints = rows(connection, _CONSTRAINTS, *place)
            return Found(
                schema=schema, table=name, is_table=is_table, comment=comment,
                unique=tuple(
                    frozenset(map(fold, names)) for kind, names, _ in constraints
                    if kind in ("PRIMARY KEY", "UNIQUE")
                ),
                primary=next(
                    (frozenset(map(fold, names)) for kind, names, _ in constraints
                     if kind == "PRIMARY KEY"), frozenset(),
                ),
                checks=tuple(text for kind, _, text in constraints if kind == "CHECK"),
                columns=_columns(connection, place, is_table=is_table),
            )  # fmt: skip
    return None


def misfits(found: Found, schema: TableSchema) -> list[str]:
    """Return what keeps a table from taking the rows, each with what to do; empty when nothing."""
    if not found.is_table:
        return ["it is a view. Name an ordinary table"]
    problems = []
    if found.column(ROW_NUMBER) is not None:
        problems.append(f"its column {ROW_NUMBER!r} hides DuckDB's own number of a row. Rename it")
    if frozenset(map(fold, schema.key)) not in found.unique:
        problems.append(
            f"it has no unique index on exactly its key ({', '.join(schema.key)}) that stands in "
            "the table as PRIMARY KEY or UNIQUE. Make it with one"
        )
    problems += [
        f"its key column {name!r} has a collation, which DuckDB's = follows and its unique index "
        "doesn't: one key could stand there twice. Make the column without it"
        for name in schema.key
        if (column := found.column(name)) is not None and column.folds
    ]
    return problems + _columns_that_misfit(found, schema)


def _columns(
    connection: duckdb.DuckDBPyConnection, place: tuple[str, str, str], *, is_table: bool
) -> tuple[FoundColumn, ...]:
    """Read a table's columns; the catalogue doesn't tell collations, a comparison does."""
    columns = tuple(map(_column, rows(connection, _COLUMNS, *place)))
    texts = [quote(column.name) for column in columns if column.spelled == TEXT]
    if not texts or not is_table:
        return columns
    table = ".".join(map(quote, place))
    alike = "".join(f" UNION ALL SELECT {', '.join([text] * len(texts))}" for text in _ALIKE)
    counts = ", ".join(f"count(DISTINCT {name})" for name in texts)
    held = f"SELECT {', '.join(texts)} FROM {table} WHERE false{alike}"
    (found,) = rows(connection, f"SELECT {counts} FROM ({held})")
    folding = {name for name, n in zip(texts, found, strict=True) if n < len(_ALIKE)}
    return tuple(replace(column, folds=quote(column.name) in folding) for column in columns)


def _column(row: tuple[str, str, bool, bool, bool]) -> FoundColumn:
    name, spelled, nullable, has_default, computed = row
    return FoundColumn(
        name=name, spelled=spelled, nullable=nullable, has_default=has_default, computed=computed
    )


def _columns_that_misfit(found: Found, schema: TableSchema) -> list[str]:
    problems, known = [], set()
    for column in schema.columns:
        has = found.column(column.name)
        if has is None:
            continue
        known.add(has.name)
        if has.computed:
            problems.append(refusals.computed(has.name))
        elif not holds(has.spelled, column):
            problems.append(refusals.narrower(has.name, has.spelled, target_type(column)))
    problems += [
        refusals.required(column.name)
        for column in found.columns
        if column.name not in known and not (column.nullable or column.has_default)
    ]
    return problems
