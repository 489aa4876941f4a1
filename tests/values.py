"""Values of every type, and what they mean: the data of docs/types.md and of the tests behind it."""

# ruff: noqa: E501 - values are listed a type a line

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from naviglio.model import BEYOND, Column, Kind

TEXTS = [
    "a",
    "",
    " ",
    "a  ",
    "NULL",
    "\\N",
    "\\",
    "tab\there",
    "line\nbreak\r",
    "😀 e\u0301 ÿ",
    "'\"",
    "]",
    "x" * 5000,
]
# Values by type, the first ones ordinary.
POSTGRES = {
    "smallint": ["1", "-32768", "32767", "0"],
    "integer": ["1", "-2147483648", "2147483647"],
    "bigint": ["1", "-9223372036854775808", "9223372036854775807"],
    "boolean": ["true", "false"],
    "numeric": ["1.0", "1.00", "NaN", "Infinity", "-Infinity", "0", "0.000", "1e-200", "123456789012345678901234567890123456789012345678901234567890.5"],
    "numeric(9,2)": ["1.50", "-9999999.99", "NaN", "0"],
    "numeric(38,10)": ["1.5", "-9999999999999999999999999999.9999999999", "NaN"],
    "numeric(60,5)": ["1.5", "1234567890123456789012345678901234567890123456789012345.12345"],
    "numeric(3,5)": ["0.00123", "-0.00999"],
    "numeric(5,-2)": ["1200", "-99900"],
    "real": ["1.1", "NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e+38"],
    "double precision": ["1.1", "NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e+308"],
    "text": ["a", "", " ", "NULL", "\\N", "\\", "tab\there", "line\nbreak\r", "😀 e\u0301 ÿ", "'\"", "x" * 5000],
    "varchar(5)": ["a", "", "😀😀😀😀😀", "a    "],
    "char(5)": ["a", "", "ab   "],
    "date": ["2013-01-05", "0001-01-01", "9999-12-31", "infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"],
    "time": ["12:00", "00:00", "24:00", "23:59:59.999999"],
    "time(3)": ["12:00:00.123"],
    "timetz": ["12:00+01", "24:00-15:59"],
    "timestamp": ["2013-01-05 12:00", "0001-01-01", "9999-12-31 23:59:59.999999", "infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["2013-01-05 12:00+00", "0001-01-01+00", "9999-12-31 23:59:59.999999+00", "infinity", "-infinity", "4713-01-01 00:00+00 BC", "294276-12-31 23:59:59.999999+00"],
    "timestamptz(3)": ["2013-01-05 12:00:00.123+00"],
    "interval": ["1 day", "24 hours", "1 mon", "30 days", "-1 year 2 mons -3 days 04:05:06.000007", "178000000 years", "infinity"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"],
    "bytea": ["\\x", "\\x00", "\\x00ff5c27"],
    "json": ["{}", '{"a": 1}', '{ "a":1}', '{"b":1,"b":2}', '"x"', "null", "1.0", "1.00"],
    "jsonb": ["{}", '{"a": 1}', '"x"', "null", "1.0", "1.00", '{"": "😀"}'],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(4)": ["1010"],
    "varbit": ["1", "10101"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "tstzrange": ["[2013-01-01 00:00+00,infinity)"],
    "point": ["(1,2)", "(-0,NaN)"],
    "integer[]": ["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[5:6]={1,2}"],
    "text[]": ["{}", '{"",NULL,"NULL","a,b","q\\"q"}'],
    "mood": ["sad", "happy 😀", ""],
    "positive": ["1", "2.50"],
    "tsvector": ["'a':1 'b':2A"],
}  # fmt: skip
# Values of PostgreSQL without an image in SQL Server, by type: refused by column and key.
NOT_IN_SQL_SERVER = {
    "numeric": [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e-200",
        "123456789012345678901234567890123456789012345678901234567890.5",
    ],
    "numeric(9,2)": ["NaN"],
    "numeric(38,10)": ["NaN"],
    "numeric(60,5)": ["1234567890123456789012345678901234567890123456789012345.12345"],
    "real": ["NaN", "Infinity", "-Infinity"],
    "double precision": ["NaN", "Infinity", "-Infinity"],
    "date": ["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"],
    "time": ["24:00"],
    "timestamp": ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": [
        "infinity",
        "-infinity",
        "4713-01-01 00:00+00 BC",
        "294276-12-31 23:59:59.999999+00",
    ],
}
DUCKDB = {
    "TINYINT": ["1", "-128", "127"],
    "UTINYINT": ["0", "255"],
    "SMALLINT": ["-32768", "32767"],
    "USMALLINT": ["65535"],
    "INTEGER": ["-2147483648", "2147483647"],
    "UINTEGER": ["4294967295"],
    "BIGINT": ["-9223372036854775808", "9223372036854775807"],
    "UBIGINT": ["18446744073709551615"],
    "HUGEINT": [
        "-170141183460469231731687303715884105728",
        "170141183460469231731687303715884105727",
    ],
    "UHUGEINT": ["340282366920938463463374607431768211455"],
    "BOOLEAN": ["true", "false"],
    "FLOAT": ["1.1", "nan", "inf", "-inf", "-0.0", "1e-45", "3.4028235e38"],
    "DOUBLE": ["1.1", "nan", "inf", "-inf", "-0.0", "5e-324", "1.7976931348623157e308"],
    "DECIMAL(9,2)": ["1.50", "-9999999.99", "0"],
    "DECIMAL(38,10)": ["-9999999999999999999999999999.9999999999"],
    "DECIMAL(38,38)": ["0." + "9" * 38],
    "VARCHAR": TEXTS,
    "DATE": [
        "2013-01-05",
        "0001-01-01",
        "9999-12-31",
        "infinity",
        "-infinity",
        "4713-01-01 (BC)",
        "5881580-07-10",
    ],
    "TIME": ["12:00:00", "00:00:00", "23:59:59.999999", "24:00:00"],
    "TIMESTAMP": [
        "2013-01-05 12:00:00",
        "0001-01-01 00:00:00",
        "9999-12-31 23:59:59.999999",
        "infinity",
        "-infinity",
        "4713-01-01 (BC) 00:00:00",
        "294247-01-10 04:00:54.775806",
    ],
    "TIMESTAMP_S": ["2013-01-05 12:00:00"],
    "TIMESTAMP_MS": ["2013-01-05 12:00:00.123"],
    "TIMESTAMP WITH TIME ZONE": [
        "2013-01-05 12:00:00+02",
        "9999-12-31 23:59:59.999999+00",
        "infinity",
        "-infinity",
    ],
    "INTERVAL": ["1 day", "24 hours", "-1 year 2 months -3 days 04:05:06.000007"],
    "UUID": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "BLOB": ["", "\\x00", "\\x00\\xFF'\\x27"],
    "JSON": ["{}", '{ "a":1}', '{"b":1,"b":2}', '"x"', "null"],
    "ENUM('sad', 'happy 😀')": ["sad", "happy 😀"],
}


@dataclass(frozen=True)
class Sent:
    """A value of SQL Server: how T-SQL writes it, how the driver delivers what is read, its meaning."""

    sql: str
    travels: Any
    means: str | None
    beside: str | None = None  # the literal that is read beside it


def _plain(*values: object) -> list[Sent]:
    return [Sent(str(value), value, str(value)) for value in values]


def _texts(*values: str) -> list[Sent]:
    return [Sent("N'" + value.replace("'", "''") + "'", value, value) for value in values]


def _numbers(*values: str) -> list[Sent]:
    return [Sent(value, Decimal(value), value) for value in values]


def _bytes(*values: bytes) -> list[Sent]:
    return [Sent(f"0x{value.hex()}", value, value.hex()) for value in values]


def _floats(*values: float) -> list[Sent]:
    return [Sent(f"{value:.17e}", value, repr(value)) for value in values]


def _days(*values: str) -> list[Sent]:
    first = date(1970, 1, 1)
    return [Sent(f"'{v}'", (date.fromisoformat(v) - first).days, v) for v in values]


def _moments(*values: str) -> list[Sent]:
    """Without a zone; they travel as microseconds since 1970."""
    first = datetime(1970, 1, 1)  # noqa: DTZ001 - as it is stored
    us = [(datetime.fromisoformat(v) - first) // (datetime.resolution) for v in values]
    return [Sent(f"'{v.replace(' ', 'T')}'", n, v) for v, n in zip(values, us, strict=True)]


def _exact(*values: str) -> list[Sent]:
    """Times that travel as text."""
    return [Sent(f"'{v}'", v, v) for v in values]


MSSQL: dict[str, list[Sent]] = {
    "tinyint": _plain(0, 255),
    "smallint": _plain(-(2**15), 2**15 - 1),
    "int": _plain(-(2**31), 2**31 - 1),
    "bigint": _plain(-(2**63), 2**63 - 1),
    "bit": [Sent("0", travels=False, means="false"), Sent("1", travels=True, means="true")],
    "decimal(9,2)": _numbers("1.50", "-9999999.99"),
    "decimal(38,0)": _numbers("9" * 38, "-" + "9" * 38),
    "decimal(38,38)": _numbers("0." + "9" * 38),
    "money": _numbers("-922337203685477.5808", "922337203685477.5807"),
    "smallmoney": _numbers("-214748.3648", "214748.3647"),
    "real": _floats(0.5, -1.5, 3.4028234663852886e38, 1.1754943508222875e-38),
    "float(53)": _floats(1.1, -1.7976931348623157e308, 2.2250738585072014e-308),
    "date": _days("2013-01-05", "0001-01-01", "9999-12-31"),
    "time(0)": _exact("12:34:56"),
    "time(7)": _exact("00:00:00", "12:00:00.12", "23:59:59.9999999"),
    "datetime": _moments(
        "1753-01-01 00:00:00", "2013-01-05 12:00:00.003", "9999-12-31 23:59:59.997"
    ),
    "smalldatetime": _moments("1900-01-01 00:00:00", "2079-06-06 23:59:00"),
    "datetime2(0)": _moments("2013-01-05 12:00:00"),
    "datetime2(6)": _moments("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"),
    "datetime2(7)": _exact("0001-01-01T00:00:00.0000000", "9999-12-31T23:59:59.9999999"),
    "datetimeoffset(6)": [
        Sent("'1970-01-01T00:00:01.000000+00:00'", 1_000_000, "1970-01-01 00:00:01+00"),
        Sent(
            "'1970-01-01T05:30:01.123456+05:30'",
            1_123_456,
            "1970-01-01 05:30:01.123456+05:30",
            "1970-01-01T05:30:01.123456+05:30",
        ),
        Sent(
            "'1969-12-31T10:00:00.000000-14:00'",
            0,
            "1969-12-31 10:00:00-14:00",
            "1969-12-31T10:00:00-14:00",
        ),
    ],
    "datetimeoffset(7)": _exact(
        "2013-01-05T12:00:00.1234567+05:30", "9999-12-31T23:59:59.9999999+00:00"
    ),
    "char(5)": _texts("a    ", "ab'\"\\", "     "),
    "varchar(9)": _texts("a", "", "a  ", "\t\n\r", "'\"]"),
    "varchar(max)": _texts("", "a  ", "x" * 9000),
    "nchar(5)": _texts("😀   ", "e\u0301ÿ  "),
    "nvarchar(9)": _texts("", "a  ", "😀 e\u0301", "\t\n\r"),
    "nvarchar(max)": _texts(*TEXTS),
    "xml": _texts('<a b="1">é😀</a>', ""),
    "uniqueidentifier": [
        Sent(f"'{v}'", v, v)
        for v in ("0" * 8 + "-0000-0000-0000-" + "0" * 12, "f" * 8 + "-ffff-ffff-ffff-" + "f" * 12)
    ],
    "binary(4)": _bytes(b"\0\xff'\x27", b"\0\0\0\0"),
    "varbinary(9)": _bytes(b"", b"\0", b"\1\0"),
    "varbinary(max)": _bytes(b"", b"\0" * 9000),
    "timestamp": [
        Sent("", b"\0\0\0\0\0\0\7\xd1", "00000000000007d1")
    ],  # rowversion: the server writes it
}
_DRIVERS: dict[str, pa.DataType] = {  # Arrow types that the driver delivers where it isn't the carrier
    "tinyint": pa.uint8(), "date": pa.int32(), "datetime": pa.int64(), "smalldatetime": pa.int64(),
    "datetime2(0)": pa.int64(), "datetime2(6)": pa.int64(), "datetimeoffset(6)": pa.int64(),
}  # fmt: skip


def travelling(column: Column, carrier: pa.DataType) -> pa.DataType:
    """Return the Arrow type in which the driver delivers a column of SQL Server."""
    return _DRIVERS.get(column.source_type, carrier)


def spelled(column: Column, row: Mapping[str, Any]) -> str | None:
    """Return the text of a carried value, or of the one beside it."""
    beyond = json.loads(row[BEYOND] or "{}").get(column.name)
    if beyond is not None:
        return str(beyond)
    value = row[column.name]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return format(value, "f") if isinstance(value, Decimal) else _word(value)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def meant(kind: Kind, text: str | None) -> str | None:
    """Return what a text of a kind means, spelled one way by whichever vendor it came."""
    if text is None:
        return None
    match kind:
        case "number" | "decimal":
            number = Decimal(text)
            return format(number.normalize(), "f") if number.is_finite() else str(number)
        case "float32" | "float64":
            return repr(float(text))
        case "uuid":
            return text.lower()
        case "time" | "timestamp" | "timestamptz":
            plain = re.sub(r"(\.\d*?)0+(?!\d)", r"\1", text.replace("T", " "))
            return re.sub(r"(Z|[+-]00:00)$", "+00", re.sub(r"\.(?!\d)", "", plain))
        case _:
            return text
