"""The statements of a snapshot: they are T-SQL, bind all values, and cut no digit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naviglio.adapters.mssql.statements import Query, highest, texts
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
from naviglio.model import TableName, TableSchema, Window
from naviglio.ports import Scan
from tests.unit.adapters.mssql.described import NAME, SMALL, column
from tests.unit.adapters.mssql.tsql import parsed, skeleton

AT = Window(start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2013, 1, 2, tzinfo=UTC))
KEYS = pa.table({"id": [3, 5]})
CONDITIONS: list[Condition] = [
    Everything(), IsNull(column="name"), Since(column="id", low=3, high=None),
    Since(column="at", low=1, high=10**18, or_null=True), Within(column="at", window=AT),
    Buckets(bits=4), Buckets(bits=4, numbers=[1, 7]), Keys(keys=KEYS),
    Not(condition=Within(column="at", window=AT)), Not(condition=Everything()),
    Both(one=Keys(keys=KEYS), other=Not(condition=IsNull(column="at"))),
]  # fmt: skip


@pytest.mark.parametrize("where", CONDITIONS)
def test_every_statement_is_tsql_and_binds_its_values(where: Condition) -> None:
    """With each condition: reading, counting, digests, flawed keys; one mark a bound text."""
    for hashes in ("none", "key", "both"):
        scan = Scan(table=NAME, schema=SMALL, where=where, hashes=hashes)
        for make in (
            Query.rows, Query.count, Query.bad_keys,
            lambda q: q.digest_buckets(Buckets(bits=3, numbers=[1])),
            lambda q: q.digest_windows([AT], "at"),
        ):  # fmt: skip
            query = Query(scan=scan)
            statement = make(query)
            parsed(statement)
            assert statement.count("?") == len(query.bound)
            for text in query.bound:
                json.loads(text)


def test_statements_say_what_they_should() -> None:
    """Exact texts of the plainest ones."""
    scan = Scan(table=NAME, schema=SMALL, where=Within(column="at", window=AT))
    h = (
        "CROSS APPLY (SELECT HASHBYTES('SHA2_256', CAST(0x AS varbinary(max)) + CASE WHEN t.[id] IS"
        " NULL THEN 0x00 ELSE 0x01 + CAST(DATALENGTH(CAST(t.[id] AS varbinary(max))) AS binary(8))"
        " + CAST(t.[id] AS varbinary(max)) END) AS [k]"
    )
    counted = Query(scan=scan).count()
    assert counted.startswith(f"SELECT COUNT_BIG(*) FROM [dbo].[people] AS t {h}")
    assert counted.endswith(
        "WHERE t.[at] >= CAST(N'2013-01-01T00:00:00.0000000+00:00' AS datetimeoffset(3))"
        " AND t.[at] < CAST(N'2013-01-02T00:00:00.0000000+00:00' AS datetimeoffset(3))"
    )
    query = Query(scan=replace(scan, where=Keys(keys=KEYS)))
    assert query.rows().endswith(
        "WHERE EXISTS (SELECT 1 FROM OPENJSON(?) WITH ([c0] nvarchar(max) '$[0]') AS k"
        " WHERE t.[id] = CAST(k.[c0] AS bigint))"
    )
    assert query.bound == ['[["3"], ["5"]]']


def test_texts_are_bound_in_the_order_of_their_marks() -> None:
    """Buckets stand before the scan's own keys, windows too."""
    scan = Scan(table=NAME, schema=SMALL, where=Keys(keys=KEYS))
    query = Query(scan=scan)
    statement = query.digest_buckets(Buckets(bits=3, numbers=[1]))
    assert statement.index("IN (SELECT CAST([value]") < statement.index("EXISTS")
    assert query.bound == ["[1]", '[["3"], ["5"]]']
    query = Query(scan=scan)
    statement = query.digest_windows([AT], "at")
    assert statement.index("[low]") < statement.index("EXISTS")
    assert [type(json.loads(text)[0]) for text in query.bound] == [dict, list]


