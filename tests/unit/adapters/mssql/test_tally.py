"""The checksum of staged rows: what Arrow sums, and that the server is asked for the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from typing import Any

import pyarrow as pa
import pytest
import sqlglot
from hypothesis import example, given
from hypothesis import strategies as st

from naviglio.adapters.mssql.tally import Tally, differences, figures_query
from tests.unit.adapters.mssql.tsql import parsed

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEAST = 8192  # the weight of a row whose key is 0, or has no number
TEXTS = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
NUMBERS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1))


def figures(type_: pa.DataType, *batches: list[Any]) -> tuple[Any, ...]:
    """Return the three figures of one column, whose rows have one weight."""
    tally = Tally(pa.schema([("key", pa.float64()), ("c1", type_)]), "key")
    for values in batches:
        columns = [pa.nulls(len(values), pa.float64()), pa.array(values, type_)]
        tally.add(pa.record_batch(columns, schema=tally.schema))
    assert tally.figures[0] == sum(map(len, batches))
    return tally.figures[4:]


def measure(value: str | bytes) -> int:
    """Measure a text or bytes by the definition."""
    units = value.encode("utf-16-le", "surrogatepass") if isinstance(value, str) else value
    width = 2 if isinstance(value, str) else 1
    ends = (units[:width], units[len(units) - width :])
    first, last = (int.from_bytes(one, "little") for one in ends)
    return len(units) + 257 * first + 65537 * last


def summed(values: Sequence[int]) -> tuple[Any, ...]:
    """Return the figures of whole numbers in rows of one weight."""
    total = sum(values)
    return (len(values), *((total, LEAST * total) if values else (None, None)))


@given(TEXTS, TEXTS)
@example(["😀a", "a😀", "é", "€", "", None, "a"], ["\0", "\U0010ffff", "\ud7ff", "\ue000"])
def test_text_is_measured_as_the_server_does(one: list[str | None], two: list[str | None]) -> None:
    """DATALENGTH counts the bytes of UTF-16, UNICODE tells its first unit."""
    said = [measure(text) for text in one + two if text is not None]
    assert figures(pa.string(), one, two) == summed(said)


@given(st.lists(st.none() | st.binary(max_size=5)), st.lists(st.none() | st.binary(max_size=5)))
def test_bytes_are_measured_alike(one: list[bytes | None], two: list[bytes | None]) -> None:
    """Their length, first and last."""
    said = [measure(content) for content in one + two if content is not None]
    assert figures(pa.binary(), one, two) == summed(said)


@given(NUMBERS, NUMBERS)
def test_sums_never_wrap(one: list[int | None], two: list[int | None]) -> None:
    """Any number of the largest integers."""
    said = [number for number in one + two if number is not None]
    assert figures(pa.int64(), one, two) == summed(said)


@given(st.lists(st.none() | st.decimals(-(10**20), 10**20, places=2), max_size=20))
def test_decimals_are_summed_to_their_last_digit(values: list[Decimal | None]) -> None:
    """Beyond the 28 digits that Python's own context keeps."""
    exact = localcontext(prec=60)
    with exact:
        said = [value for value in values if value is not None]
        total = sum(said, Decimal(0))
        expected = (total, total * LEAST) if said else (None, None)
    assert figures(pa.decimal128(23, 2), values) == (len(said), *expected)


@pytest.mark.parametrize(
    ("type_", "values", "expected"),
    [
        (pa.bool_(), [True, None, True], (2, 2, 2 * LEAST)),
        (pa.date32(), [date(1970, 1, 3), date(1969, 12, 31)], (2, 1, LEAST)),
        (pa.timestamp("us"), [datetime(1970, 1, 1, 0, 0, 1)], summed([10**6])),  # noqa: DTZ001
        (pa.timestamp("us", tz="UTC"), [EPOCH.replace(year=1)], summed([-62135596800 * 10**6])),
        (
            pa.decimal128(9, 2), [Decimal("1.10"), Decimal("-0.05")],
            (2, Decimal("1.05"), LEAST * Decimal("1.05")),
        ),
        (pa.decimal128(28, 0), [Decimal(10**27), Decimal(1)], (2, Decimal(10**27 + 1), None)),
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


def sent(*rows: tuple[Any, ...]) -> Tally:
    """Return the tally of rows of key, number, text and decimal."""
    schema = pa.schema(
        [("c1", pa.int64()), ("c2", pa.int32()), ("c3", pa.string()), ("c4", pa.decimal128(9, 2))]
    )
    tally = Tally(schema, "c1")
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, one.type) for values, one in zip(columns, schema, strict=True)]
    tally.add(pa.record_batch(arrays, schema=schema))
    return tally


