"""The statements of a snapshot and their hashes, as text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from naviglio.adapters.postgres import hashing, statements
from naviglio.adapters.postgres.session import pin
from naviglio.adapters.postgres.sql import array, literal, quote, table
from naviglio.conditions import IsNull
from naviglio.model import Column, Kind, TableName, TableSchema, Window
from naviglio.pool import Terms
from naviglio.ports import Scan


def column(kind: Kind, source_type: str, name: str = "c", **more: object) -> Column:
    """Return a column; its carrier takes no part here."""
    return replace(
        Column(name=name, kind=kind, carrier="string", source_type=source_type),
        **more,  # type: ignore[arg-type]
    )


ID = column("int64", "bigint", "id")
AMOUNT = column("decimal", "numeric(9,2)", "amount", precision=9, scale=2)
AT = column("timestamptz", "timestamp with time zone", "at")
SCAN = Scan(
    table=TableName(schema="", table="people"),
    schema=TableSchema(columns=(ID, AMOUNT, AT), key=("id",)),
)
KEY = 'coalesce(hashint8extended("id", "id" # 1), 7953768611984703489)'
NEAR = """coalesce(hashint8extended(("id" >> 3), ("id" >> 3) # 1), 7953768611984703489)"""
FINISHED = (
    '((hashint8extended("_key_hash", "_key_hash") & (-16777216)) | (("_near_hash") & 16777215))'
)
ROW = (
    f'{KEY} # coalesce(hashtextextended("amount"::text, 2), 7953768611984703490) # '
    'hash_record_extended(ROW(timestamptz_send("at")), 0)'
)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (column("int16", "smallint"), '"c"'),
        (column("decimal", "numeric(9,2)", precision=9, scale=2),
         """CASE WHEN "c" = 'NaN' THEN (-9223372036854775808)::int8 ELSE ("c" * 100)::int8 END"""),
        (column("decimal", "numeric(9,0)", precision=9, scale=0),
         """CASE WHEN "c" = 'NaN' THEN (-9223372036854775808)::int8 ELSE "c"::int8 END"""),
        (column("decimal", "numeric(19,2)", precision=19, scale=2), '"c"::text'),
        (column("number", "numeric"), '"c"::text'),
        (column("text", "character(5)"), '"c"'),
        (column("text", "name"), '"c"'),
        (column("text", "public.mood"), '"c"::text'),
        (column("jsonb", "jsonb"), '"c"::text'),
        (column("bytes", "bytea"), '"c"'),
    ],
)  # fmt: skip
def test_values_travel_in_faithful_forms(found: Column, expected: str) -> None:
    """Short decimals as scaled integers, padded text uncast, all that ADBC can't carry as text."""
    assert statements.travelling(found) == expected


def test_rows_without_hashes_are_a_plain_select() -> None:
    """Nothing that costs stands in it."""
    keys = replace(SCAN, rows=False, where=IsNull(column="at"))
    assert statements.select_rows(keys) == (
        'SELECT "id" AS "id" FROM "public"."people" WHERE ("at" IS NULL)'
    )


def test_hashes_are_computed_once_inside_and_mixed_outside() -> None:
    """OFFSET keeps the planner from computing one twice; quoted, its 0 bars no parallel plan."""
    assert statements.select_rows(replace(SCAN, rows=False, hashes="both")) == (
        f'SELECT "id", {FINISHED}, hashint8extended("_row_hash", "_row_hash") '
        f'FROM (SELECT "id" AS "id", {NEAR} AS "_near_hash", {KEY} AS "_key_hash", '
        f'{ROW} AS "_row_hash" FROM "public"."people" OFFSET \'0\') AS rows'
    )
    assert statements.select_rows(replace(SCAN, rows=False, hashes="row")) == (
        'SELECT "id", hashint8extended("_row_hash", "_row_hash") FROM (SELECT "id" AS "id", '
        f'{ROW} AS "_row_hash" FROM "public"."people" OFFSET \'0\') AS rows'
    )


def test_digest_by_bucket() -> None:
    """Bucket, count and xor: few and narrow columns travel, and only what is summed is hashed."""
    assert statements.digest_buckets(replace(SCAN, hashes="key"), 12) == (
        f'SELECT (("_near_hash") & 4095)::int4, count(*), bit_xor({FINISHED}) FROM '
        f'(SELECT {NEAR} AS "_near_hash", {KEY} AS "_key_hash" FROM "public"."people" OFFSET \'0\')'
        " AS rows GROUP BY 1"
    )
    assert statements.digest_buckets(SCAN, 12) == (
        'SELECT (("_near_hash") & 4095)::int4, count(*), '
        'bit_xor(hashint8extended("_row_hash", "_row_hash")) FROM '
        f'(SELECT {NEAR} AS "_near_hash", {ROW} AS "_row_hash" FROM "public"."people" OFFSET \'0\')'
        " AS rows GROUP BY 1"
    )
    whole = statements.digest_buckets(SCAN, 40)
    assert f"SELECT ({FINISHED} & 1099511627775)::int8, count(*)" in whole
    assert f'{KEY} AS "_key_hash", {ROW} AS "_row_hash"' in whole


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ((ID, column("int16", "smallint")), '("c" >> 3)'),  # the last integer
        ((ID, column("text", "text")), '("id" >> 3)'),
        ((column("date", "date"), column("text", "text", "t")), ""),
    ],
)
def test_neighbours_by_the_last_integer_of_the_key_share_a_bucket(
    key: tuple[Column, ...], near: str
) -> None:
    """At most eight of them, whatever the other columns; a key without one has no neighbours."""
    schema = TableSchema(columns=key, key=tuple(column.name for column in key))
    assert (hashing.raw_near_hash(schema) == hashing.raw_key_hash(schema)) == (near == "")
    assert near in hashing.raw_near_hash(schema)
    assert hashing.raw_near_hash(schema).count(">>") in {0, 1, 2}
    digest = statements.digest_buckets(replace(SCAN, schema=schema), 12)
    assert ("_near_hash" in digest) == (near != "")


