"""Whatever a user writes as a name or a value stays one.

A statement with wild names must have the very nodes that it has with tame ones: one comment,
quote or bracket that breaks out would add or swallow some.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from naviglio.adapters.mssql import blame, flaws, ledger, ranges, staging
from naviglio.adapters.mssql import merge as sql
from naviglio.model import Column, TableName, TableSchema
from tests.unit.adapters.mssql.tsql import found, identifiers, merge, skeleton

WILD = st.text(
    st.sampled_from("[]'\"-;/*{}%?@")
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    min_size=1, max_size=30,
)  # fmt: skip
TABLES = WILD.filter(lambda name: not name.startswith("#"))  # which are refused
KINDS = (
    ("int64", "int64"), ("text", "string"), ("uuid", "string"), ("decimal", "decimal128(9, 2)"),
)  # fmt: skip


def job(names: list[str], schema: str, table: str) -> sql.Merge:
    """Return a merge with these names."""
    columns = tuple(
        Column(name=name, kind=kind, carrier=carrier, source_type="", precision=9, scale=2)  # type: ignore[arg-type]
        for name, (kind, carrier) in zip(names, KINDS, strict=True)
    )
    made = TableSchema(columns=columns, key=tuple(names[:2]))
    return merge(
        made, target=TableName(schema=schema, table=table), has_beyond=True,
        found={c.name: found(c, name=c.name) for c in columns},
    )  # fmt: skip


def statements(one: sql.Merge) -> Iterator[str]:
    """Yield every statement in which a user's names stand."""
    yield sql.create_target(one.target, one.schema)
    yield sql.add_columns(one.target, one.schema.columns)
    yield sql.mark_target(one.target)
    yield sql.is_empty(one.target)
    yield sql.merge_batch(one)
    yield sql.merge_statement(replace(one, whole=True))
    yield sql.merge_statement(replace(one, whole=True, low=one.schema.key[0], high="x"))
    yield ranges.cuts(one, 3)
    yield ranges.count_range(replace(one, low=one.schema.key[0]))
    yield sql.insert(one).replace(" WITH (TABLOCK)", "", 1)
    yield flaws.survey(one, flaws.flaws(one))
    yield from (flaws.flawed_key(one, flaw) for flaw in flaws.flaws(one))
    yield flaws.twins(one)
    yield blame.where_null(one, one.schema.names[1])
    yield blame.where_taken(one, one.schema.names)
    yield blame.where_orphan(one, one.target, [(name, name) for name in one.schema.key])
    yield ledger.create_schema(one.target.schema)


TAME = list(map(skeleton, statements(job(["a", "b", "c", "d"], "s", "t"))))


@given(st.lists(WILD, min_size=4, max_size=4, unique_by=str.casefold), WILD, TABLES)
@settings(max_examples=40)
@example(["]", "]]", "a]; DROP TABLE t; --", "'"], "x] y", "[t]")
@example(["/*", "*/", "--", "?"], "%(a)s", "{fn now()}")
@example(["select", "from", "_op", "\\\n"], "dbo", "N'")
def test_names(names: list[str], schema: str, table: str) -> None:
    """Of columns, schema and table, in every statement."""
    wild = list(statements(job(names, schema, table)))
    # A backslash before a line's end, of which no name is made in earnest, is spelled in two parts.
    if "\\\n" not in "".join([*names, schema, table]) and "\\\r" not in "".join(names):
        assert list(map(skeleton, wild)) == TAME
    assert {*names} <= {*identifiers(wild[0])}


@given(WILD)
def test_the_bulk_copy_gets_no_name_of_a_user(name: str) -> None:
    """Its table and columns are the project's own."""
    column = Column(name=name, kind="int64", carrier="int64", source_type="")
    schema = TableSchema(columns=(column,), key=(name,))
    assert [*staging.Stream(iter(()), schema, whole=True).schema.names] == ["c1", "_beyond"]
    assert staging.create_staging("[n].[s]", schema, whole=True) == (
        "CREATE TABLE [n].[s] ([c1] bigint NULL, [_beyond] nvarchar(max) NULL)"
    )


@pytest.mark.parametrize(
    "wrong", ["int; DROP TABLE t", "nvarchar(9)) --", "datetime2(7)\n", "NVARCHAR(9)"]
)
def test_a_type_of_the_source_is_never_taken_as_it_stands(wrong: str) -> None:
    """Only spellings that are known, in full."""
    column = Column(name="a", kind="text", carrier="string", source_type=wrong, length=9)
    text = sql.add_columns(TableName(schema="s", table="t"), [column])
    assert text == "ALTER TABLE [s].[t] ADD [a] nvarchar(18) NULL"
