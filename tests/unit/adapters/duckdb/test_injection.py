"""Whatever a user writes as a name or a value stays one, in source and target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from naviglio.adapters.duckdb import differing
from naviglio.adapters.duckdb import merge as sql
from naviglio.adapters.duckdb.fit import FoundColumn
from naviglio.adapters.duckdb.sql import quote, table
from naviglio.adapters.duckdb.staging import create_staging, staging_table
from naviglio.adapters.duckdb.statements import Query
from naviglio.adapters.duckdb.types import target_type
from naviglio.conditions import Both, Buckets, IsNull, Since
from naviglio.errors import ConfigError
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
        Column(name=name, kind=cast("Kind", kind), carrier=carrier, source_type="", precision=9,
               scale=2)
        for name, (kind, carrier) in zip(wild, KINDS, strict=True)
    )  # fmt: skip
    return TableSchema(columns=columns, key=tuple(wild[:2]))


def of_target(schema: TableSchema, name: str) -> Iterator[str]:
    """Yield the statements of a load."""
    found = {
        c.name: FoundColumn(
            name=c.name, spelled=target_type(c), nullable=True, has_default=False, computed=False
        )
        for c in schema.columns
    }
    job = sql.Merge(
        target=name, schema=schema, staging=staging_table("1"), found=found, whole=False,
        has_beyond=True,
    )  # fmt: skip
    yield create_staging(staging_table("1"), schema, whole=False)
    yield sql.create_target(name, schema)
    yield from (sql.add_column(name, column) for column in schema.columns)
    yield sql.insert(job)
    for one in (job, replace(job, whole=True)):
        yield differing.find_work(one, fold=not one.whole)
    yield differing.count_work(job)
    yield differing.delete_gone(job)
    yield differing.update_changed(job, sql.changing(job))
    yield differing.insert_new(job)
    yield sql.survey(job, sql.flaws(job))
    yield from (sql.flawed_key(job, flaw) for flaw in sql.flaws(job))
    yield sql.keys(job)
    yield sql.twin(job)


def of_source(schema: TableSchema, name: str, table_: TableName) -> Iterator[str]:
    """Yield the statements of a capture."""
    at = schema.names[-1]
    where = Both(one=Since(column=at, low=0, high=1_000_000, or_null=True), other=IsNull(column=at))
    scan = Scan(table=table_, schema=schema, where=where, hashes="both")
    query = Query(name, scan)
    yield query.rows()
    yield query.count()
    yield query.digest_buckets(Buckets(bits=4))


def statements(wild: list[str], catalogue: str, schema: str, table_: str) -> list[str]:
    """Return every statement in which a user's names stand."""
    made, name = schema_of(wild), TableName(schema=schema, table=table_)
    quoted = table(catalogue, name)
    return [*of_target(made, quoted), *of_source(made, quoted, name)]


TAME = list(map(skeleton, statements(["a", "b", "c", "d", "e"], "k", "s", "t")))


@given(st.lists(WILD, min_size=5, max_size=5, unique_by=str.casefold), WILD, WILD, WILD)
@settings(max_examples=60)
@example(['"', '""', 'a"; DROP TABLE t; --', "'", "\\"], "x'y", 'x" y', '"t"')
@example(["/*", "*/", "--", "$$", "\\'"], "%(a)s", "{fn now()}", "$1")
@example(["select", "from", "_op", "_beyond", "E'"], "main", "temp", "$tag$")
def test_names(wild: list[str], catalogue: str, schema: str, table_: str) -> None:
    """Statements with wild names have the very shape that they have with tame ones."""
    written = statements(wild, catalogue, schema, table_)
    assert list(map(skeleton, written)) == TAME
    assert {*wild} <= names(written[0])


@pytest.mark.parametrize("name", ["a\0b", ""])
def test_what_can_be_no_name(name: str) -> None:
    """Is refused before a statement is made of it."""
    with pytest.raises(ConfigError, match="can't be a name"):
        quote(name)
