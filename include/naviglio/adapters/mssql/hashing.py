"""Hashes of rows and keys, computed by the server over bytes and never over equality.

A value is its bytes after a mark and their number, NULL a mark alone, so no two rows have one
encoding. SHA-256 of it, its first 64 bits. CHECKSUM_AGG over their halves is their xor.
"""

from __future__ import annotations

from collections.abc import Iterable

from naviglio.adapters.mssql.carried import as_bytes
from naviglio.adapters.mssql.sql import quote
from naviglio.model import Column, TableSchema

HASH_SPEC = "mssql-bytes-sha256-1"
KEY, ROW = "h.[k]", "h.[r]"  # the hashes of one row, as `applied` names them


def applied(schema: TableSchema) -> str:
    """Return what a statement applies to each row of `t` to have the hashes beside it."""
    key = _hash(schema.column(name) for name in schema.key)
    return f"CROSS APPLY (SELECT {key} AS [k], {_hash(schema.columns)} AS [r]) AS h"


def number(digest: str) -> str:
    """Return a hash as a signed 64-bit integer."""
    return f"CAST(SUBSTRING({digest}, 1, 8) AS bigint)"


def summed(digest: str) -> tuple[str, str]:
    """Return the xor of many hashes, as its upper and its lower half."""
    halves = (f"CAST(SUBSTRING({digest}, {at}, 4) AS int)" for at in (1, 5))
    upper, lower = (f"CHECKSUM_AGG({half})" for half in halves)
    return upper, lower


def joined(upper: int, lower: int) -> int:
    """Return the signed 64-bit integer of two signed halves."""
    return (upper << 32) | (lower & 0xFFFFFFFF)


def mask(bits: int) -> int:
    """Return the integer whose lowest `bits` bits are set, signed."""
    return (1 << bits) - 1 if bits < 64 else -1  # noqa: PLR2004 - a hash has 64 bits


def _hash(columns: Iterable[Column]) -> str:
    parts = " + ".join(_encoded(column) for column in columns)
    return f"HASHBYTES('SHA2_256', CAST(0x AS varbinary(max)) + {parts})"


def _encoded(column: Column) -> str:
    held = as_bytes(column)
    return (
        f"CASE WHEN t.{quote(column.name)} IS NULL THEN 0x00 "
        f"ELSE 0x01 + CAST(DATALENGTH({held}) AS binary(8)) + {held} END"
    )
