"""Tables of a source as the catalogue has them, for tests of what is read of them."""

from __future__ import annotations

from naviglio.adapters.mssql.carried import column_of
from naviglio.adapters.mssql.fit import FoundColumn
from naviglio.model import Column, TableName, TableSchema

TYPES = {
    "tinyint": ("int16", "int16"), "smallint": ("int16", "int16"), "int": ("int32", "int32"),
    "bigint": ("int64", "int64"), "bit": ("bool", "bool"), "real": ("float32", "float"),
    "float(53)": ("float64", "double"), "decimal(38,10)": ("decimal", "decimal128(38, 10)"),
    "money": ("decimal", "decimal128(19, 4)"), "smallmoney": ("decimal", "decimal128(10, 4)"),
    "char(5)": ("text", "string"), "varchar(max)": ("text", "string"),
    "nvarchar(9)": ("text", "string"), "ntext": ("text", "string"),
    "date": ("date", "date32[day]"), "time(7)": ("time", "string"),
    "datetime": ("timestamp", "timestamp[us]"), "smalldatetime": ("timestamp", "timestamp[us]"),
    "datetime2(6)": ("timestamp", "timestamp[us]"), "datetime2(7)": ("timestamp", "string"),
    "datetimeoffset(3)": ("timestamptz", "timestamp[us, tz=UTC]"),
    "datetimeoffset(7)": ("timestamptz", "string"),
    "uniqueidentifier": ("uuid", "string"), "xml": ("literal", "string"),
    "varbinary(max)": ("bytes", "binary"), "binary(4)": ("bytes", "binary"),
    "timestamp": ("bytes", "binary"),
}  # fmt: skip


def found(name: str, spelled: str, *, nullable: bool = True) -> FoundColumn:
    """Return a column as the catalogue has it."""
    return FoundColumn(
        name=name, spelled=spelled, collation="Latin1_General_CI_AS" if "char" in spelled else None,
        nullable=nullable, required=False, computed=False,
    )  # fmt: skip


def column(name: str, spelled: str) -> Column:
    """Return its logical column."""
    made = column_of(found(name, spelled))
    assert made is not None
    return made


EVERY = TableSchema(
    columns=tuple(column(f"c{n}", spelled) for n, spelled in enumerate(TYPES)), key=("c3", "c12")
)
SMALL = TableSchema(
    columns=(
        column("id", "bigint"),
        column("name", "nvarchar(9)"),
        column("at", "datetimeoffset(3)"),
    ),
    key=("id",),
)
NAME = TableName(schema="dbo", table="people")
