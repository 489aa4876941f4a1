"""Hashes of rows and keys, computed by DuckDB over bytes and never over equality.

A value is its exact text after its length, NULL none at all, so no two rows have one encoding.
MD5 of it, its lower 64 bits. DuckDB's own `hash` may change with any version.
"""

from __future__ import annotations

from collections.abc import Iterable

from naviglio.adapters.duckdb.sql import quote
from naviglio.model import Column, TableSchema

HASH_SPEC = "duckdb-text-md5-1"


def key_hash(schema: TableSchema) -> str:
    """Return the SQL of the key's hash, a signed 64-bit integer."""
    return _hash(schema.column(name) for name in schema.key)


def row_hash(schema: TableSchema) -> str:
    """Return the SQL of the whole row's hash."""
    return _hash(schema.columns)


def mask(bits: int) -> int:
    """Return the integer whose lowest `bits` bits are set, signed."""
    return (1 << bits) - 1 if bits < 64 else -1  # noqa: PLR2004 - a hash has 64 bits


def _hash(columns: Iterable[Column]) -> str:
    encoded = " || ".join(_encoded(column) for column in columns)
    half, whole = 1 << 63, 1 << 64
    return (
        f"list_transform([md5_number_lower({encoded})], lambda u: CASE WHEN u >= {half} "
        f"THEN (u::HUGEINT - {whole})::BIGINT ELSE u::BIGINT END)[1]"
    )


def _encoded(column: Column) -> str:
    name = quote(column.name)
    text = f"hex({name})" if column.kind == "bytes" else f"{name}::VARCHAR"
    return f"coalesce(strlen({text}) || ':' || {text}, '-')"
