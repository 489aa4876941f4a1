"""Which logical type and carrier a DuckDB type has, and the SQL that reads it as it is carried."""

from __future__ import annotations

from naviglio.adapters.duckdb.sql import literal, quote
from naviglio.adapters.duckdb.types import Decimal
from naviglio.model import BEYOND, Column, Kind, TableSchema

_CARRIED: dict[str, tuple[Kind, str]] = {
    "TINYINT": ("int16", "int16"), "UTINYINT": ("int16", "int16"), "SMALLINT": ("int16", "int16"),
    "USMALLINT": ("int32", "int32"), "INTEGER": ("int32", "int32"),
    "UINTEGER": ("int64", "int64"), "BIGINT": ("int64", "int64"),
    "UBIGINT": ("number", "string"), "HUGEINT": ("number", "string"),
    "UHUGEINT": ("number", "string"),
    "BOOLEAN": ("bool", "bool"), "FLOAT": ("float32", "float"), "DOUBLE": ("float64", "double"),
    "VARCHAR": ("text", "string"), "DATE": ("date", "date32[day]"), "TIME": ("time", "string"),
    "TIMESTAMP": ("timestamp", "timestamp[us]"), "TIMESTAMP_S": ("timestamp", "timestamp[us]"),
    "TIMESTAMP_MS": ("timestamp", "timestamp[us]"),
    "TIMESTAMP WITH TIME ZONE": ("timestamptz", "timestamp[us, tz=UTC]"),
    "UUID": ("uuid", "string"), "BLOB": ("bytes", "binary"), "JSON": ("json", "string"),
    "INTERVAL": ("literal", "string"),
}  # fmt: skip
_ARROW = {
    "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT", "string": "VARCHAR",
    "timestamp[us]": "TIMESTAMP",
}  # fmt: skip
_TIMES = frozenset({"date", "timestamp", "timestamptz"})
_FIRST, _AFTER = "0001-01-01", "10000-01-01"  # the years that every carrier of a time holds


def column_of(name: str, spelled: str, *, nullable: bool) -> Column | None:
    """Return the logical column, or None when the type has no faithful carrier."""
    bounds = Decimal.of(spelled)
    kind: Kind
    if bounds is not None:
        kind, carrier = "decimal", f"decimal128({bounds.precision}, {bounds.scale})"
    elif spelled.startswith("ENUM("):
        kind, carrier = "text", "string"
    elif spelled in _CARRIED:
        kind, carrier = _CARRIED[spelled]
    else:
        return None
    return Column(
        name=name, kind=kind, carrier=carrier, source_type=spelled, nullable=nullable,
        precision=bounds.precision if bounds else None, scale=bounds.scale if bounds else None,
    )  # fmt: skip


def read(column: Column) -> str:
    """Return the expression of a value in its carrier; NULL where that can't hold it."""
    name = quote(column.name)
    if column.kind in _TIMES:
        return f"CASE WHEN {_inside(column)} THEN {_plain(column)} END"
    return _plain(column) if column.carrier in _ARROW else name


def beyond(schema: TableSchema) -> str:
    """Return the expression of `_beyond`: the literals of values that their carrier can't hold."""
    pairs = [
        f"{{'k': {literal(c.name)}, 'v': CASE WHEN NOT ({_inside(c)}) THEN {_literal(c)} END}}"
        for c in sorted(schema.columns, key=lambda c: c.name)
        if c.kind in _TIMES
    ]
    if not pairs:
        return f"NULL::VARCHAR AS {quote(BEYOND)}"
    kept = f"list_filter([{', '.join(pairs)}], lambda e: e.v IS NOT NULL)"
    told = f"CASE WHEN len({kept}) > 0 THEN to_json(map_from_entries({kept}))::VARCHAR END"
    return f"{told} AS {quote(BEYOND)}"


def _plain(column: Column) -> str:
    name, wanted = quote(column.name), _ARROW.get(column.carrier)
    return name if wanted in (None, column.source_type) else f"CAST({name} AS {wanted})"


def _inside(column: Column) -> str:
    name, kind = quote(column.name), column.source_type
    return f"{name} >= CAST('{_FIRST}' AS {kind}) AND {name} < CAST('{_AFTER}' AS {kind})"


def _literal(column: Column) -> str:
    """Spell a time as PostgreSQL does, which is how the lake's literals are spelled."""
    return rf"regexp_replace({quote(column.name)}::VARCHAR, '^(\S+) \(BC\)(.*)$', '\1\2 BC')"
