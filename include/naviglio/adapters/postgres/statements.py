"""The SELECT statements of a snapshot, as text."""

from __future__ import annotations

from collections.abc import Sequence

from naviglio.adapters.postgres.conditions import moment, where
from naviglio.adapters.postgres.hashing import (
    NEAR_BITS,
    NEAR_HASH,
    bucket,
    finished_key,
    mixed,
    raw_key_hash,
    raw_near_hash,
    raw_row_hash,
)
from naviglio.adapters.postgres.moments import microseconds
from naviglio.adapters.postgres.sql import columns, literal, quote, table
from naviglio.conditions import Everything
from naviglio.errors import ConfigError
from naviglio.model import KEY_HASH, ROW_HASH, Column, TableName, Window
from naviglio.ports import Scan

MOST_SCALED_DIGITS = 18  # a decimal of so many digits is an int64 once scaled
NOT_A_NUMBER = -(2**63)  # how NaN travels among scaled decimals, none of which reaches it
_AS_IT_IS = frozenset(
    {"int16", "int32", "int64", "bool", "float32", "float64", "date", "timestamp", "timestamptz"}
) | {"bytes"}
_TEXTS = ("text", "character", "bpchar", "name")  # a cast to text would cut the blanks of char(n)


def read_columns(scan: Scan) -> tuple[Column, ...]:
    """Return the columns that a scan delivers."""
    if scan.rows:
        return scan.schema.columns
    return tuple(scan.schema.column(name) for name in scan.schema.key)


def hash_columns(scan: Scan) -> tuple[str, ...]:
    """Return the names of the hashes that a scan delivers."""
    both = (KEY_HASH, ROW_HASH)
    return {"none": (), "key": both[:1], "row": both[1:], "both": both}[scan.hashes]


def select_rows(scan: Scan) -> str:
    """Return the statement that reads a scan in forms that ADBC carries faithfully."""
    wanted = read_columns(scan)
    shown = [f"{travelling(column)} AS {quote(column.name)}" for column in wanted]
    if scan.hashes == "none":
        return f"SELECT {', '.join(shown)} FROM {table(scan.table)}{_where(scan)}"
    hashes = hash_columns(scan)
    outside = [_finished(scan, name) for name in hashes]
    names = [quote(column.name) for column in wanted]
    inner = _hashed(scan, [raw for name in hashes for raw in _raw(scan, name)], shown)
    return f"SELECT {', '.join([*names, *outside])} FROM ({inner}) AS rows"


def travelling(column: Column) -> str:
    """Return the SQL of the form in which a column's values travel."""
    name = quote(column.name)
    if column.kind == "decimal" and (column.precision or 0) <= MOST_SCALED_DIGITS:
        scaled = (
            f"({name} * {10 ** (column.scale or 0)})::int8" if column.scale else f"{name}::int8"
        )
        return f"CASE WHEN {name} = 'NaN' THEN ({NOT_A_NUMBER})::int8 ELSE {scaled} END"
    plain_text = column.kind == "text" and column.source_type.startswith(_TEXTS)
    return name if plain_text or column.kind in _AS_IT_IS else f"{name}::text"


def count_rows(scan: Scan) -> str:
    """Return the statement that counts a scan's rows."""
    return f"SELECT count(*) FROM {table(scan.table)}{_where(scan)}"


def highest(name: TableName, column: str) -> str:
    """Return the statement that finds the highest value of a column."""
    return f"SELECT max({quote(column)}) AS highest FROM {table(name)}"


def digest_buckets(scan: Scan, bits: int) -> str:
    """Return the statement that counts and sums by the lowest bits of the key's hash."""
    kind = "int4" if bits < 32 else "int8"  # noqa: PLR2004 - the bits of int4, and its sign
    summed = KEY_HASH if scan.hashes == "key" else ROW_HASH
    index = f"{bucket(quote(KEY_HASH), quote(_near(scan)), bits)}::{kind}"
    wider = [KEY_HASH] if bits > NEAR_BITS else []
    inner = _hashed(scan, [_near(scan), *wider, *_raw(scan, summed)])
    return (
        f"SELECT {index}, count(*), bit_xor({_finished(scan, summed)}) FROM ({inner}) AS rows "
        "GROUP BY 1"
    )


