"""Conditions of a scan, as text."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from naviglio.adapters.postgres.conditions import where
from naviglio.carriers import key_schema
from naviglio.conditions import (
    Both,
    Buckets,
    Condition,
    Everything,
    IsNull,
    Keys,
    Not,
    Since,
    Within,
)
from naviglio.errors import ConfigError
from naviglio.model import Column, Kind, TableSchema, Window


def column(name: str, kind: Kind, carrier: str, source_type: str) -> Column:
    """Return a column."""
    return Column(name=name, kind=kind, carrier=carrier, source_type=source_type)


SCHEMA = TableSchema(
    columns=(
        column("id", "int64", "int64", "bigint"),
        column('a"b', "text", "string", "text"),
        column("at", "timestamptz", "timestamp[us, tz=UTC]", "timestamp with time zone"),
        column("local", "timestamp", "timestamp[us]", "timestamp without time zone"),
        column("day", "date", "date32[day]", "date"),
    ),
    key=("id",),
)
SECOND = 1_357_000_000 * 10**9  # 2013-01-01 00:26:40
WINDOW = Window(start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2013, 1, 2, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Everything(), "true"),
        (Since(column="id", low=-5, high=7), '"id" >= (-5) AND "id" < 7'),
        (Since(column="id", low=None, high=7, or_null=True), '("id" < 7) OR "id" IS NULL'),
        (Since(column="id", low=None, high=None), '"id" IS NOT NULL'),
        (
            Since(column="at", low=SECOND, high=SECOND + 1),
            "\"at\" >= '2013-01-01 00:26:40+00'::timestamptz"
            " AND \"at\" < '2013-01-01 00:26:40.000001+00'::timestamptz",
        ),
        (
            Since(column="local", low=SECOND + 1_000, high=None),
            "\"local\" >= '2013-01-01 00:26:40.000001'::timestamp",
        ),
        (Since(column="day", low=SECOND, high=None), "\"day\" >= '2013-01-02'::date"),
        (
            Within(column="at", window=WINDOW),
            "\"at\" >= '2013-01-01 00:00:00+00'::timestamptz"
            " AND \"at\" < '2013-01-02 05:00:00+00'::timestamptz",
        ),
        (
            Within(column="day", window=WINDOW),
            "\"day\" >= '2013-01-01'::date AND \"day\" < '2013-01-03'::date",
        ),
        (IsNull(column='a"b'), '"a""b" IS NULL'),
        (Not(condition=IsNull(column="id")), '("id" IS NULL) IS NOT TRUE'),
        (
            Both(one=IsNull(column="id"), other=IsNull(column="at")),
            '("id" IS NULL) AND ("at" IS NULL)',
        ),
        (Buckets(bits=3), "true"),
    ],
)  # fmt: skip
def test_conditions(condition: Condition, expected: str) -> None:
    """Bounds are typed literals to the microsecond, names quoted, `Not` never unknown."""
    assert where(condition, SCHEMA) == expected


def test_buckets_name_their_numbers() -> None:
    """The key's hash is cut to its lowest bits, which neighbours share: no other is computed."""
    found = where(Buckets(bits=12, numbers=[0, 4095]), SCHEMA)
    assert found.startswith("((coalesce(hash")
    assert found.endswith(""" & 4095) = ANY ('{"0","4095"}'::bigint[])""")


def test_one_key_column_is_one_array() -> None:
    """So the key's index serves."""
    keys = pa.table({"id": [1, -2]}, schema=key_schema(SCHEMA))
    assert where(Keys(keys=keys), SCHEMA) == """"id" = ANY ('{"1","-2"}'::bigint[])"""


def test_several_key_columns_are_unnested_side_by_side() -> None:
    """Each array has the type of its column; texts are quoted twice over."""
    schema = TableSchema(columns=SCHEMA.columns, key=('a"b', "day"))
    keys = pa.table({'a"b': ['it\'s \\ "x"'], "day": [date(2013, 1, 1)]}, schema=key_schema(schema))
    assert where(Keys(keys=keys), schema) == (
        '("a""b", "day") IN (SELECT * FROM unnest('
        """E'{"it''s \\\\\\\\ \\\\"x\\\\""}'::text[], '{"2013-01-01"}'::date[]))"""
    )


@pytest.mark.parametrize(
    ("kind", "carrier", "value", "text"),
    [
        ("decimal", "decimal128(9, 2)", Decimal("-0.01"), "-0.01"),
        ("decimal", "decimal128(38, 30)", Decimal("1E-30"), f"0.{'0' * 29}1"),
        ("float64", "double", float("nan"), "nan"),
        ("float64", "double", -0.0, "-0"),
        ("bool", "bool", True, "true"),
        ("bytes", "binary", b"\x00\xff", r"\\\\x00ff"),
        ("timestamp", "timestamp[us]", datetime(1, 1, 1), "0001-01-01 00:00:00"),  # noqa: DTZ001
        ("date", "date32[day]", date(9999, 12, 31), "9999-12-31"),
        ("uuid", "string", "a0", "a0"),
    ],
)
def test_each_carrier_is_spelled(kind: Kind, carrier: str, value: object, text: str) -> None:
    """Keys go back to the source as texts that it reads as the same value."""
    schema = TableSchema(columns=(column("k", kind, carrier, "t"),), key=("k",))
    keys = pa.table({"k": [value]}, schema=key_schema(schema))
    assert f'{{"{text}"}}' in where(Keys(keys=keys), schema)


@pytest.mark.parametrize(
    "condition", [Since(column='a"b', low=1, high=2), Within(column="id", window=WINDOW)]
)
def test_columns_without_such_an_order_are_refused(condition: Condition) -> None:
    """The column and the kinds that serve are named."""
    with pytest.raises(ConfigError, match="timestamptz"):
        where(condition, SCHEMA)
