"""The hashes: no two rows have one encoding, as the very expression in the statement computes it.

It is read as T-SQL and worked out here by what SQL Server documents of each step.
"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from naviglio.adapters.mssql.hashing import applied, joined
from naviglio.model import TableSchema
from tests.unit.adapters.mssql.described import column
from tests.unit.adapters.mssql.tsql import parsed

Value = str | bytes | int | None
THREE = TableSchema(
    columns=(
        column("a", "varbinary(max)"), column("b", "nvarchar(max)"), column("c", "varbinary(max)"),
    ),
    key=("a", "b"),
)  # fmt: skip


@cache
def hashed(name: str) -> exp.Expr:
    """Return what is hashed as `k` or `r` of a row, as a tree."""
    (tree,) = parsed(f"SELECT 1 FROM x AS t {applied(THREE)}")
    (found,) = (node for node in tree.find_all(exp.Alias) if node.alias == name)
    assert isinstance(found.this, exp.SHA2)
    inner = found.this.this
    assert isinstance(inner, exp.Expr)
    return inner


def encoding(name: str, row: dict[str, Value]) -> bytes:
    """Return the bytes that are hashed."""
    found = worked_out(hashed(name), row)
    assert isinstance(found, bytes)
    return found


def worked_out(node: exp.Expr, row: dict[str, Value]) -> Value:
    """Work an expression out; a NULL makes all but IS NULL a NULL."""
    match node:
        case exp.Column():
            return b"" if node.name == "0x" else row[node.name]
        case exp.HexString():
            return bytes.fromhex(str(node.this))
        case exp.Case():
            (when,) = node.args["ifs"]
            assert isinstance(when.this, exp.Is)
            assert isinstance(when.this.expression, exp.Null)
            missing = worked_out(when.this.this, row) is None
            return worked_out(when.args["true"] if missing else node.args["default"], row)
        case exp.Add():
            return joint(worked_out(node.this, row), worked_out(node.expression, row))
        case exp.Cast():
            return cast(worked_out(node.this, row), node.to.sql("tsql"))
        case _:
            assert node.name == "DATALENGTH"
            held = worked_out(node.expressions[0], row)
            return len(held) if isinstance(held, bytes) else None


def joint(one: Value, other: Value) -> bytes | None:
    """Join bytes."""
    return one + other if isinstance(one, bytes) and isinstance(other, bytes) else None


def cast(value: Value, to: str) -> Value:
    """Cast as the server does: texts are UTF-16, numbers have their highest byte first."""
    if value is None:
        return None
    if to == "BINARY(8)":
        assert isinstance(value, int)
        return value.to_bytes(8, "big")
    if to == "VARBINARY(MAX)":
        return value.encode("utf-16-le") if isinstance(value, str) else value
    assert to == "NVARCHAR(MAX)"
    return value


def row(a: bytes | None, b: str | None, c: bytes | None) -> dict[str, Value]:
    """Return a row."""
    return {"a": a, "b": b, "c": c}


def encoded(value: bytes) -> bytes:
    """Return what one value becomes, to be put into another one."""
    return b"\x01" + len(value).to_bytes(8, "big") + value


# Marks, lengths and whole encodings, as a value that wants to be taken for two would hold.
PIECES = st.lists(
    st.sampled_from(
        [b"", b"\x00", b"\x01", b"\x00\x00", encoded(b""), encoded(b"a\x00"), b"a\x00"]
    ),
    max_size=4,
).map(b"".join)
BYTES = st.none() | PIECES
TEXTS = st.none() | PIECES.map(lambda piece: piece.decode("latin-1")) | st.sampled_from(["", "a"])
ROWS = st.tuples(BYTES, TEXTS, BYTES)


@settings(max_examples=200, deadline=None)
@given(ROWS, ROWS)
def test_no_two_rows_have_one_encoding(
    one: tuple[bytes | None, str | None, bytes | None],
    other: tuple[bytes | None, str | None, bytes | None],
) -> None:
    """Whatever their values hold; of keys likewise."""
    same = encoding("r", row(*one)) == encoding("r", row(*other))
    assert same == (one == other)
    same_key = encoding("k", row(*one)) == encoding("k", row(*other))
    assert same_key == (one[:2] == other[:2])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((None, "a", b""), (b"", "a", b"")),
        ((b"", "", None), (b"", None, b"")),
        ((b"a", "b", b""), (b"ab"[:1], "", b"b")),
        ((b"\x00", "", b""), (None, "", b"")),
        ((b"", "a", b""), (b"", "a ", b"")),
        ((encoded(b"x"), None, None), (b"x", "x", None)),
    ],
)
def test_values_do_not_shift_between_columns(
    one: tuple[bytes | None, str | None, bytes | None],
    other: tuple[bytes | None, str | None, bytes | None],
) -> None:
    """NULL is no empty value, and a length stands before each."""
    assert encoding("r", row(*one)) != encoding("r", row(*other))


def test_an_encoding_can_be_taken_apart_again() -> None:
    """A mark, eight bytes of length, the value: this is why no two rows have one."""
    assert encoding("r", row(b"x", None, b"")) == encoded(b"x") + b"\x00" + encoded(b"")


@given(st.integers(-(2**63), 2**63 - 1))
def test_halves_make_the_whole(number: int) -> None:
    """A signed 64-bit hash is its two signed halves."""
    raw = number.to_bytes(8, "big", signed=True)
    upper, lower = (int.from_bytes(raw[i : i + 4], "big", signed=True) for i in (0, 4))
    assert joined(upper, lower) == number