def test_digest_by_window() -> None:
    """Spans between all bounds are numbered; those that no window begins are gaps."""
    days = [datetime(2013, 1, day, tzinfo=UTC) for day in range(1, 6)]
    windows = [Window(start=days[0], end=days[1]), Window(start=days[3], end=days[4])]
    bounds, index = statements.bounds_of(windows)
    assert len(bounds) == 4
    assert index == {1: 0, 3: 1}
    first, last = (f"'2013-01-0{day} 00:00:00+00'::timestamptz" for day in (1, 5))
    text = statements.digest_windows(SCAN, bounds, "at")
    assert f'SELECT width_bucket("at", ARRAY[{first}, ' in text
    assert f'WHERE "at" >= {first} AND "at" < {last} OFFSET \'0\'' in text


def test_bad_keys() -> None:
    """Groups of more than one row, or of NULL."""
    assert statements.bad_keys(SCAN) == (
        'SELECT coalesce("id"::text, \'NULL\') FROM "public"."people" GROUP BY "id" '
        'HAVING count(*) > 1 OR "id" IS NULL LIMIT 5'
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (column("int16", "smallint"), 'hashint2extended("c", 1)'),
        (column("date", "date"),
         'CASE WHEN isfinite("c"::date) THEN hashint4extended("c"::date - \'2000-01-01\'::date, 1) '
         'ELSE hash_array_extended(ARRAY["c"::date], 1) END'),
        (column("number", "numeric"), 'hashtextextended("c"::text, 1)'),
        (column("text", "text"), 'hashtextextended("c"::text, 1)'),
        (column("text", "character varying(9)", collation='pg_catalog."C"'),
         'hashtextextended("c"::text, 1)'),
        (column("text", "character(9)", length=9), 'hashbpcharextended("c", 1)'),
        (column("uuid", "uuid"), 'uuid_hash_extended("c", 1)'),
    ],
)  # fmt: skip
def test_types_whose_equal_is_identical_are_hashed_directly(found: Column, expected: str) -> None:
    """By the type's own function, a numeric by its text's; a NULL has a hash too."""
    schema = TableSchema(columns=(found,), key=("c",))
    assert hashing.raw_row_hash(schema) == f"coalesce({expected}, 7953768611984703489)"


@pytest.mark.parametrize(
    ("found", "send"),
    [
        (column("bool", "boolean"), "boolsend"),
        (column("text", "text", collation="public.ci"), "textsend"),
        (column("text", "character varying(5)", collation="public.ci"), "varcharsend"),
        (column("text", "character(5)", length=5, collation="public.ci"), "bpcharsend"),
        (column("text", "bpchar"), "bpcharsend"),
        (column("text", "name", collation='pg_catalog."C"'), "namesend"),
        (column("text", 'public."my mood"'), "enum_send"),
        (column("literal", "public.mood[]"), "array_send"),
        (column("literal", "time(3) with time zone"), "timetz_send"),
        (column("literal", "bit varying(3)"), "varbit_send"),
        (column("literal", "int4multirange"), "multirange_send"),
    ],
)  # fmt: skip
def test_all_else_is_hashed_by_its_bytes(found: Column, send: str) -> None:
    """By the type's binary send function."""
    schema = TableSchema(columns=(found,), key=("c",))
    assert hashing.raw_row_hash(schema) == f'hash_record_extended(ROW({send}("c")), 0)'


def test_pinned_settings_may_last_for_the_transaction_alone() -> None:
    """A pooler between then sees nothing of them."""
    assert "set_config('TimeZone', 'UTC', true)" in pin(Terms(), local=True)
    assert "set_config('search_path', 'pg_catalog', false)" in pin(Terms(), local=False)
    checked = "set_config('client_connection_check_interval', '10s', true)"
    assert checked in pin(Terms(), local=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "NULL"), (True, "true"), (-1, "(-1)"), (7, "7"), (b"\x00'", r"'\x0027'::bytea"),
        ("it's", "'it''s'"), ("\\'", "E'\\\\'''"), ("", "''"),
    ],
)  # fmt: skip
def test_literals(value: str | int | bytes | None, expected: str) -> None:
    """One function spells all values; a backslash means itself under any setting."""
    assert literal(value) == expected


def test_names_and_arrays() -> None:
    """Quotes are doubled; array elements are always quoted, so none reads as NULL by accident."""
    assert quote('a"b') == '"a""b"'
    assert table(TableName(schema="S", table="T")) == '"S"."T"'
    assert array(["NULL", None], "text") == """'{"NULL",NULL}'::text[]"""


@pytest.mark.parametrize("spell", [quote, literal])
def test_a_nul_is_refused(spell: object) -> None:
    """PostgreSQL's text can't hold it; it must not end a statement early."""
    with pytest.raises(ValueError, match="NUL"):
        spell("a\0b")  # type: ignore[operator]
