"""Hashes of rows and keys, computed by the server over bytes and never over equality.

Each column has its own 64-bit hash (Bob Jenkins', by the type's own extended hash function) under
its own seed; a row's hash is their xor, mixed, so that a sum over rows sees two rows swap values.
A type's hash function serves where equal means identical byte for byte. A numeric, whose own
function sees neither its sign nor 1.0 from 1.00, is hashed as its text. Elsewhere (float 0 and -0,
json's blanks, 8-byte times, whose hash folds to 32 bits) the bytes of the type's binary send
function are hashed. No session setting takes part but the client's encoding, which is pinned.

The lowest bits of a key's hash, which make the buckets, leave out the last bits of the key's last
integer: a few neighbours share a bucket. They mostly lie side by side in the table, so the server's
sums stay in its caches (a third of the time), and what changed together is read together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from naviglio.adapters.postgres.sql import quote
from naviglio.adapters.postgres.types import LITERAL_SEND
from naviglio.model import Column, Kind, TableSchema

HASH_SPEC = "pg-send-jenkins-2"
NEAR_HASH = "_near_hash"  # what the lowest bits of a finished key hash come from
_NULL = 0x6E61766967_000000  # of a NULL, plus the column's seed
NEAR_BITS = 24  # the lowest of a key hash; the others tell keys of one bucket apart
_NEIGHBOURS = 3  # the last bits of an integer: at most 8 keys, a third of a bucket
_INTEGERS = ("int16", "int32", "int64")
_SPELLED = {"bit varying": "varbit", "time with time zone": "timetz"}
_SEND: dict[Kind, str] = {
    "bool": "boolsend",
    "float32": "float4send",
    "float64": "float8send",
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


def raw_near_hash(schema: TableSchema) -> str:
    """Return the SQL of the hash that neighbours of a key share; the key's own where none can."""
    columns = [schema.column(name) for name in schema.key]
    integers = [column.name for column in columns if column.kind in _INTEGERS]
    return _combined(columns, near=integers[-1] if integers else "")


def mixed(raw: str) -> str:
    """Return the SQL of a finished row hash from a raw one.

    A value that is its own seed: all 64 bits take part, although the function folds its argument.
    It names its argument twice, so a costly one should be a column of a subquery.
    """
    return f"hashint8extended({raw}, {raw})"


def finished_key(raw: str, near: str) -> str:
    """Return the SQL of a finished key hash from its two raw ones."""
    low = (1 << NEAR_BITS) - 1
    return f"(({mixed(raw)} & ({~low})) | (({near}) & {low}))"


def bucket(raw: str, near: str, bits: int) -> str:
    """Return the SQL of the lowest bits of a finished key hash."""
    if bits > NEAR_BITS:
        return f"({finished_key(raw, near)} & {_mask(bits)})"
    return f"(({near}) & {_mask(bits)})"


def _mask(bits: int) -> str:
    return str((1 << bits) - 1) if bits < 64 else "(-1)"  # noqa: PLR2004 - a hash has 64 bits


def _combined(columns: Iterable[Column], near: str = "") -> str:
    single: list[str] = []
    sent: list[str] = []
    for seed, column in enumerate(columns, start=1):
        value = quote(column.name)
        if column.name == near:
            value = f"({value} >> {_NEIGHBOURS})"
        direct = _direct(column, value, seed)
        if direct is None:
            sent.append(f"{_send(column)}({value})")
        else:
            single.append(f"coalesce({direct}, {_NULL + seed})")
    if sent:
        single.append(f"hash_record_extended(ROW({', '.join(sent)}), 0)")
    return " # ".join(single)


def _direct(column: Column, value: str, seed: int) -> str | None:  # noqa: PLR0911 - a table of types
    """Return the SQL of a hash that is exact without the send function, or None."""
    match column.kind:
        case "int16":
            return f"hashint2extended({value}, {seed})"
        case "int32":
            return f"hashint4extended({value}, {seed})"
        case "int64":  # the function folds to 32 bits; the seed takes all 64
            return f"hashint8extended({value}, {value} # {seed})"
        case "date":
            return _direct_date(value, seed)
        case "uuid":
            return f"uuid_hash_extended({value}, {seed})"
        case "decimal" | "number":
            return f"hashtextextended({value}::text, {seed})"
        case "text":
            return _direct_text(column, seed)
        case _:
            return None


def _direct_date(value: str, seed: int) -> str:
    """A date has no hash of a name of its own before version 18, and infinity is no number of days.

    An array has the hash of its element.
    """
    return (
        f"CASE WHEN isfinite({value}::date) "
        f"THEN hashint4extended({value}::date - '2000-01-01'::date, {seed}) "
        f"ELSE hash_array_extended(ARRAY[{value}::date], {seed}) END"
    )


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
