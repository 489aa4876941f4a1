"""Whatever a user writes as a name or a value stays one, in source and target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from naviglio.adapters.postgres import merge as sql
from naviglio.adapters.postgres import statements as source
from naviglio.adapters.postgres.sql import literal, quote, table
from naviglio.conditions import Both, Condition, IsNull, Keys, Since
from naviglio.model import Column, Kind, TableName, TableSchema
from naviglio.ports import Scan
from tests.unit.adapters.spelled import names, skeleton

WILD = st.text(
    st.sampled_from("\"'\\;-/*$%{}()[]:@ \n")
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    min_size=1, max_size=30,
)  # fmt: skip
KINDS = (
    ("int64", "int64"), ("text", "string"), ("uuid", "string"), ("decimal", "decimal128(9, 2)"),
    ("timestamptz", "timestamp[us, tz=UTC]"),
)  # fmt: skip


def schema_of(wild: list[str]) -> TableSchema:
    """Return a schema with these names."""
    columns = tuple(
        Column(name=name, kind=cast("Kind", kind), carrier=carrier, source_type=kind, precision=9,
               scale=2)
        for name, (kind, carrier) in zip(wild, KINDS, strict=True)
    )  # fmt: skip
    return TableSchema(columns=columns, key=tuple(wild[:2]))


def of_target(schema: TableSchema, name: TableName, value: str) -> Iterator[str]:
    """Yield the statements of a load."""
    types = {c.name: sql.STAGED.get(c.carrier, "numeric") for c in schema.columns}
    job = sql.Merge(
        target=name, schema=schema, staging='"naviglio"."s_1"', types=types, whole=False,
        has_beyond=True,
    )  # fmt: skip
    whole, part = replace(job, whole=True), replace(job, low=value, high=value)
    yield sql.create_staging('"naviglio"."s_1"', schema, whole=False)
    yield sql.create_target(table(name), schema)
    yield sql.add_columns(table(name), schema.columns)
    yield sql.add_key(name, schema.key)
    for one in (job, part):
        yield sql.delete_staged(one)
        yield sql.upsert(one)
    for one in (whole, replace(part, whole=True)):
        yield sql.delete_absent(one)
        yield sql.upsert(one)
    yield sql.insert(job, ordered=True)
    yield sql.cuts(job, 3)


def of_source(schema: TableSchema, name: TableName, value: str) -> Iterator[str]:
    """Yield the statements of a capture."""
    first, text, *_, at = schema.names
    keys = pa.table({first: pa.array([1], pa.int64()), text: pa.array([value])})
    since: Condition = Since(column=at, low=0, high=1_000_000, or_null=True)
    where = Both(one=Keys(keys=keys), other=Both(one=since, other=IsNull(column=at)))
    scan = Scan(table=name, schema=schema, where=where, hashes="both")
    yield source.select_rows(scan)
    yield source.select_rows(replace(scan, rows=False, hashes="none"))
    yield source.count_rows(scan)
    yield source.digest_buckets(scan, 4)
    yield source.digest_windows(scan, [0, 1_000_000], at)
    yield source.bad_keys(scan)
    yield source.unchanged_storage(name)


def statements(wild: list[str], schema: str, table_: str, value: str) -> list[str]:
    """Return every statement in which a user's names and values stand."""
    made, name = schema_of(wild), TableName(schema=schema, table=table_)
    return [*of_target(made, name, value), *of_source(made, name, value)]


TAME = list(map(skeleton, statements(["a", "b", "c", "d", "e"], "s", "t", "v")))


@given(st.lists(WILD, min_size=5, max_size=5, unique=True), WILD, WILD, WILD)
@settings(max_examples=60)
@example(['"', '""', 'a"; DROP TABLE t; --', "'", "\\"], 'x" y', '"t"', "'; DROP TABLE t; --")
@example(["/*", "*/", "--", "$$", "\\'"], "%(a)s", "{fn now()}", "\\' OR 1=1 --")
@example(["select", "from", "_op", "_beyond", "E'"], "public", "$tag$", "E'\\''")
def test_names_and_values(wild: list[str], schema: str, table_: str, value: str) -> None:
    """Statements with wild ones have the very shape that they have with tame ones."""
    written = statements(wild, schema, table_, value)
    assert list(map(skeleton, written)) == TAME
    assert {*wild} <= names(written[0])


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_a_nul_is_no_part_of_a_statement(text: str) -> None:
    """The server would end the statement there."""
    for spell in (quote, literal):
        with pytest.raises(ValueError, match="NUL"):
            spell(text)
