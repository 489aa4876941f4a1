"""Logical columns as T-SQL types."""

from __future__ import annotations

from typing import Any

import pytest

from naviglio.adapters.mssql.ddl import (
    Spelled,
    defined,
    holds,
    spelled,
    staged_type,
    target_type,
)
from naviglio.model import Column, Kind
from tests.unit.adapters.mssql.tsql import parsed


def column(kind: Kind, carrier: str = "string", source: str = "", **more: Any) -> Column:
    """Return a column."""
    return Column(name="c", kind=kind, carrier=carrier, source_type=source, **more)


DECIMAL = column("decimal", "decimal128(9, 2)", precision=9, scale=2)
FOREIGN = [
    (column("int16", "int16"), "smallint", "smallint"),
    (column("int32", "int32"), "int", "int"),
    (column("int64", "int64"), "bigint", "bigint"),
    (column("bool", "bool"), "bit", "bit"),
    (column("float32", "float"), "real", "real"),
    (column("float64", "double"), "float(53)", "float(53)"),
    (DECIMAL, "decimal(9,2)", "decimal(9,2)"),
    (column("number"), "decimal(38,18)", "nvarchar(max)"),
    (column("text"), "nvarchar(max)", "nvarchar(max)"),
    (column("text", length=9), "nvarchar(18)", "nvarchar(max)"),
    (column("text", length=2001), "nvarchar(max)", "nvarchar(max)"),
    (column("date", "date32[day]"), "date", "date"),
    (column("time"), "time(6)", "nvarchar(max)"),
    (column("time", precision=0), "time(0)", "nvarchar(max)"),
    (column("timestamp", "timestamp[us]", precision=3), "datetime2(3)", "datetime2(6)"),
    (column("timestamptz", "timestamp[us, tz=UTC]"), "datetimeoffset(6)", "datetimeoffset(6)"),
    (column("interval"), "nvarchar(max)", "nvarchar(max)"),
    (column("uuid"), "uniqueidentifier", "nvarchar(max)"),
    (column("bytes", "binary"), "varbinary(max)", "varbinary(max)"),
    (column("jsonb"), "nvarchar(max)", "nvarchar(max)"),
    (column("literal"), "nvarchar(max)", "nvarchar(max)"),
]


@pytest.mark.parametrize(("one", "target", "staged"), FOREIGN)
def test_types_hold_all_that_the_column_holds(one: Column, target: str, staged: str) -> None:
    """A character may need two UTF-16 units; staging is the carrier's own type, never narrower."""
    assert target_type(one) == target
    assert staged_type(one) == staged
    assert holds(target, one)
    parsed(f"CREATE TABLE [t] ([c] {defined(one, key=False)}, [s] {staged})")


@pytest.mark.parametrize(
    "own",
    ["tinyint", "money", "datetime", "datetime2(7)", "datetimeoffset(0)", "nvarchar(9)",
     "varchar(max)", "char(3)", "varbinary(16)", "uniqueidentifier", "xml"],
)  # fmt: skip
def test_a_type_of_its_own_is_made_again(own: str) -> None:
    """From SQL Server to SQL Server nothing changes."""
    one = column("text", source=own, length=9, collation="French_CI_AS")
    assert target_type(one) == own
    assert holds(own, one)


def test_collations_come_along_and_nothing_else() -> None:
    """A collation of another vendor, or a text that is none, is left out."""
    own = column("text", source="varchar(9)", collation="French_CI_AS", length=9)
    assert defined(own, key=True) == "varchar(9) COLLATE French_CI_AS NOT NULL"
    for collation in ('"pg_catalog"."C"', "a; DROP TABLE t", None):
        foreign = column("text", source="varchar(9)", collation=collation, length=9)
        assert defined(foreign, key=False) == "varchar(9) NULL"


def test_a_key_can_be_indexed() -> None:
    """An index takes 900 bytes; its rowversion is another table's, so bytes are kept."""
    assert target_type(column("text"), key=True) == "nvarchar(450)"
    assert target_type(column("text", length=300), key=True) == "nvarchar(450)"
    assert target_type(column("bytes", "binary", "rowversion")) == "binary(8)"


@pytest.mark.parametrize(
    ("actual", "one", "fits"),
    [
        ("decimal(10,2)", DECIMAL, True),
        ("decimal(10,3)", DECIMAL, True),
        ("decimal(9,3)", DECIMAL, False),
        ("decimal(9,1)", DECIMAL, False),
        ("float(53)", DECIMAL, False),
        ("bigint", column("int16", "int16"), True),
        ("decimal(5,0)", column("int16", "int16"), True),
        ("tinyint", column("int16", "int16"), False),
        ("int", column("int64", "int64"), False),
        ("nvarchar(9)", column("text", length=9), True),
        ("nvarchar(8)", column("text", length=9), False),
        ("nvarchar(4000)", column("text"), False),
        ("nvarchar(max)", column("text", length=9), True),
        ("varchar(100)", column("text", length=9), False),
        ("varchar(10)", column("text", source="varchar(9)", length=9), True),
        ("varchar(8)", column("text", source="varchar(9)", length=9), False),
        ("nvarchar(max)", column("number"), True),
        ("nvarchar(50)", column("number"), False),
        ("datetime2(7)", column("timestamp", "timestamp[us]"), True),
        ("datetime2(3)", column("timestamp", "timestamp[us]"), False),
        ("datetime", column("timestamp", "timestamp[us]"), False),
        ("datetimeoffset(7)", column("timestamp", "timestamp[us]"), False),
        ("datetime2(7)", column("timestamptz", "timestamp[us, tz=UTC]"), False),
        ("time(0)", column("time"), False),
        ("real", column("float64", "double"), False),
        ("float(53)", column("float32", "float"), True),
        ("varbinary(max)", column("bytes", "binary"), True),
        ("varbinary(10)", column("bytes", "binary"), False),
        ("int", column("bool", "bool"), False),
        ("sql_variant", column("text"), False),
    ],
)  # fmt: skip
def test_nothing_narrower_is_taken(actual: str, one: Column, *, fits: bool) -> None:
    """What would cut or round a value does not hold it."""
    assert holds(actual, one) is fits


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (("nvarchar", 18, 0, 0), "nvarchar(9)"),
        (("nvarchar", -1, 0, 0), "nvarchar(max)"),
        (("varchar", 9, 0, 0), "varchar(9)"),
        (("varbinary", -1, 0, 0), "varbinary(max)"),
        (("numeric", 9, 9, 2), "decimal(9,2)"),
        (("datetime2", 8, 27, 7), "datetime2(7)"),
        (("time", 3, 8, 0), "time(0)"),
        (("float", 8, 53, 0), "float(53)"),
        (("int", 4, 10, 0), "int"),
    ],
)
def test_the_catalogue_is_spelled_like_the_rest(said: tuple[str, int, int, int], text: str) -> None:
    """sys.columns gives bytes; names have two bytes a unit."""
    assert spelled(*said) == text
    assert Spelled.of(text).name == text.partition("(")[0]