def digest_windows(scan: Scan, bounds: Sequence[int], event_time: str) -> str:
    """Return the statement that counts and sums by span between sorted bounds, numbered from 1.

    The bounds are microseconds since 1970 UTC; rows outside of them, or without a time, are left
    out.
    """
    column = scan.schema.column(event_time)
    name = quote(event_time)
    moments = [moment(column, us) for us in bounds]
    summed = KEY_HASH if scan.hashes == "key" else ROW_HASH
    span = f'width_bucket({name}, ARRAY[{", ".join(moments)}]) AS "_span"'
    inside = f"{name} >= {moments[0]} AND {name} < {moments[-1]}"
    inner = _hashed(scan, _raw(scan, summed), [span], inside)
    return (
        f'SELECT "_span", count(*), bit_xor({_finished(scan, summed)}) FROM ({inner}) AS rows '
        "GROUP BY 1"
    )


def bounds_of(windows: Sequence[Window]) -> tuple[list[int], dict[int, int]]:
    """Return the sorted distinct bounds of windows, and of each window its span's number."""
    pairs = [(microseconds(window.start), microseconds(window.end)) for window in windows]
    bounds = sorted({at for pair in pairs for at in pair})
    number = {at: place for place, at in enumerate(bounds, start=1)}
    return bounds, {number[low]: index for index, (low, _) in enumerate(pairs)}


def bad_keys(scan: Scan) -> str:
    """Return the statement that finds keys that are NULL or stand on several rows."""
    key = columns(scan.schema.key)
    missing = " OR ".join(f"{quote(name)} IS NULL" for name in scan.schema.key)
    shown = f"ROW({key})::text" if len(scan.schema.key) > 1 else f"coalesce({key}::text, 'NULL')"
    return (
        f"SELECT {shown} FROM {table(scan.table)}{_where(scan)} GROUP BY {key} "
        f"HAVING count(*) > 1 OR {missing} LIMIT 5"
    )


def unchanged_storage(name: TableName) -> str:
    """Return the statement that tells whether the rows that the snapshot sees are still stored.

    A TRUNCATE or a rewriting ALTER TABLE that commits between a snapshot and its first read leaves
    the table empty to it, by PostgreSQL's own documentation.
    """
    regclass = f"{literal(table(name))}::regclass"
    return (
        "SELECT coalesce(bool_and(c.relfilenode = pg_relation_filenode(c.oid)), true) "
        f"FROM pg_class c WHERE c.relkind IN ('r', 'm') AND (c.oid = {regclass} OR c.oid IN "
        f"(SELECT relid FROM pg_partition_tree({regclass})))"
    )


def _where(scan: Scan, inside: str = "") -> str:
    conditions = [inside] if inside else []
    if not isinstance(scan.where, Everything):
        conditions.append(f"({where(scan.where, scan.schema)})")
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _raw(scan: Scan, name: str) -> tuple[str, ...]:
    """Return the columns of raw hashes that a finished hash is made of."""
    return (_near(scan), KEY_HASH) if name == KEY_HASH else (name,)


def _hashed(scan: Scan, hashes: Sequence[str], shown: Sequence[str] = (), inside: str = "") -> str:
    """Return the inner statement with raw hashes, each computed once thanks to OFFSET 0.

    The 0 is quoted, which makes it a constant to the planner: it may read in parallel.
    """
    if not scan.schema.key:
        raise ConfigError(f"{scan.table} has no key to hash. Declare `key`.")
    raw = {
        KEY_HASH: raw_key_hash(scan.schema),
        _near(scan): raw_near_hash(scan.schema),
        ROW_HASH: raw_row_hash(scan.schema),
    }
    listed = [*shown, *(f"{raw[name]} AS {quote(name)}" for name in dict.fromkeys(hashes))]
    return f"SELECT {', '.join(listed)} FROM {table(scan.table)}{_where(scan, inside)} OFFSET '0'"


def _finished(scan: Scan, name: str) -> str:
    """Return the SQL of a finished hash from the columns of the inner statement."""
    if name == KEY_HASH:
        return finished_key(quote(KEY_HASH), quote(_near(scan)))
    return mixed(quote(name))


def _near(scan: Scan) -> str:
    """Return the column that the lowest bits of the key's hash come from."""
    same = raw_near_hash(scan.schema) == raw_key_hash(scan.schema)
    return KEY_HASH if same else NEAR_HASH
