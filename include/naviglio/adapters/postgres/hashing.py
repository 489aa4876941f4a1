"""Hashes of rows and keys, computed by the server over bytes and never over equality.

Each column has its own 64-bit hash (Bob Jenkins', by the type's own extended hash function) under
its own seed; a row's hash is their xor, mixed, so that a sum over rows sees two rows swap values.
A type's hash function serves where equal means identical byte for byte. Elsewhere (numeric 1.0 and
1.00, float 0 and -0, json's blanks, 8-byte times, whose hash folds to 32 bits) the bytes of the
type's binary send function are hashed. No session setting takes part but the client's encoding,
which is pinned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from naviglio.adapters.postgres.sql import quote
from naviglio.adapters.postgres.types import LITERAL_SEND
from naviglio.model import Column, Kind, TableSchema

HASH_SPEC = "pg-send-jenkins-1"
_NULL = 0x6E61766967_000000  # of a NULL, plus the column's seed
_SPELLED = {"bit varying": "varbit", "time with time zone": "timetz"}
_SEND: dict[Kind, str] = {
    "bool": "boolsend",
    "float32": "float4send",
    "float64": "float8send",
    "decimal": "numeric_send",
    "number": "numeric_send",
    "time": "time_send",
    "timestamp": "timestamp_send",
    "timestamptz": "timestamptz_send",
    "interval": "interval_send",
    "bytes": "byteasend",
    "json": "json_send",
    "jsonb": "jsonb_send",
}
_TEXT_SEND = {"text": "textsend", "character varying": "varcharsend", "name": "namesend"}


def raw_key_hash(schema: TableSchema) -> str:
    """Return the SQL of the key's hash before it is mixed."""
    return _combined(schema.column(name) for name in schema.key)


def raw_row_hash(schema: TableSchema) -> str:
    """Return the SQL of the whole row's hash before it is mixed."""
    return _combined(schema.columns)


def mixed(raw: str) -> str:
    """Return the SQL of a finished hash from a raw one.

    A value that is its own seed: all 64 bits take part, although the function folds its argument.
    It names its argument twice, so a costly one should be a column of a subquery.
    """
    return f"hashint8extended({raw}, {raw})"


def key_hash(schema: TableSchema) -> str:
    """Return the SQL of the key's finished hash as one expression, for conditions."""
    return mixed(f"({raw_key_hash(schema)})")


def _combined(columns: Iterable[Column]) -> str:
    single: list[str] = []
    sent: list[str] = []
    for seed, column in enumerate(columns, start=1):
        direct = _direct(column, seed)
        if direct is None:
            sent.append(f"{_send(column)}({quote(column.name)})")
        else:
            single.append(f"coalesce({direct}, {_NULL + seed})")
    if sent:
        single.append(f"hash_record_extended(ROW({', '.join(sent)}), 0)")
    return " # ".join(single)


def _direct(column: Column, seed: int) -> str | None:  # noqa: PLR0911 - a table of types
    """Return the SQL of a hash that is exact without the send function, or None."""
    name = quote(column.name)
    match column.kind:
        case "int16":
            return f"hashint2extended({name}, {seed})"
        case "int32":
            return f"hashint4extended({name}, {seed})"
        case "int64":  # the function folds to 32 bits; the seed takes all 64
            return f"hashint8extended({name}, {name} # {seed})"
        case "date":  # an array has the hash of its element, which has no name before version 18
            return f"hash_array_extended(ARRAY[{name}::date], {seed})"
        case "uuid":
            return f"uuid_hash_extended({name}, {seed})"
        case "text":
            return _direct_text(column, seed)
        case _:
            return None


def _direct_text(column: Column, seed: int) -> str | None:
    """Text compares byte by byte under a deterministic collation, as all of pg_catalog's are.

    The blanks at the end of `char(n)` don't count for its hash, and there are always as many.
    """
    if column.collation is not None and not column.collation.startswith("pg_catalog."):
        return None
    spelled, name = _spelled(column), quote(column.name)
    if spelled in {"text", "character varying"}:
        return f"hashtextextended({name}::text, {seed})"
    if spelled == "character" and column.length is not None:
        return f"hashbpcharextended({name}, {seed})"
    return None


def _send(column: Column) -> str:
    if column.kind == "literal":
        if column.source_type.endswith("[]"):
            return "array_send"
        spelled = _spelled(column)
        return LITERAL_SEND[_SPELLED.get(spelled, spelled)]
    if column.kind == "text":
        spelled = _spelled(column)
        if spelled in {"character", "bpchar"}:
            return "bpcharsend"
        return _TEXT_SEND.get(spelled, "enum_send")
    return _SEND[column.kind]


def _spelled(column: Column) -> str:
    """Return the type's name without its bounds; types outside of pg_catalog keep their schema."""
    return re.sub(r"\(\d+\)", "", column.source_type)
