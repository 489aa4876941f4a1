"""The SQL of staging and merge, as text."""

from __future__ import annotations

from typing import Any

import pytest

from naviglio.adapters.postgres.merge import (
    Merge,
    add_columns,
    add_key,
    create_staging,
    create_target,
    cuts,
    delete_absent,
    delete_staged,
    insert,
    upsert,
    value,
)
from naviglio.adapters.postgres.staging import staging_table
from naviglio.model import Column, TableName, TableSchema

ORDER = Column(name="order", kind="int64", carrier="int64", source_type="bigint", nullable=False)
PRICE = Column(
    name="price", kind="decimal", carrier="decimal128(9, 2)", source_type="numeric(9,2)",
    precision=9, scale=2,
)  # fmt: skip
TEXT = Column(name='a"b', kind="text", carrier="string", source_type="text", nullable=False)
SCHEMA = TableSchema(columns=(ORDER, PRICE, TEXT), key=("order",))
TYPES = {"order": "bigint", "price": "numeric", 'a"b': "character varying"}


def merge(**other: Any) -> Merge:
    """Return a merge of SCHEMA."""
    said: dict[str, Any] = {
        "target": TableName(schema="made", table="sales"), "schema": SCHEMA, "staging": "st",
        "types": TYPES, "whole": False, "has_beyond": False,
    }  # fmt: skip
    return Merge(**{**said, **other})


def test_staging_holds_carriers_and_rounds_nothing() -> None:
    """Decimals have no bounds, text no length."""
    assert create_staging("st", SCHEMA, whole=False) == (
        'CREATE UNLOGGED TABLE st ("order" bigint, "price" numeric, "a""b" text, "_beyond" text,'
        ' "_op" text NOT NULL)'
    )
    assert create_staging("st", SCHEMA, whole=True).endswith('"_beyond" text)')


def test_a_target_has_the_logical_types_and_a_key() -> None:
    """Only the key is NOT NULL, whatever the source says of others today."""
    assert create_target("t", SCHEMA) == (
        'CREATE TABLE t ("order" bigint NOT NULL, "price" numeric(9,2), "a""b" text)'
    )
    assert add_key(merge().target, ["order", 'a"b']) == (
        'ALTER TABLE "made"."sales" ADD PRIMARY KEY ("order", "a""b")'
    )
    assert add_columns("t", [PRICE, TEXT]) == (
        'ALTER TABLE t ADD COLUMN "price" numeric(9,2), ADD COLUMN "a""b" text'
    )


def test_text_is_cast_to_the_targets_type_without_its_length() -> None:
    """A cast to varchar(3) would cut in silence; assigning to the column raises."""
    assert value(merge(), TEXT) == 's."a""b"::character varying'


def test_values_beyond_their_carrier_are_looked_for_only_where_there_are_any() -> None:
    """JSON is parsed for a row only when some row of the staging has such a value."""
    assert value(merge(), PRICE) == 's."price"'
    assert value(merge(has_beyond=True), ORDER) == 's."order"'
    assert value(merge(has_beyond=True), PRICE) == (
        "CASE WHEN s.\"_beyond\"::jsonb ? 'price'"
        ' THEN (s."_beyond"::jsonb ->> \'price\')::numeric ELSE s."price" END'
    )


def test_a_range_is_of_the_first_key_column() -> None:
    """Staged rows and, of a whole table, target rows; an open end is no condition."""
    within = "s.\"order\" >= '5'::bigint AND s.\"order\" < '9'''::bigint"
    part = merge(low="5", high="9'")
    assert f"s.\"_op\" = 'upsert' AND {within}" in upsert(part)
    assert f"s.\"_op\" = 'delete' AND {within} AND t." in delete_staged(part)
    whole = delete_absent(merge(whole=True, low="5"))
    assert "WHERE t.\"order\" >= '5'::bigint AND NOT EXISTS (SELECT FROM st AS s" in whole
    assert within in upsert(merge(whole=True, low="5", high="9'"))
    assert cuts(merge(), 2) == (
        "SELECT q.cut::text FROM (SELECT DISTINCT unnest(percentile_disc(ARRAY[0.5]::float8[])"
        ' WITHIN GROUP (ORDER BY s."order")) AS cut FROM st AS s) AS q ORDER BY q.cut'
    )


def test_changes_are_deletes_and_one_sorted_upsert() -> None:
    """Sorted by key, compared as bytes, counted by the server."""
    assert delete_staged(merge()) == (
        'DELETE FROM "made"."sales" AS t USING st AS s WHERE s."_op" = \'delete\''
        ' AND t."order" = s."order" AND NOT EXISTS (SELECT FROM st AS u'
        ' WHERE u."_op" = \'upsert\' AND t."order" = u."order")'
    )
    assert upsert(merge()) == (
        'WITH done AS (INSERT INTO "made"."sales" AS t ("order", "price", "a""b")'
        ' SELECT s."order", s."price", s."a""b"::character varying FROM st AS s'
        ' WHERE s."_op" = \'upsert\' ORDER BY 1 ON CONFLICT ("order") DO UPDATE SET'
        ' "price" = excluded."price", "a""b" = excluded."a""b"'
        ' WHERE ROW(t."price", t."a""b")::record *<> ROW(excluded."price", excluded."a""b")::record'
        " RETURNING t.xmax = 0 AS inserted)"
        " SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted),"
        " (SELECT count(*) FROM st AS s WHERE s.\"_op\" = 'upsert') FROM done"
    )


def test_whole_deletes_what_is_not_staged() -> None:
    """All staged rows are upserts then."""
    assert delete_absent(merge(whole=True)) == (
        'DELETE FROM "made"."sales" AS t WHERE NOT EXISTS'
        ' (SELECT FROM st AS s WHERE t."order" = s."order")'
    )
    assert "_op" not in upsert(merge(whole=True))
    assert insert(merge(whole=True)).endswith("FROM st AS s")
    assert insert(merge(whole=True), ordered=True).endswith("FROM st AS s ORDER BY 1")


@pytest.mark.parametrize(
    ("key", "action"), [("order", "DO NOTHING"), ('a"b', 'DO UPDATE SET "a""b" = excluded."a""b"')]
)
def test_a_key_is_updated_where_equal_is_not_identical(key: str, action: str) -> None:
    """A table of nothing but an exact key has nothing to update."""
    schema = TableSchema(columns=(SCHEMA.column(key),), key=(key,))
    assert action in upsert(merge(schema=schema))


def test_a_long_attempt_is_refused() -> None:
    """The server would cut the name, and two attempts would share a table."""
    assert staging_table("ab12") == '"naviglio"."s_ab12"'
    with pytest.raises(ValueError, match="too long"):
        staging_table("x" * 62)
