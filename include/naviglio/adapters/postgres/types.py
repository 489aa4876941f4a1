"""Which logical type and carrier a PostgreSQL type has, and which type a logical type becomes."""

from __future__ import annotations

from dataclasses import dataclass

from naviglio.model import Column, Kind

_PLAIN: dict[str, tuple[Kind, str]] = {
    "int2": ("int16", "int16"),
    "int4": ("int32", "int32"),
    "int8": ("int64", "int64"),
    "bool": ("bool", "bool"),
    "float4": ("float32", "float"),
    "float8": ("float64", "double"),
    "numeric": ("number", "string"),
    "text": ("text", "string"),
    "varchar": ("text", "string"),
    "bpchar": ("text", "string"),
    "name": ("text", "string"),
    "date": ("date", "date32[day]"),
    "time": ("time", "string"),
    "timestamp": ("timestamp", "timestamp[us]"),
    "timestamptz": ("timestamptz", "timestamp[us, tz=UTC]"),
    "interval": ("interval", "string"),
    "uuid": ("uuid", "string"),
    "bytea": ("bytes", "binary"),
    "json": ("json", "string"),
    "jsonb": ("jsonb", "string"),
}
_RANGES = ("int4", "int8", "num", "date", "ts", "tstz")
# Types whose text form reads back as the very same value, under the session settings of a read.
# `money` is not here: its text follows the server's lc_monetary.
LITERAL_SEND = {
    "timetz": "timetz_send",
    "inet": "inet_send",
    "cidr": "cidr_send",
    "macaddr": "macaddr_send",
    "macaddr8": "macaddr8_send",
    "bit": "bit_send",
    "varbit": "varbit_send",
    "pg_lsn": "pg_lsn_send",
    "oid": "oidsend",
    "xid8": "xid8send",
    "tsvector": "tsvectorsend",
    "tsquery": "tsquerysend",
    **{f"{name}range": "range_send" for name in _RANGES},
    **{f"{name}multirange": "multirange_send" for name in _RANGES},
    **{name: f"{name}_send" for name in ("point", "line", "lseg", "box", "path", "polygon")},
    "circle": "circle_send",
}
_WITHOUT_ORDER = frozenset(
    {"json", "point", "line", "lseg", "box", "path", "polygon", "circle"}
)  # so neither GROUP BY nor a unique index
_SECONDS = frozenset({"time", "timestamp", "timestamptz", "timetz", "interval"})
_MOST_DIGITS = 38  # of decimal128
MOST_SECOND_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class CatalogueColumn:
    """A column as the catalogue has it; of a domain the base type, of an array its element."""

    name: str
    schema: str  # of the type
    type: str  # pg_type.typname
    typtype: str
    spelled: str  # format_type, schema-qualified outside of pg_catalog
    typmod: int
    not_null: bool
    collation: str | None  # quoted and qualified; None for the database's default
    element_schema: str | None = None
    element_type: str | None = None
    element_typtype: str | None = None


def kind_of(found: CatalogueColumn) -> Column | None:
    """Return the logical column, or None when the type has no faithful carrier."""
    kind, carrier = _carrier(found) or (None, "")
    if kind is None:
        return None
    precision, scale = _digits(found)
    if kind == "number" and precision is not None:
        kind, carrier = "decimal", f"decimal128({precision}, {scale})"
    return Column(
        name=found.name,
        kind=kind,
        carrier=carrier,
        source_type=found.spelled,
        nullable=not found.not_null,
        length=_length(found),
        precision=precision,
        scale=scale,
        collation=found.collation,
    )


def _carrier(found: CatalogueColumn) -> tuple[Kind, str] | None:
    if found.typtype == "e":
        return "text", "string"
    if found.element_type is not None:
        return ("literal", "string") if _faithful_element(found) else None
    if found.schema != "pg_catalog":
        return None
    if found.type in LITERAL_SEND:
        return "literal", "string"
    return _PLAIN.get(found.type)


def _faithful_element(found: CatalogueColumn) -> bool:
    known = found.element_type in _PLAIN or found.element_type in LITERAL_SEND
    return found.element_typtype == "e" or (found.element_schema == "pg_catalog" and known)


def _digits(found: CatalogueColumn) -> tuple[int | None, int | None]:
    """Return precision and scale: of a decimal that decimal128 holds, or of a time's second."""
    if found.type == "numeric" and found.typmod >= 0:
        precision, scale = (found.typmod - 4) >> 16, (found.typmod - 4) & 0x7FF
        fits = precision <= _MOST_DIGITS and scale <= precision  # a negative scale is above 1023
        return (precision, scale) if fits else (None, None)
    if found.type in _SECONDS - {"interval"} and found.typmod >= 0:
        return found.typmod, None
    return None, None


def _length(found: CatalogueColumn) -> int | None:
    texts = found.type in {"varchar", "bpchar"} and found.schema == "pg_catalog"
    return found.typmod - 4 if texts and found.typmod >= 0 else None


def can_be_key(found: CatalogueColumn) -> bool:
    """Tell whether values of the type can be compared and listed in an array."""
    return found.type not in _WITHOUT_ORDER and found.element_type is None


_TIMES = frozenset({"time", "timestamp", "timestamptz"})
_TARGET: dict[Kind, str] = {
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "bool": "boolean",
    "float32": "real",
    "float64": "double precision",
    "number": "numeric",
    "text": "text",
    "date": "date",
    "time": "time",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
    "interval": "interval",
    "uuid": "uuid",
    "bytes": "bytea",
    "json": "json",
    "jsonb": "jsonb",
    "literal": "text",
}


def _finer(column: Column) -> bool:
    """Tell whether a time that is carried as text has more digits than PostgreSQL's."""
    return column.kind != "time" or (column.precision or 0) > MOST_SECOND_DIGITS


def target_type(column: Column) -> str:
    """Return the type by which to create a column that holds all that the logical column holds.

    Padded text keeps its padding: `varchar(n)` holds the blanks of a `char(n)` exactly.
    """
    if column.kind == "decimal":
        return f"numeric({column.precision},{column.scale})"
    if column.kind in _TIMES and column.carrier == "string" and _finer(column):
        return "text"  # a seventh digit of the second, or an offset, which a timestamp would lose
    if column.kind == "text" and column.length is not None:
        return f"varchar({column.length})"
    return _TARGET[column.kind]
