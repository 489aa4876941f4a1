"""SQL Server as a source: its statements are T-SQL, bind all values, and travel exactly.

What only a server can show is in tests/contract/test_mssql_source.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naviglio.adapters.mssql import source
from naviglio.adapters.mssql.carried import beside, column_of, read
from naviglio.adapters.mssql.fit import Found, FoundColumn
from naviglio.adapters.mssql.hashing import joined
from naviglio.adapters.mssql.source import MssqlSnapshot, decoded, schema_of, split
from naviglio.adapters.mssql.statements import Query, texts
from naviglio.errors import ConfigError, IdentityError
from naviglio.model import BEYOND, KEY_HASH, ROW_HASH, Column, TableName, TableSchema, Window
from naviglio.ports import (
    Both,
    Buckets,
    Condition,
    Everything,
    IsNull,
    Keys,
    Not,
    Scan,
    Since,
    Within,
)
from tests.unit.adapters.mssql.recorder import Recorder
from tests.unit.adapters.mssql.tsql import parsed, skeleton

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
AT = Window(start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2013, 1, 2, tzinfo=UTC))


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
KEYS = pa.table({"id": [3, 5]})
CONDITIONS: list[Condition] = [
    Everything(), IsNull(column="name"), Since(column="id", low=3, high=None),
    Since(column="at", low=1, high=10**18, or_null=True), Within(column="at", window=AT),
    Buckets(bits=4), Buckets(bits=4, numbers=[1, 7]), Keys(keys=KEYS),
    Not(condition=Within(column="at", window=AT)), Not(condition=Everything()),
    Both(one=Keys(keys=KEYS), other=Not(condition=IsNull(column="at"))),
]  # fmt: skip


@pytest.mark.parametrize(("spelled", "carried"), TYPES.items())
def test_each_type_has_its_carrier(spelled: str, carried: tuple[str, str]) -> None:
    """As declared; its reading is T-SQL."""
    made = column("c", spelled)
    assert (made.kind, made.carrier, made.source_type) == (*carried, spelled)
    parsed(f"SELECT {read(made)} FROM [t] AS t")


def test_what_has_no_carrier_is_refused_by_name() -> None:
    """So are reserved names, keys that aren't there, and keys without an order."""

    def described(columns: tuple[FoundColumn, ...], *key: str) -> TableSchema:
        table = Found(
            id=1, kind="U", comment="", lacking_rights=(), folds=False, columns=columns,
            unique=(frozenset({"id"}),),
        )  # fmt: skip
        return schema_of(NAME, table, key, ("id",))

    plain = (found("id", "int", nullable=False), found("x", "xml"))
    assert described(plain).key_is_unique
    assert not described(plain, "id", "x"[:0] or "id").columns[0].nullable
    with pytest.raises(ConfigError, match="'g' of type geography"):
        described((*plain, found("g", "geography")))
    with pytest.raises(ConfigError, match="reserved"):
        described((*plain, found(BEYOND, "int")))
    with pytest.raises(ConfigError, match="no column 'no'"):
        described(plain, "no")
    with pytest.raises(ConfigError, match=r"'x' \(xml\)"):
        described(plain, "x")


@pytest.mark.parametrize("where", CONDITIONS)
def test_every_statement_is_tsql_and_binds_its_values(where: Condition) -> None:
    """With each condition: reading, counting, digests, flawed keys; one mark a bound text."""
    for hashes in ("none", "key", "both"):
        scan = Scan(table=NAME, schema=SMALL, where=where, hashes=hashes)
        for make in (
            Query.rows, Query.count, Query.bad_keys,
            lambda q: q.digest_buckets(Buckets(bits=3, numbers=[1])),
            lambda q: q.digest_windows([AT], "at"),
        ):  # fmt: skip
            query = Query(scan=scan)
            statement = make(query)
            parsed(statement)
            assert statement.count("?") == len(query.bound)
            for text in query.bound:
                json.loads(text)