@pytest.mark.parametrize("column", [1, 2, 3])
def test_values_that_changed_places_are_noticed(column: int) -> None:
    """Though their sums are what they were."""
    rows = [(-5, 10, "ab", Decimal(1)), (7, 20, "bb", Decimal(2)), (9, None, None, None)]
    one, other = [list(row) for row in rows[:2]]
    one[column], other[column] = other[column], one[column]
    tally, swapped = sent(*rows), sent(tuple(one), tuple(other), rows[2])
    found = differences(tally.figures, swapped.figures, tally.schema)
    assert found == [f"c{column + 1}"]


def test_the_weight_of_a_row_is_its_keys() -> None:
    """Also of a text, of a negative number (signed as T-SQL's remainder) and of none."""
    for keys, type_ in (([-8192, 3, None], pa.int64()), (["ab", "", None], pa.string())):
        schema = pa.schema([("k", type_), ("c", pa.int64())])
        tally = Tally(schema, "k")
        arrays = [pa.array(keys, type_), pa.array([1, 10, 100], pa.int64())]
        tally.add(pa.record_batch(arrays, schema=schema))
        numbers = [0 if k is None else measure(k) if isinstance(k, str) else k for k in keys]
        weights = [int(math.fmod(number, 8191)) + LEAST for number in numbers]
        assert tally.figures[-1] == sum(w * n for w, n in zip(weights, (1, 10, 100), strict=True))


def test_the_server_is_asked_for_the_same() -> None:
    """Three figures a column, each as T-SQL."""
    schema = pa.schema(
        [("c1", pa.int64()), ("c2", pa.string()), ("c3", pa.date32()), ("c4", pa.float32()),
         ("c5", pa.timestamp("us")), ("c6", pa.decimal128(9, 2)), ("c7", pa.decimal128(38, 2)),
         ("c8", pa.binary())]
    )  # fmt: skip
    query = figures_query("[naviglio].[s_1]", schema, "c1")
    text = (
        "DATALENGTH(s.[c2]) + CAST(ISNULL(UNICODE(s.[c2]), 0) AS bigint) * 257"
        " + CAST(ISNULL(UNICODE(RIGHT(s.[c2], 1)), 0) AS bigint) * 65537"
    )
    content = (
        "DATALENGTH(s.[c8]) + CAST(CAST(SUBSTRING(s.[c8], 1, 1) AS binary(1)) AS bigint) * 257"
        " + CAST(CAST(SUBSTRING(s.[c8], DATALENGTH(s.[c8]), 1) AS binary(1)) AS bigint) * 65537"
    )

    day = "DATEDIFF(day, '19700101', s.[c3])"
    moment = "DATEDIFF_BIG(microsecond, '19700101', s.[c5])"

    def sums(number: str) -> str:
        return (
            f"SUM(CAST({number} AS decimal(38,0))),"
            f" SUM(CAST({number} AS decimal(19,0)) * k.[weight])"
        )

    assert query == (
        "SELECT COUNT_BIG(*),"
        f" COUNT_BIG(s.[c1]), {sums('s.[c1]')},"
        f" COUNT_BIG(s.[c2]), {sums(text)},"
        f" COUNT_BIG(s.[c3]), {sums(day)},"
        " COUNT_BIG(s.[c4]), MIN(s.[c4]), MAX(s.[c4]),"
        f" COUNT_BIG(s.[c5]), {sums(moment)},"
        " COUNT_BIG(s.[c6]), SUM(CAST(s.[c6] AS decimal(38,2))),"
        " SUM(CAST(s.[c6] AS decimal(9,2)) * k.[weight]),"
        " COUNT_BIG(s.[c7]), MIN(s.[c7]), MAX(s.[c7]),"
        f" COUNT_BIG(s.[c8]), {sums(content)}"
        " FROM [naviglio].[s_1] AS s CROSS APPLY (SELECT"
        " CAST(CAST(ISNULL(s.[c1], 0) AS bigint) % 8191 + 8192 AS decimal(5,0)) AS [weight]) AS k"
    )
    (tree,) = parsed(query)
    assert isinstance(tree, sqlglot.exp.Select)
    assert len(tree.selects) == 1 + 3 * len(schema)


@pytest.mark.parametrize("type_", [pa.decimal128(9, 2), pa.float64()])
def test_a_key_without_a_number_weighs_all_rows_alike(type_: pa.DataType) -> None:
    """Values that change places are not noticed then."""
    query = figures_query("[naviglio].[s_1]", pa.schema([("c1", type_)]), "c1")
    assert "CAST(CAST(ISNULL(0, 0) AS bigint) % 8191" in query
    parsed(query)


def test_what_differs_is_named() -> None:
    """A lost row, a NULL that became a default, a rounded value."""
    schema = pa.schema([("c1", pa.int64()), ("c2", pa.string())])
    sent = (2, 2, 3, None, 1, 8, None)
    stored = (Decimal(2), 2, Decimal(3), None, 1, Decimal(8), None)
    assert differences(sent, stored, schema) == []
    assert differences(sent, (1, 1, 2, None, 1, 8, None), schema) == ["c1", "rows"]
    assert differences(sent, (2, 2, 3, None, 2, 8, None), schema) == ["c2"]
