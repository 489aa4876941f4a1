"""The checksum of staged rows: what Arrow sums, and that the server is asked for the same."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from naviglio.adapters.mssql.tally import Tally, differences, figures_query
from tests.unit.adapters.mssql.tsql import parsed

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXTS = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
NUMBERS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1))


def figures(type_: pa.DataType, *batches: list[Any]) -> tuple[Any, ...]:
    """Return the three figures of one column."""
    tally = Tally(pa.schema([("c1", type_)]))
    for values in batches:
        tally.add(pa.record_batch([pa.array(values, type_)], schema=tally.schema))
    assert tally.figures[0] == sum(map(len, batches))
    return tally.figures[1:]


@given(TEXTS, TEXTS)
def test_text_is_measured_as_the_server_does(one: list[str | None], two: list[str | None]) -> None:
    """DATALENGTH counts the bytes of UTF-16."""
    said = [text for text in one + two if text is not None]
    length = sum(len(text.encode("utf-16-le")) for text in said) if said else None
    assert figures(pa.string(), one, two) == (len(said), length, None)


@given(NUMBERS, NUMBERS)
def test_sums_never_wrap(one: list[int | None], two: list[int | None]) -> None:
    """Any number of the largest integers."""
    said = [number for number in one + two if number is not None]
    assert figures(pa.int64(), one, two) == (len(said), sum(said) if said else None, None)


@pytest.mark.parametrize(
    ("type_", "values", "expected"),
    [
        (pa.bool_(), [True, None, True], (2, 2, None)),
        (pa.binary(), [b"", b"\0\0", None], (2, 2, None)),
        (pa.date32(), [date(1970, 1, 3), date(1969, 12, 31)], (2, 1, None)),
        (pa.timestamp("us"), [datetime(1970, 1, 1, 0, 0, 1)], (1, 10**6, None)),  # noqa: DTZ001
        (pa.timestamp("us", tz="UTC"), [EPOCH.replace(year=1)], (1, -62135596800 * 10**6, None)),
        (pa.decimal128(9, 2), [Decimal("1.10"), Decimal("-0.05")], (2, Decimal("1.05"), None)),
        (
            pa.decimal128(38, 0), [Decimal(10**37), None, Decimal(-1)],
            (2, Decimal(-1), Decimal(10**37)),
        ),
        (pa.float64(), [0.1, 0.2, -1e300], (3, -1e300, 0.2)),
        (pa.string(), [None], (0, None, None)),
    ],
)  # fmt: skip
def test_figures(type_: pa.DataType, values: list[Any], expected: tuple[Any, ...]) -> None:
    """Sums where they are exact, bounds where a sum depends on the order or wouldn't fit in."""
    assert figures(type_, values) == expected


def test_the_server_is_asked_for_the_same() -> None:
    """Three figures a column, each as T-SQL."""
    schema = pa.schema(
        [("c1", pa.int64()), ("c2", pa.string()), ("c3", pa.date32()), ("c4", pa.float32()),
         ("c5", pa.timestamp("us")), ("c6", pa.decimal128(9, 2)), ("c7", pa.decimal128(38, 2))]
    )  # fmt: skip
    query = figures_query("[naviglio].[s_1]", schema)
    assert query == (
        "SELECT COUNT_BIG(*),"
        " COUNT_BIG(s.[c1]), SUM(CAST(s.[c1] AS decimal(38,0))), NULL,"
        " COUNT_BIG(s.[c2]), SUM(CAST(DATALENGTH(s.[c2]) AS decimal(38,0))), NULL,"
        " COUNT_BIG(s.[c3]), SUM(CAST(DATEDIFF(day, '19700101', s.[c3]) AS decimal(38,0))), NULL,"
        " COUNT_BIG(s.[c4]), MIN(s.[c4]), MAX(s.[c4]),"
        " COUNT_BIG(s.[c5]),"
        " SUM(CAST(DATEDIFF_BIG(microsecond, '19700101', s.[c5]) AS decimal(38,0))), NULL,"
        " COUNT_BIG(s.[c6]), SUM(CAST(s.[c6] AS decimal(38,2))), NULL,"
        " COUNT_BIG(s.[c7]), MIN(s.[c7]), MAX(s.[c7])"
        " FROM [naviglio].[s_1] AS s"
    )
    (tree,) = parsed(query)
    assert isinstance(tree, sqlglot.exp.Select)
    assert len(tree.selects) == 1 + 3 * len(schema)


def test_what_differs_is_named() -> None:
    """A lost row, a NULL that became a default, a rounded value."""
    schema = pa.schema([("c1", pa.int64()), ("c2", pa.string())])
    sent = (2, 2, 3, None, 1, 8, None)
    stored = (Decimal(2), 2, Decimal(3), None, 1, Decimal(8), None)
    assert differences(sent, stored, schema) == []
    assert differences(sent, (1, 1, 2, None, 1, 8, None), schema) == ["c1", "rows"]
    assert differences(sent, (2, 2, 3, None, 2, 8, None), schema) == ["c2"]
