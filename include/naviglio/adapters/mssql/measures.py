"""A whole number for each value, which Arrow's memory and T-SQL tell alike.

Of numbers and moments it is the value; of text and bytes the length, the first and the last unit
(of UTF-16), which T-SQL has without a look at each. All units would take a hash: HASHBYTES costs
the server and, a value at a time, this side more than the copy does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Whole = npt.NDArray[np.int64]
_FIRST, _LAST = 257, 65537  # what the first and the last unit count, beside the length
_ASTRAL = 0x10000  # from here on a character has two units
# Of UTF-8: a byte that continues a character, and the first bytes of those of 2, 3 and 4 bytes.
_TOP, _CONTINUES = 0xC0, 0x80
_LEADS = (0xC0, 0xE0, 0xF0)


def expression(column: str, type_: pa.DataType) -> str:
    """Return the server's expression of a column's number."""
    if pa.types.is_string(type_):
        first, last = f"UNICODE({column})", f"UNICODE(RIGHT({column}, 1))"
        ends = (f"CAST(ISNULL({one}, 0) AS bigint)" for one in (first, last))
    elif pa.types.is_binary(type_):
        places = ("1", f"DATALENGTH({column})")
        ends = (f"CAST(CAST(SUBSTRING({column}, {at}, 1) AS binary(1)) AS bigint)" for at in places)
    elif pa.types.is_date(type_):
        return f"DATEDIFF(day, '19700101', {column})"
    elif pa.types.is_timestamp(type_):
        return f"DATEDIFF_BIG(microsecond, '19700101', {column})"
    else:
        return column
    first, last = ends
    return f"DATALENGTH({column}) + {first} * {_FIRST} + {last} * {_LAST}"


def measured(array: pa.Array) -> Whole:
    """Return the numbers of an array without NULL."""
    type_ = array.type
    if pa.types.is_string(type_) or pa.types.is_binary(type_):
        return _ends(array, text=pa.types.is_string(type_))
    if pa.types.is_date(type_):
        array = array.cast(pa.int32())
    elif pa.types.is_boolean(type_):
        array = array.cast(pa.int8())
    elif pa.types.is_timestamp(type_):
        array = array.cast(pa.int64())
    return np.asarray(array.to_numpy(zero_copy_only=False), np.int64)


def unscaled(array: pa.Array) -> tuple[Whole, npt.NDArray[np.uint64]]:
    """Return the upper and lower halves of decimals without NULL, as whole numbers."""
    words = np.frombuffer(array.buffers()[1], "<u8")[2 * array.offset :][: 2 * len(array)]
    return words[1::2].view(np.int64), words[0::2]


def _ends(array: pa.Array, *, text: bool) -> Whole:
    _, places, content = array.buffers()
    bounds = np.frombuffer(places, np.int32)[array.offset :][: len(array) + 1].astype(np.int64)
    data = np.frombuffer(content if content is not None and content.size else b"\0", np.uint8)
    start, end = bounds[:-1], bounds[1:]
    plain = not text or not bool((data[bounds[0] : bounds[-1]] & 0x80).any())
    some = end > start
    if plain:
        size = (end - start) * (2 if text else 1)
        first, last = data[np.where(some, start, 0)], data[np.where(some, end - 1, 0)]
        ends = first.astype(np.int64) * _FIRST + last.astype(np.int64) * _LAST
    else:
        size = 2 * _units(data, bounds)
        first_at, last_at = np.where(some, start, 0), _last_character(data, start, end)
        one, other = _character(data, first_at), _character(data, np.where(some, last_at, 0))
        upper = np.where(one < _ASTRAL, one, 0xD800 + ((one - _ASTRAL) >> 10))
        lower = np.where(other < _ASTRAL, other, 0xDC00 + ((other - _ASTRAL) & 0x3FF))
        ends = upper * _FIRST + lower * _LAST
    return np.asarray(size + np.where(some, ends, 0), np.int64)


def _units(data: npt.NDArray[np.uint8], bounds: Whole) -> Whole:
    """Count the UTF-16 units of each text: one a character, two of an astral one."""
    used = data[bounds[0] : bounds[-1]]
    units = ((used & _TOP) != _CONTINUES).astype(np.int8) + (used >= _LEADS[-1])
    total = np.concatenate(([0], np.cumsum(units, dtype=np.int64)))
    return np.asarray(np.diff(total[bounds - bounds[0]]), np.int64)


def _last_character(data: npt.NDArray[np.uint8], start: Whole, end: Whole) -> Whole:
    """Return where each text's last character begins."""
    at = end - 1
    for _ in range(3):  # a character has at most four bytes
        inside = (at > start) & ((data[np.maximum(at, 0)] & _TOP) == _CONTINUES)
        at = np.where(inside, at - 1, at)
    return at


def _character(data: npt.NDArray[np.uint8], at: Whole) -> Whole:
    """Return the code point that begins at each place."""
    lead, two, three, four = (
        data[np.minimum(at + n, len(data) - 1)].astype(np.int64) for n in range(4)
    )
    two, three, four = two & 0x3F, three & 0x3F, four & 0x3F
    wide: list[Any] = [
        lead,
        (lead & 0x1F) << 6 | two,
        (lead & 0x0F) << 12 | two << 6 | three,
        (lead & 0x07) << 18 | two << 12 | three << 6 | four,
    ]
    kind = np.sum([lead >= least for least in _LEADS], axis=0)
    return np.asarray(np.choose(kind, wide), np.int64)