def bound(spelled: str, point: int) -> str:
    """Return the literal of a point for a column of this type."""
    schema = TableSchema(columns=(column("c", spelled),), key=("c",))
    since = Since(column="c", low=point, high=None)
    return Query(scan=Scan(table=NAME, schema=schema, where=since)).count().rpartition(" >= ")[2]


POINT = 1357041600_123456701  # nanoseconds: 2013-01-01 12:00 and a fraction
POINTS = {
    "datetime2(7)": "CAST(N'2013-01-01T12:00:00.1234568' AS datetime2(7))",
    "datetime2(6)": "CAST(N'2013-01-01T12:00:00.1234570' AS datetime2(6))",
    "datetime2(3)": "CAST(N'2013-01-01T12:00:00.1240000' AS datetime2(3))",
    "datetime2(0)": "CAST(N'2013-01-01T12:00:01.0000000' AS datetime2(0))",
    "datetimeoffset(7)": "CAST(N'2013-01-01T12:00:00.1234568+00:00' AS datetimeoffset(7))",
    "datetimeoffset(0)": "CAST(N'2013-01-01T12:00:01.0000000+00:00' AS datetimeoffset(0))",
    "datetime": "CAST(N'2013-01-01T12:00:00.127' AS datetime)",
    "date": "CAST(N'2013-01-02' AS date)",
    "smalldatetime": "CAST(N'2013-01-01T12:00:00.1234568' AS datetime2(7))",
}


@pytest.mark.parametrize(("spelled", "text"), POINTS.items())
def test_points_lose_no_digit(spelled: str, text: str) -> None:
    """Pain 2 of the peers, a cursor cut to microseconds or milliseconds: the next moment is taken.

    It is the first of the column's own type that is not before the point.
    """
    assert bound(spelled, POINT) == text
    parsed(f"SELECT {text}")


@given(st.integers(-(10**17), 10**18), st.integers(0, 7))
def test_both_bounds_round_to_the_same_side(point: int, digits: int) -> None:
    """So a row is in one span of two that meet, whatever its digits; a tie is never cut."""
    unit = 10 ** (9 - digits)
    (text,) = re.findall(r"N'(.*)'", bound(f"datetime2({digits})", point))
    seconds, _, fraction = text.partition(".")
    since = datetime.fromisoformat(seconds) - datetime(1970, 1, 1)  # noqa: DTZ001 - as the column has it
    found = since // timedelta(seconds=1) * 10**9 + int(fraction) * 100
    assert found % unit == 0
    assert 0 <= found - point < max(unit, 100)