def test_statements_say_what_they_should() -> None:
    """Exact texts of the plainest ones."""
    scan = Scan(table=NAME, schema=SMALL, where=Within(column="at", window=AT))
    h = (
        "CROSS APPLY (SELECT HASHBYTES('SHA2_256', CAST(0x AS varbinary(max)) + CASE WHEN t.[id] IS"
        " NULL THEN 0x00 ELSE 0x01 + CAST(DATALENGTH(CAST(t.[id] AS varbinary(max))) AS binary(8))"
        " + CAST(t.[id] AS varbinary(max)) END) AS [k]"
    )
    counted = Query(scan=scan).count()
    assert counted.startswith(f"SELECT COUNT_BIG(*) FROM [dbo].[people] AS t {h}")
    assert counted.endswith(
        "WHERE t.[at] >= CAST(N'2013-01-01T00:00:00.0000000+00:00' AS datetimeoffset(7))"
        " AND t.[at] < CAST(N'2013-01-02T00:00:00.0000000+00:00' AS datetimeoffset(7))"
    )
    query = Query(scan=replace(scan, where=Keys(keys=KEYS)))
    assert query.rows().endswith(
        "WHERE EXISTS (SELECT 1 FROM OPENJSON(?) WITH ([c0] nvarchar(max) '$[0]') AS k"
        " WHERE t.[id] = CAST(k.[c0] AS bigint))"
    )
    assert query.bound == ['[["3"], ["5"]]']


def test_texts_are_bound_in_the_order_of_their_marks() -> None:
    """Buckets stand before the scan's own keys, windows too."""
    scan = Scan(table=NAME, schema=SMALL, where=Keys(keys=KEYS))
    query = Query(scan=scan)
    statement = query.digest_buckets(Buckets(bits=3, numbers=[1]))
    assert statement.index("IN (SELECT CAST([value]") < statement.index("EXISTS")
    assert query.bound == ["[1]", '[["3"], ["5"]]']
    query = Query(scan=scan)
    statement = query.digest_windows([AT], "at")
    assert statement.index("[low]") < statement.index("EXISTS")
    assert [type(json.loads(text)[0]) for text in query.bound] == [dict, list]


def test_points_lose_no_digit() -> None:
    """Both bounds round up to 100 ns; a date is the first not before; a text is no time."""
    point = 1357041600_123456701  # nanoseconds: 2013-01-01 12:00 and a fraction
    scan = Scan(table=NAME, schema=EVERY)
    names = {c.source_type: c.name for c in EVERY.columns}
    for spelled, text in (
        ("datetime2(7)", "N'2013-01-01T12:00:00.1234568' AS datetime2(7)"),
        ("datetimeoffset(7)", "N'2013-01-01T12:00:00.1234568+00:00' AS datetimeoffset(7)"),
        ("date", "N'2013-01-02' AS date"),
    ):
        since = Since(column=names[spelled], low=point, high=None)
        assert text in Query(scan=replace(scan, where=since)).count()
    wrong = Since(column=names["nvarchar(9)"], low=1, high=None)
    with pytest.raises(ConfigError, match=r"nvarchar\(9\) and can't be read in spans"):
        Query(scan=replace(scan, where=wrong)).count()


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1,
               max_size=20).filter(lambda name: not name.startswith("#")))  # fmt: skip
def test_names_stay_names(wild: str) -> None:
    """Statements over wild names have the very nodes of those over tame ones."""

    def shape(name: str) -> list[str]:
        columns = tuple(replace(c, name=name if c.name == "id" else c.name) for c in SMALL.columns)
        schema = TableSchema(columns=columns, key=(name,))
        keys = Keys(keys=pa.table({name: [1]}))
        table = TableName(schema=name, table=name)
        return skeleton(Query(scan=Scan(table=table, schema=schema, where=keys)).rows())

    assert shape(wild) == shape("tame")


