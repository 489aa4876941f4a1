"""Names and values as T-SQL."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naviglio.adapters.mssql.sql import Value, columns, literal, quote, table
from naviglio.errors import ConfigError
from naviglio.model import TableName
from tests.unit.adapters.mssql.tsql import parsed

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60
)


def read(text: str) -> str:
    """Return what a text literal of one part says."""
    assert text.startswith("N'")
    assert text.endswith("'")
    return text[2:-1].replace("''", "'")


def test_names() -> None:
    """A bracket is doubled; the default schema is named."""
    assert quote("a]b") == "[a]]b]"
    assert table(TableName(schema="", table="t")) == "[dbo].[t]"
    assert columns(["select", "x y"]) == "[select], [x y]"


@given(NAMES)
def test_a_name_stays_a_name(name: str) -> None:
    """Only the closing bracket ends it, and that one is doubled."""
    text = quote(name)
    assert text[1:-1].replace("]]", "") == name.replace("]", "")
    assert text[1:-1].count("]") == 2 * name.count("]")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 129, "😀" * 65])
def test_what_can_be_no_name(name: str) -> None:
    """128 UTF-16 units are the server's limit."""
    with pytest.raises(ConfigError, match="can't be a name"):
        quote(name)
    assert quote("😀" * 64)


def test_a_temporary_table_is_no_target() -> None:
    """It would go with its session, rows and all."""
    with pytest.raises(ConfigError, match="temporary"):
        table(TableName(schema="dbo", table="#t"))


@given(TEXTS)
def test_a_text_stays_a_text(text: str) -> None:
    """All quotes within are doubled; nothing continues a line or ends the statement."""
    spelled = literal(text)
    if spelled.startswith("N'"):
        assert read(spelled) == text
        assert "'" not in spelled[2:-1].replace("''", "")
    else:
        assert "\0" in text or "\\\n" in text or "\\\r" in text
    assert "\\\n" not in spelled
    assert "\\\r" not in spelled
    assert "\0" not in spelled


def test_texts_that_need_more_than_quotes() -> None:
    """A backslash before a line's end would vanish, a NUL would end the batch."""
    assert literal("a\\\nb") == "(CAST(N'' AS nvarchar(max)) + N'a\\' + N'\nb')"
    assert literal("a\0'") == "(CAST(N'' AS nvarchar(max)) + N'a' + NCHAR(0) + N'''')"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "CAST(N'1' AS bit)"),
        (-5, "(-5)"),
        (2**31, "CAST(N'2147483648' AS bigint)"),
        (-(2**63), "CAST(N'-9223372036854775808' AS bigint)"),
        (0.1, "CAST(N'0.1' AS float(53))"),
        (Decimal("-0.010"), "CAST(N'-0.010' AS decimal(3, 3))"),
        (Decimal("1E+3"), "CAST(N'1000' AS decimal(4, 0))"),
        (b"\x00\xff", "0x00ff"),
        (b"", "0x"),
        (date(1, 1, 1), "CAST(N'0001-01-01' AS date)"),
        (time(1, 2, 3, 4), "CAST(N'01:02:03.000004' AS time(7))"),
        (datetime(2013, 1, 7), "CAST(N'2013-01-07T00:00:00' AS datetime2(7))"),  # noqa: DTZ001
        (
            datetime(2013, 1, 7, tzinfo=UTC),
            "CAST(N'2013-01-07T00:00:00+00:00' AS datetimeoffset(7))",
        ),
        (
            UUID(int=1),
            "CAST(N'00000000-0000-0000-0000-000000000001' AS uniqueidentifier)",
        ),
    ],
)
def test_values_have_their_own_type(value: Value, text: str) -> None:
    """No value's type is left to the server's guess."""
    assert literal(value) == text
    parsed(f"SELECT {text}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN")])
def test_what_the_server_has_not(value: Value) -> None:
    """It would be stored as something else."""
    with pytest.raises(ValueError, match="SQL Server has no"):
        literal(value)
