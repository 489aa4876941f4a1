"""The hashes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from naviglio.adapters.mssql.hashing import joined


@given(st.integers(-(2**63), 2**63 - 1))
def test_halves_make_the_whole(number: int) -> None:
    """A signed 64-bit hash is its two signed halves."""
    raw = number.to_bytes(8, "big", signed=True)
    upper, lower = (int.from_bytes(raw[i : i + 4], "big", signed=True) for i in (0, 4))
    assert joined(upper, lower) == number