def test_rows_arrive_in_their_carriers() -> None:
    """Times from integers, decimals and texts exactly; an offset stands beside its moment."""
    schema = TableSchema(
        columns=(
            column("id", "int"), column("d", "date"), column("t", "time(7)"),
            column("w", "datetime2(7)"), column("m", "datetime2(6)"),
            column("o", "datetimeoffset(3)"), column("n", "decimal(9,2)"),
        ),
        key=("id",),
    )  # fmt: skip
    scan = Scan(table=NAME, schema=schema, hashes="both")
    assert list(beside(schema)) == ["o"]
    travelled = pa.record_batch(
        {
            "id": pa.array([1, 2], pa.int32()), "d": pa.array([15706, None], pa.int32()),
            "t": ["12:00:00.1200000", "12:00:00.0000000"],
            "w": ["2013-01-01T12:00:00.1234567", None],
            "m": pa.array([1357041600_123456, None], pa.int64()),
            "o": pa.array([1357041600_123000, 0], pa.int64()),
            "n": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
            "_beyond_0": ["2013-01-01T13:00:00.123+01:00", None],
            KEY_HASH: pa.array([1, 2], pa.int64()), ROW_HASH: pa.array([-1, -2], pa.int64()),
        }
    )  # fmt: skip
    one, other = decoded(travelled, scan).to_pylist()
    assert one == {
        "id": 1, "d": date(2013, 1, 1), "t": "12:00:00.12", "w": "2013-01-01T12:00:00.1234567",
        "m": datetime(2013, 1, 1, 12, 0, 0, 123456),  # noqa: DTZ001 - without a zone, as there
        "o": datetime(2013, 1, 1, 12, 0, 0, 123000, tzinfo=UTC), "n": Decimal("1.50"),
        BEYOND: '{"o":"2013-01-01T13:00:00.123+01:00"}', KEY_HASH: 1, ROW_HASH: -1,
    }  # fmt: skip
    assert (other["t"], other["d"], other[BEYOND]) == ("12:00:00", None, None)
    bare = decoded(travelled.select(["id", KEY_HASH]), replace(scan, rows=False, hashes="key"))
    assert bare.schema.names == ["id", KEY_HASH]


def test_keys_are_spelled_so_that_the_server_reads_the_same() -> None:
    """Bytes as hexadecimal digits, times by ISO, all else as text; many are divided."""
    assert texts(pa.chunked_array([[b"\x00\xff", None]]), column("k", "binary(2)")) == [
        "00ff",
        None,
    ]
    days = pa.chunked_array([pa.array([date(2013, 1, 1)])])
    assert texts(days, column("k", "date")) == ["2013-01-01"]
    assert texts(pa.chunked_array([[True]]), column("k", "bit")) == ["1"]
    many = Keys(keys=pa.table({"id": [*range(45_000), *range(10)]}))
    parts = list(split(Both(one=many, other=Everything())))
    sizes = [part.one.keys.num_rows for part in parts]  # type: ignore[union-attr]
    assert (len(parts), sum(sizes)) == (3, 45_000)


@given(st.integers(-(2**63), 2**63 - 1))
def test_halves_make_the_whole(number: int) -> None:
    """A signed 64-bit hash is its two signed halves."""
    raw = number.to_bytes(8, "big", signed=True)
    upper, lower = (int.from_bytes(raw[i : i + 4], "big", signed=True) for i in (0, 4))
    assert joined(upper, lower) == number


def test_a_snapshot_stands_and_knows_its_place() -> None:
    """SNAPSHOT isolation is asked for, begun and touched; without it there is no reading."""
    answers: dict[str, Any] = {
        source.HERE: [(1, "family", "fork", "broker", 7)], source.FIRST_TABLE: [("dbo", "people")],
    }  # fmt: skip
    server = Recorder(lambda statement: answers.get(statement, ()))
    snapshot = MssqlSnapshot(server, "database 'x'")  # type: ignore[arg-type]
    assert server.calls[1:] == [
        *source.BEGIN, source.FIRST_TABLE, "SELECT TOP (1) 1 FROM [dbo].[people]",
    ]  # fmt: skip
    place = snapshot.place(None)
    assert (place.incarnation, place.order) == ("family/fork", 7)
    assert snapshot.place(place) == place
    for other in (replace(place, incarnation="another"), replace(place, order=8)):
        with pytest.raises(IdentityError, match="resnapshot"):
            snapshot.place(other)
    answers[source.HERE] = [(0, "", "", "broker", 7)]
    with pytest.raises(ConfigError, match="ALLOW_SNAPSHOT_ISOLATION ON"):
        MssqlSnapshot(server, "database 'x'")  # type: ignore[arg-type]
    for statement in (source.HERE, source.FIRST_TABLE, source.PRIMARY, source.TABLES, source.NOW):
        parsed(statement)