@given(st.integers(-(10**17), 10**18))
def test_a_datetime_is_compared_by_its_ticks(point: int) -> None:
    """Of a 300th of a second, printed as three digits: the first one that is not before."""
    (text,) = re.findall(r"N'(.*)'", bound("datetime", point))
    since = datetime.fromisoformat(text) - datetime(1970, 1, 1)  # noqa: DTZ001 - as the column has it
    milliseconds = since // timedelta(milliseconds=1)
    third = round(milliseconds * 3 / 10)
    assert milliseconds % 10 in (0, 3, 7)
    hundreds = -(-point // 100)
    assert round((third - 1) * 100_000 / 3) < hundreds <= round(third * 100_000 / 3)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00", "9999-12-31T23:59:59.9999999"])
def test_what_a_datetime_can_not_hold_is_compared_all_the_same(moment: str) -> None:
    """Its years begin with 1753 and end before the last tick of a datetime2."""
    point = {"0": -62_135_596_800_000_000_000, "9": 253_402_300_799_999_999_900}[moment[0]]
    assert bound("datetime", point).endswith("AS datetime2(7))")
    assert bound("datetime2(0)", point).startswith(f"CAST(N'{moment[:19]}")


def test_row_versions_and_integers_are_points_as_they_are() -> None:
    """A version as the eight bytes that the column holds; -1 and less are the first."""
    assert bound("timestamp", 2001) == "CAST(0x00000000000007d1 AS binary(8))"
    assert bound("timestamp", -(2**63)) == "CAST(0x0000000000000000 AS binary(8))"
    assert bound("int", 2001) == "2001"
    assert bound("bigint", 2**63) == "CAST(N'9223372036854775808' AS decimal(19, 0))"
    assert bound("bigint", -(2**63)) == "CAST(N'-9223372036854775808' AS bigint)"
    for spelled in ("timestamp", "int"):
        parsed(f"SELECT {bound(spelled, 2001)}")


def test_a_tie_is_in_the_span_that_begins_with_it() -> None:
    """Spans are half open: rows of one very time are never parted."""
    scan = Scan(table=NAME, schema=SMALL, where=Since(column="at", low=10**9, high=2 * 10**9))
    assert " >= CAST(N'1970-01-01T00:00:01" in Query(scan=scan).rows()
    assert " < CAST(N'1970-01-01T00:00:02" in Query(scan=scan).rows()


def test_a_null_place_is_read_when_asked_for() -> None:
    """Pain 3 of the peers, a row without an update key never loads: `nulls: read` has it."""
    scan = Scan(table=NAME, schema=SMALL, where=Since(column="at", low=1, high=2, or_null=True))
    assert Query(scan=scan).count().endswith(" OR t.[at] IS NULL")


def test_a_text_is_no_place() -> None:
    """Nor anything else without an order."""
    with pytest.raises(ConfigError, match=r"nvarchar\(9\) and can't be read in spans"):
        bound("nvarchar(9)", 1)


def test_the_highest_integer_waits_for_no_writer() -> None:
    """Rows that others have locked are not committed, or are there as they were."""
    text = highest(NAME, column("id", "bigint"))
    hints = "READCOMMITTEDLOCK, READPAST"
    assert text == f"SELECT MAX(t.[id]) FROM [dbo].[people] AS t WITH ({hints})"
    parsed(text)


def test_a_text_key_keeps_its_code_page() -> None:
    """The collation stands before the cast: after it, letters of another page were lost."""
    key = replace(column("k", "varchar(9)"), collation="Cyrillic_General_CI_AS")
    schema = TableSchema(columns=(key,), key=("k",))
    scan = Scan(table=NAME, schema=schema, where=Keys(keys=pa.table({"k": ["я"]})))
    assert (
        "t.[k] = CAST(k.[c0] COLLATE Cyrillic_General_CI_AS AS varchar(9))"
        in Query(scan=scan).rows()
    )
    parsed(Query(scan=scan).rows())


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1,
               max_size=20).filter(lambda name: not name.startswith("#")))  # fmt: skip
def test_names_stay_names(wild: str) -> None:
    """Statements over wild names have the very nodes of those over tame ones."""

    def shape(name: str) -> list[str]:
        columns = tuple(replace(c, name=name if c.name == "id" else c.name) for c in SMALL.columns)
        schema = TableSchema(columns=columns, key=(name,))
        keys = Keys(keys=pa.table({name: [1]}))
        table = TableName(schema=name, table=name)
        return skeleton(Query(scan=Scan(table=table, schema=schema, where=keys)).rows())

    assert shape(wild) == shape("tame")


def test_keys_are_spelled_so_that_the_server_reads_the_same() -> None:
    """Bytes as hexadecimal digits, times by ISO, all else as text."""
    assert texts(pa.chunked_array([[b"\x00\xff", None]]), column("k", "binary(2)")) == [
        "00ff",
        None,
    ]
    days = pa.chunked_array([pa.array([date(2013, 1, 1)])])
    assert texts(days, column("k", "date")) == ["2013-01-01"]
    assert texts(pa.chunked_array([[True]]), column("k", "bit")) == ["1"]
