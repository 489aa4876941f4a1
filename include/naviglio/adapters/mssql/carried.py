"""Which logical type and carrier a SQL Server type has, and the T-SQL that reads it.

Times travel as integers, whole microseconds or days since 1970, so that no driver rounds them.
Columns whose seconds have a seventh digit travel as text; an offset stands beside its moment.
"""

from __future__ import annotations

from naviglio.adapters.mssql.ddl import Spelled
from naviglio.adapters.mssql.fit import FoundColumn
from naviglio.adapters.mssql.sql import quote
from naviglio.model import Column, Kind, Order, TableSchema

_MICROSECONDS = 6
_PLAIN: dict[str, tuple[Kind, str]] = {
    "tinyint": ("int16", "int16"), "smallint": ("int16", "int16"), "int": ("int32", "int32"),
    "bigint": ("int64", "int64"), "bit": ("bool", "bool"), "real": ("float32", "float"),
    "float": ("float64", "double"), "money": ("decimal", "decimal128(19, 4)"),
    "smallmoney": ("decimal", "decimal128(10, 4)"), "date": ("date", "date32[day]"),
    "time": ("time", "string"), "datetime": ("timestamp", "timestamp[us]"),
    "smalldatetime": ("timestamp", "timestamp[us]"), "uniqueidentifier": ("uuid", "string"),
    "xml": ("literal", "string"), "binary": ("bytes", "binary"), "varbinary": ("bytes", "binary"),
    "image": ("bytes", "binary"), "timestamp": ("bytes", "binary"),
    **dict.fromkeys(
        ("char", "varchar", "nchar", "nvarchar", "text", "ntext"), ("text", "string")
    ),
}  # fmt: skip
_MONEY = {"money": (19, 4), "smallmoney": (10, 4)}
WITHOUT_ORDER = ("xml", "text", "ntext", "image")
# `timestamp` is what the catalogue calls rowversion. A smalldatetime is rounded to the minute.
ORDERS: dict[str, Order | None] = {"timestamp": "version", "smalldatetime": None}


def column_of(found: FoundColumn) -> Column | None:
    """Return the logical column, or None when the type has no faithful carrier."""
    said = Spelled.of(found.spelled)
    kind, carrier = _carrier(said) or (None, "")
    if kind is None:
        return None
    precision, scale = _digits(said, kind)
    length = said.first if kind == "text" and (said.first or 0) > 0 else None
    return Column(
        name=found.name, kind=kind, carrier=carrier, source_type=found.spelled,
        nullable=found.nullable, precision=precision, scale=scale, length=length,
        collation=found.collation,
    )  # fmt: skip


_READ: dict[Kind, str] = {
    "text": "CAST({} AS nvarchar(max))",
    "literal": "CAST({} AS nvarchar(max))",
    "uuid": "LOWER(CAST({} AS char(36)))",
    "time": "CONVERT(varchar(16), {}, 121)",
    "date": "DATEDIFF(day, CAST('1970-01-01' AS date), {})",
    "bytes": "CAST({} AS varbinary(max))",
}
_SINCE_1970 = (
    f"DATEDIFF_BIG(microsecond, CAST('1970-01-01' AS datetime2({_MICROSECONDS})), "
    f"CAST(CAST({{}} AS datetime2({{}})) AS datetime2({_MICROSECONDS})))"
)


def read(column: Column) -> str:
    """Return the expression of a value, of table `t`, in the form in which it travels."""
    name = f"t.{quote(column.name)}"
    if column.kind in ("timestamp", "timestamptz"):
        if column.carrier == "string":
            return f"CONVERT(varchar(34), {name}, 126)"
        # The milliseconds of a datetime are thirds; as three digits they are what it prints.
        utc = f"SWITCHOFFSET({name}, '+00:00')" if column.kind == "timestamptz" else name
        return _SINCE_1970.format(utc, column.precision or _MICROSECONDS)
    if column.kind == "decimal":
        return f"CAST({name} AS decimal({column.precision}, {column.scale}))"
    return _READ.get(column.kind, "{}").format(name)


def beside(schema: TableSchema) -> dict[str, str]:
    """Return, by column, the expressions of literals that stand beside a value in its carrier.

    A moment's carrier is in UTC: one with another offset is told as it was written.
    """
    return {
        column.name: f"CASE WHEN DATEPART(tzoffset, t.{quote(column.name)}) <> 0 "
        f"THEN CONVERT(varchar(34), t.{quote(column.name)}, 126) END"
        for column in sorted(schema.columns, key=lambda column: column.name)
        if column.kind == "timestamptz" and column.carrier != "string"
    }


def as_bytes(column: Column) -> str:
    """Return the expression of a value as bytes that no other value of the column has."""
    name = f"t.{quote(column.name)}"
    if column.kind in ("text", "literal"):
        return f"CAST(CAST({name} AS nvarchar(max)) AS varbinary(max))"
    return f"CAST({name} AS varbinary(max))"


def _carrier(said: Spelled) -> tuple[Kind, str] | None:
    match said.name:
        case "decimal":
            return "decimal", f"decimal128({said.first}, {said.second})"
        case "datetime2":
            whole = (said.first or 0) <= _MICROSECONDS
            return "timestamp", "timestamp[us]" if whole else "string"
        case "datetimeoffset":
            whole = (said.first or 0) <= _MICROSECONDS
            return "timestamptz", "timestamp[us, tz=UTC]" if whole else "string"
        case _:
            return _PLAIN.get(said.name)


def _digits(said: Spelled, kind: Kind) -> tuple[int | None, int | None]:
    if kind == "decimal":
        return _MONEY.get(said.name, (said.first or 0, said.second))
    if said.name in ("time", "datetime2", "datetimeoffset"):
        return said.first or 0, None
    return (3 if said.name == "datetime" else None), None
