"""Two vendors' spellings of one value compare as equal; one vendor's own are left alone."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa

from naviglio.model import Column, TableSchema
from naviglio.quality.alike import alike

MOMENTS = ["1970-01-01T00:00:00.000000+00:00", "1970-01-01T00:00:00.000001+00:00", None]


def schema(**carriers: str) -> TableSchema:
    """Return a schema whose columns are numbers without bounds, or moments with a zone."""
    columns = tuple(
        Column(name=name, kind="number" if name == "n" else "timestamptz", carrier=carrier,
               source_type="")
        for name, carrier in carriers.items()
    )  # fmt: skip
    return TableSchema(columns=columns, key=("n",))


def test_a_decimal_is_the_number_that_it_was_given() -> None:
    """Blank digits go on both sides; an offset of zero is UTC."""
    lake = schema(n="string", m="timestamp[us, tz=UTC]")
    target = schema(n="decimal128(38, 18)", m="string")
    kind, numbers = pa.timestamp("us", "UTC"), [Decimal("1.5"), Decimal("1E-18"), Decimal(0)]
    expected = pa.record_batch(
        {"n": ["1.50", "0.000000000000000001", "0.00"], "m": pa.array([0, 1, None], kind)}
    )
    actual = pa.record_batch({"n": pa.array(numbers, pa.decimal128(38, 18)), "m": MOMENTS})
    (one,), (other,) = (list(alike(iter([b]), lake, target)) for b in (expected, actual))
    assert one == other
    assert one["n"].to_pylist() == ["1.5", "0.000000000000000001", "0"]


def test_what_has_one_carrier_stays_as_it_is() -> None:
    """1.0 and 1.00 differ where both sides keep the text."""
    same = schema(n="string")
    batch = pa.record_batch({"n": ["1.0", "1.00"]})
    assert list(alike(iter([batch]), same, same)) == [batch]
