"""PostgreSQL as a source, on the real server, by the role of least privilege."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg.conninfo import make_conninfo

from naviglio.adapters.postgres import open_source, snapshot
from naviglio.adapters.postgres.conditions import texts
from naviglio.adapters.postgres.embedded import Cluster
from naviglio.adapters.postgres.hashing import mixed, raw_row_hash
from naviglio.adapters.postgres.session import pin
from naviglio.adapters.postgres.snapshot import open_snapshot, readers
from naviglio.adapters.postgres.source import PostgresSource
from naviglio.adapters.postgres.sql import literal, quote, table
from naviglio.adapters.postgres.types import target_type
from naviglio.conditions import Buckets, Keys, Since
from naviglio.errors import ConfigError, DataError, IdentityError, RetryableError, SourceError
from naviglio.model import KEY_HASH, ROW_HASH, TableName
from naviglio.pool import Terms
from naviglio.ports import LOWEST, Counting, Scan, Source
from tests.contract.source import ROWS, SourceContract, rows

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def owner(cluster: Cluster) -> Iterator[Connection]:
    """Connect as who owns the source's tables."""
    with psycopg.connect(cluster.urls()["operations_app"], autocommit=True) as connection:
        yield connection


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Connection]:
    """Connect to the source's database as its administrator."""
    url = make_conninfo(cluster.urls()["admin"], dbname="operations")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def source(cluster: Cluster) -> Iterator[Source]:
    """Open the source by its role of least privilege."""
    opened = open_source(cluster.urls()["operations"])
    yield opened
    opened.close()


class Made:
    """Makes tables that are gone after the test."""

    def __init__(self, owner: Connection) -> None:
        self.owner = owner
        self.names: list[TableName] = []

    def table(self, columns: str, *values: str, name: str = "") -> TableName:
        """Create a table, with rows where `values` are given."""
        made = TableName(schema="public", table=name or f"s{uuid.uuid4().hex[:12]}")
        self.names.append(made)
        self.owner.execute(f"CREATE TABLE {table(made)} ({columns})".encode())
        for row in values:
            self.owner.execute(f"INSERT INTO {table(made)} VALUES ({row})".encode())
        return made

    def execute(self, statement: str) -> None:
        """Run a statement as the owner."""
        self.owner.execute(statement.encode())


@pytest.fixture
def made(owner: Connection) -> Iterator[Made]:
    """Make tables for one test."""
    making = Made(owner)
    yield making
    for name in reversed(making.names):
        owner.execute(f"DROP TABLE IF EXISTS {table(name)} CASCADE".encode())


class PostgresPeople:
    """The contract's table."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._columns = "id bigint NOT NULL, name text, seen timestamptz"
        self.table = made.table(f"{self._columns}, PRIMARY KEY (id)")
        self._fill(self.table)

    def rename(self, number: int, name: str) -> None:
        """Update one row and commit."""
        self._made.execute(
            f"UPDATE {table(self.table)} SET name = {literal(name)} WHERE id = {number}"
        )

    def remove(self, number: int) -> None:
        """Delete one row and commit."""
        self._made.execute(f"DELETE FROM {table(self.table)} WHERE id = {number}")

    def double(self, number: int) -> TableName:
        """Return another table where a key stands twice."""
        doubled = self._made.table(self._columns)
        self._fill(doubled)
        self._made.execute(
            f"INSERT INTO {table(doubled)} SELECT * FROM {table(doubled)} WHERE id = {number}"
        )
        return doubled

    def _fill(self, name: TableName) -> None:
        self._made.execute(
            f"INSERT INTO {table(name)} SELECT n, CASE WHEN n % 10 > 0 THEN 'p' || n END, "
            "CASE WHEN n % 10 > 0 THEN timestamptz '2013-01-01Z' + n * interval '1 min' END "
            f"FROM generate_series(1, {ROWS}) n"
        )


@pytest.fixture
def people(made: Made) -> PostgresPeople:
    """Make the contract's table."""
    return PostgresPeople(made)


def scan_of(source: Source, name: TableName, *key: str) -> Scan:
    """Return a scan of a whole table."""
    return Scan(table=name, schema=source.describe(name, key))


def read(source: Source, scan: Scan) -> list[dict[str, Any]]:
    """Return all rows of a scan in a snapshot of its own."""
    with source.snapshot() as opened:
        return rows(opened, scan)


def checksum(source: Source, scan: Scan) -> int:
    """Return the xor over the whole table."""
    with source.snapshot() as opened:
        digests = opened.digest(scan, Buckets(bits=0))
    return reduce(int.__xor__, (digest.checksum for digest in digests))


class TestPostgresSource(SourceContract):
    """The contract."""


# --- types: what is stored, its kind, and what arrives ------------------------------------------

ODD = "Zoë 👩‍👩‍👧 e\u0301 \\ \" ' \t"
FAR = "'294276-12-31 23:59:59.999999'"
BEYOND = "_beyond"
TYPES = [
    # declared, kind, [(value, carried as text)], `None` stands for what goes to `_beyond`
    ("smallint", "int16", [("-32768", "-32768"), ("32767", "32767")]),
    ("integer", "int32", [("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    ("bigint", "int64", [(str(-(2**63)), str(-(2**63))), (str(2**63 - 1), str(2**63 - 1))]),
    ("boolean", "bool", [("true", "True"), ("false", "False")]),
    ("real", "float32", [("'NaN'", "nan"), ("'-Infinity'", "-inf"), ("'-0'", "-0.0"),
                         ("1.5", "1.5")]),
    ("double precision", "float64", [("0.1", "0.1"), ("'5e-324'", "5e-324"), ("'NaN'", "nan"),
                                     ("1.7976931348623157e308", "1.7976931348623157e+308")]),
    ("numeric(15,2)", "decimal", [("9999999999999.99", "9999999999999.99"), ("0", "0.00"),
                                  ("-9999999999999.99", "-9999999999999.99"), ("'NaN'", None)]),
    ("numeric(18,18)", "decimal", [("0.999999999999999999", "0.999999999999999999"),
                                   ("-0.000000000000000001", "-1E-18")]),
    ("numeric(18,0)", "decimal", [("999999999999999999", "9" * 18), ("'NaN'", None)]),
    ("numeric(19,0)", "decimal", [("-9999999999999999999", "-" + "9" * 19), ("'NaN'", None)]),
    ("numeric(38,10)", "decimal", [("9999999999999999999999999999.0123456789",) * 2,
                                   ("'NaN'", None)]),
    ("numeric", "number", [("1.00", "1.00"), ("1.0", "1.0"), ("'NaN'", "NaN"),
                           ("'-Infinity'", "-Infinity"), ("1e50", "1" + "0" * 50)]),
    ("numeric(39,0)", "number", [("9" * 39, "9" * 39)]),
    ("numeric(3,5)", "number", [("0.00123", "0.00123")]),
    ("numeric(3,-2)", "number", [("12300", "12300")]),
    ("text", "text", [("''", ""), (literal(ODD), ODD)]),
    ("varchar(5)", "text", [("'ab  '", "ab  ")]),
    ("char(5)", "text", [("'ab'", "ab   "), ("''", "     ")]),
    ("name", "text", [("'n'", "n")]),
    ("date", "date", [("'0001-01-01'", "0001-01-01"), ("'9999-12-31'", "9999-12-31"),
                      ("'infinity'", None), ("'-infinity'", None), ("'4713-01-01 BC'", None),
                      ("'0001-12-31 BC'", None), ("'10000-01-01'", None),
                      ("'5874897-12-31'", None)]),
    ("time", "time", [("'24:00'", "24:00:00"), ("'12:34:56.789012'", "12:34:56.789012")]),
    ("timestamp", "timestamp", [("'0001-01-01'", "0001-01-01 00:00:00"),
                                ("'9999-12-31 23:59:59.999999'",
                                 "9999-12-31 23:59:59.999999"), ("'infinity'", None),
                                ("'-infinity'", None), (FAR, None), ("'10000-01-01'", None),
                                ("'4713-01-01 00:00:00.5 BC'", None),
                                ("'0001-12-31 23:59:59.999999 BC'", None)]),
    ("timestamptz", "timestamptz", [("'0001-01-01 00:00+00'", "0001-01-01 00:00:00+00:00"),
                                    ("'9999-12-31 23:59:59.999999+00'",
                                     "9999-12-31 23:59:59.999999+00:00"),
                                    ("'infinity'", None), ("'-infinity'", None),
                                    ("'294276-12-31 23:59:59.999999+00'", None),
                                    ("'4713-01-01 00:00+00 BC'", None)]),
    ("interval", "interval", [("'1 mon'", "1 mon"), ("'30 days'", "30 days"),
                              ("'-178000000 years'", "-178000000 years"),
                              ("'infinity'", "infinity"), ("'-1 day 2:03:04.5'",
                                                           "-1 days +02:03:04.5")]),
    ("uuid", "uuid", [("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
                       "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")]),
    ("bytea", "bytes", [("'\\x00ff'", "b'\\x00\\xff'"), ("''", "b''")]),
    ("json", "json", [("'{\"b\": 1,  \"a\":1.0}'", '{"b": 1,  "a":1.0}')]),
    ("jsonb", "jsonb", [("'{\"b\": 1,  \"a\":1.0}'", '{"a": 1.0, "b": 1}')]),
    ("timetz", "literal", [("'12:00+05'", "12:00:00+05")]),
    ("inet", "literal", [("'10.0.0.1/8'", "10.0.0.1/8"), ("'::1'", "::1/128")]),
    ("cidr", "literal", [("'10.0.0.0/8'", "10.0.0.0/8")]),
    ("macaddr", "literal", [("'08:00:2b:01:02:03'", "08:00:2b:01:02:03")]),
    ("bit(3)", "literal", [("B'101'", "101")]),
    ("varbit", "literal", [("B'10'", "10"), ("B''", "")]),
    ("pg_lsn", "literal", [("'16/B374D848'", "16/B374D848")]),
    ("oid", "literal", [("4294967295", "4294967295")]),
    ("xid8", "literal", [("'18446744073709551615'", "18446744073709551615")]),
    ("int4range", "literal", [("'[1,5)'", "[1,5)"), ("'empty'", "empty")]),
    ("tstzmultirange", "literal", [("'{}'", "{}")]),
    ("tsvector", "literal", [("'a:1 b:2'", "'a':1 'b':2")]),
    ("point", "literal", [("'(0.1,-0)'", "(0.1,-0)")]),
    ("integer[]", "literal", [("'{1,NULL,3}'", "{1,NULL,3}"), ("'{{1,2},{3,4}}'", "{{1,2},{3,4}}"),
                              ("'[0:1]={1,2}'", "[0:1]={1,2}")]),
    ("text[]", "literal", [("ARRAY['a,b','\"', '',NULL,'NULL']", '{"a,b","\\"","",NULL,"NULL"}')]),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "kind", "cells"), TYPES, ids=[str(t[0]) for t in TYPES])
def test_every_type_arrives_exactly(
    source: Source, made: Made, declared: str, kind: str, cells: list[tuple[str, str | None]]
) -> None:
    """Each cell is carried exactly, or stands in `_beyond` as the server's own text."""
    listed = [f"{number}, {value}" for number, (value, _) in enumerate(cells)]
    name = made.table(f"n int PRIMARY KEY, v {declared}", *listed, "99, NULL")
    scan = scan_of(source, name)
    found = {row["n"]: row for row in read(source, replace(scan, hashes="both"))}
    column = scan.schema.column("v")
    made.owner.execute(pin(Terms(), local=False).encode())
    try:
        for number, (_, carried) in enumerate(cells):
            row = found[number]
            if carried is not None:
                assert str(row["v"]) == carried
                assert row[BEYOND] is None
                continue
            text = made.owner.execute(
                f"SELECT v::text FROM {table(name)} WHERE n = {number}".encode()
            ).fetchone()
            assert text is not None
            assert row["v"] is None
            assert row[BEYOND] == f'{{"v":"{text[0]}"}}'
    finally:
        made.owner.execute(b"RESET ALL")
    assert found[99]["v"] is None
    assert found[99][BEYOND] is None
    assert column.kind == kind
    assert len({row[ROW_HASH] for row in found.values()}) == len(found)


@pytest.mark.parametrize(
    ("declared", "cells"), [(t[0], t[2]) for t in TYPES], ids=[t[0] for t in TYPES]
)
def test_every_type_can_be_made_and_read_as_a_key(
    source: Source, made: Made, declared: str, cells: list[tuple[str, str | None]]
) -> None:
    """A target column of the logical type holds each text; a key finds its own rows."""
    within = [value for value, carried in cells if carried is not None]
    name = made.table(f"v {declared}", *within)
    try:
        scan = scan_of(source, name, "v")
    except ConfigError as error:
        assert "can't stand in a key" in str(error)  # noqa: PT017 - no order, or arrays
        assert declared in {"json", "point", "integer[]", "text[]"}
        return
    column = scan.schema.column("v")
    with source.snapshot() as opened:
        keys = pa.Table.from_batches(list(opened.read(replace(scan, rows=False))))
        assert opened.count(replace(scan, where=Keys(keys=keys))) == len(within)
    copied = made.table(f"v {target_type(column)}")
    for text in texts(keys["v"], column):
        made.owner.execute(
            f"INSERT INTO {table(copied)} VALUES ({literal(text)}::{target_type(column)})".encode()
        )


def test_values_beyond_in_several_columns_share_one_object(source: Source, made: Made) -> None:
    """`_beyond` is compact JSON with sorted keys; rows without such a value have none."""
    name = made.table(
        'n int PRIMARY KEY, "z é" date, a numeric(5,2)',
        "1, 'infinity', 'NaN'", "2, 'infinity', 1", "3, '2013-01-01', 1",
    )  # fmt: skip
    found = {row["n"]: row[BEYOND] for row in read(source, scan_of(source, name))}
    assert found == {1: '{"a":"NaN","z é":"infinity"}', 2: '{"z é":"infinity"}', 3: None}


def test_a_key_beyond_its_carrier_is_refused(source: Source, made: Made) -> None:
    """Rows can't be told apart by NULL: the key column and the value are named."""
    name = made.table("d date PRIMARY KEY", "'2013-01-01'", "'infinity'")
    with pytest.raises(DataError, match=r"'d'.*infinity"):
        read(source, scan_of(source, name))


def test_enums_and_domains(source: Source, made: Made, owner: Connection) -> None:
    """An enum is a text that keeps its type's name; a domain is its base type, at any depth."""
    suffix = uuid.uuid4().hex[:8]
    mood, cents, money, code = (f'"{name} {suffix}"' for name in ("Mood", "cents", "money", "code"))
    owner.execute(f"CREATE TYPE {mood} AS ENUM ('so so', 'fine')".encode())
    owner.execute(f"CREATE DOMAIN {cents} AS numeric(9,2) NOT NULL CHECK (VALUE >= 0)".encode())
    owner.execute(f"CREATE DOMAIN {money} AS {cents}".encode())
    owner.execute(f"CREATE DOMAIN {code} AS char(4)".encode())
    name = made.table(
        f"m {mood} PRIMARY KEY, d {money}, c {code}, l {mood}[]",
        "'so so', 1.5, 'ab', '{fine,\"so so\"}'",
    )
    scan = scan_of(source, name)
    kinds = [(c.kind, c.source_type, c.nullable) for c in scan.schema.columns]
    assert kinds == [
        ("text", f"public.{mood}", False),
        ("decimal", "numeric(9,2)", False),
        ("text", "character(4)", True),
        ("literal", f"public.{mood}[]", True),
    ]
    assert [str(value) for value in read(source, replace(scan, hashes="both"))[0].values()][:4] == [
        "so so", "1.50", "ab  ", '{fine,"so so"}',
    ]  # fmt: skip
    with source.snapshot() as opened:
        keys = pa.table({"m": ["so so"]})
        assert opened.count(replace(scan, where=Keys(keys=keys))) == 1
    owner.execute(f"DROP TABLE {table(name)}".encode())
    owner.execute(f"DROP DOMAIN {money}, {cents}, {code}; DROP TYPE {mood}".encode())


@pytest.mark.parametrize("declared", ["money", "xml", '"char"', "regclass", "pg_type", "oidvector"])
def test_types_without_a_faithful_carrier_are_refused(
    source: Source, made: Made, declared: str
) -> None:
    """Column and type are named, and what to do."""
    name = made.table(f"n int PRIMARY KEY, odd {declared}")
    with pytest.raises(ConfigError, match=r"'odd' of type .*view"):
        source.describe(name, ())


def test_a_server_that_lacks_what_the_fence_saw_is_not_read(
    source: Source, cluster: Cluster
) -> None:
    """One address of several servers: fence at the primary, snapshot on a standby that lags."""
    source.fence(0.0, None)
    with source.snapshot():
        pass  # the same server is never behind itself
    ahead, url = 2**62, cluster.urls()["operations"]
    with (
        pytest.raises(RetryableError, match=rf"before {ahead}.*several servers"),
        open_snapshot(readers(url), url, ahead),
    ):
        pass


def test_the_place_is_read_with_the_snapshot(
    source: Source, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What commits after the place was read is not in the snapshot: none seems newer than it is."""
    name = made.table("n int PRIMARY KEY")

    def late(terms: Terms, *, local: bool) -> str:
        made.owner.execute(f"INSERT INTO {table(name)} VALUES (1)".encode())
        return pin(terms, local=local)

    scan = scan_of(source, name)
    monkeypatch.setattr(snapshot, "pin", late)
    with source.snapshot() as opened:
        assert opened.count(scan) == 0


@pytest.mark.parametrize("name", ["_op", "_OP", "_Beyond", "_change_type", "_Commit_Version"])
def test_reserved_names_are_refused(source: Source, made: Made, name: str) -> None:
    """A column may not have the name of one that Naviglio or Delta adds, in any case of letters."""
    with pytest.raises(ConfigError, match=rf"'{name}'.*reserved"):
        source.describe(made.table(f'n int PRIMARY KEY, "{name}" text'), ())


@pytest.mark.parametrize("odd", ['a"b', "select", "Ünï 💥", "x" * 63, "a'b\\c", " ", "%s", "a.b"])
def test_identifiers_are_quoted_everywhere(source: Source, made: Made, odd: str) -> None:
    """Quotes, blanks, unicode, reserved words and 63 bytes stand in names of tables and columns."""
    name = made.table(
        f"{quote(odd)} text, at timestamptz, PRIMARY KEY ({quote(odd)})",
        "'k', '2013-01-01 00:00+00'", name=odd + "t" if len(odd) < 63 else odd,
    )  # fmt: skip
    scan = scan_of(source, name)
    with source.snapshot() as opened:
        (row,) = rows(opened, replace(scan, hashes="both"))
        assert row[odd] == "k"
        assert opened.bad_keys(scan) == []
        assert opened.count(replace(scan, where=Keys(keys=pa.table({odd: ["k"]})))) == 1
        (digest,) = opened.digest(scan, Buckets(bits=3))
        assert digest.checksum == row[ROW_HASH]


def test_text_in_literals_is_exact(source: Source, made: Made) -> None:
    """Keys with quotes, backslashes, braces and unicode are found by their literals."""
    odd = ["'", '"', "\\", "\\'", "{a,b}", "NULL", "", " ", "👍", "a\nb", "$$", "E'", "%s"]
    name = made.table("k text, n int, PRIMARY KEY (k, n)", *(f"{literal(k)}, 1" for k in odd))
    scan = scan_of(source, name)
    for key in odd:
        keys = pa.table({"k": [key], "n": [1]}, schema=pa.schema([("k", "string"), ("n", "int32")]))
        found = read(source, replace(scan, where=Keys(keys=keys)))
        assert [row["k"] for row in found] == [key]


# --- keys and shape -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "unique"),
    [
        ("CREATE UNIQUE INDEX ON {t} (a)", True),
        ("CREATE UNIQUE INDEX ON {t} (a) INCLUDE (b)", True),
        ("CREATE UNIQUE INDEX ON {t} (a, b)", True),
        ("CREATE UNIQUE INDEX ON {t} (a, c)", False),  # c may be NULL
        ("CREATE UNIQUE INDEX ON {t} (a) WHERE b > 0", False),
        ("CREATE UNIQUE INDEX ON {t} ((a + 0))", False),
        ("CREATE INDEX ON {t} (a)", False),
        ("ALTER TABLE {t} ADD UNIQUE (a) DEFERRABLE INITIALLY DEFERRED", False),
    ],
)
def test_only_a_plain_unique_index_vouches(
    source: Source,
    made: Made,
    index: str,
    unique: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    """Partial, expression, deferrable and nullable ones don't."""
    name = made.table("a int NOT NULL, b int NOT NULL, c int")
    made.execute(index.format(t=table(name)))
    key = ("a", "c") if "a, c" in index else ("a", "b")
    assert source.describe(name, key).key_is_unique is unique


def test_views_partitions_and_generated_columns_are_read(
    source: Source, made: Made, owner: Connection
) -> None:
    """Whatever holds rows is a table to a source."""
    parent = made.table(
        "a int PRIMARY KEY, b int GENERATED ALWAYS AS (a * 2) STORED) PARTITION BY RANGE (a"
    )
    owner.execute(
        f"CREATE TABLE {quote(parent.table + 'p')} PARTITION OF {table(parent)} DEFAULT".encode()
    )
    owner.execute(f"INSERT INTO {table(parent)} VALUES (4)".encode())
    view = replace(parent, table=parent.table + "v")
    owner.execute(
        f"CREATE VIEW {table(view)} AS SELECT a, b::text AS b FROM {table(parent)}".encode()
    )
    assert read(source, scan_of(source, parent)) == [{"a": 4, "b": 8, BEYOND: None}]
    assert read(source, scan_of(source, view, "a")) == [{"a": 4, "b": "8", BEYOND: None}]
    with pytest.raises(ConfigError, match="Declare `key`"):
        source.describe(view, ())


@pytest.mark.parametrize("change", ["TRUNCATE {t}", "ALTER TABLE {t} ALTER n TYPE bigint"])
def test_a_table_rewritten_after_the_snapshot_is_not_read_as_empty(
    source: Source, made: Made, change: str
) -> None:
    """PostgreSQL shows such a table as empty to older snapshots: the read asks to be repeated."""
    name = made.table("k int PRIMARY KEY, n int", "1, 1")
    scan = scan_of(source, name)
    with source.snapshot() as opened:
        made.execute(change.format(t=table(name)))
        with pytest.raises(RetryableError, match="altered, truncated or dropped"):
            list(opened.read(scan))


def test_a_table_altered_before_the_snapshot_is_not_read_by_its_old_shape(
    source: Source, made: Made
) -> None:
    """Else a scale that grew would be cut in silence."""
    name = made.table("k int PRIMARY KEY, n numeric(5,1)", "1, 1.5")
    scan = scan_of(source, name)
    made.execute(f"ALTER TABLE {table(name)} ALTER n TYPE numeric(5,2)")
    with pytest.raises(RetryableError, match="altered"):
        read(source, scan)


def test_a_table_that_is_read_is_not_altered_meanwhile(source: Source, made: Made) -> None:
    """Its shape is held until the snapshot ends."""
    name = made.table("k int PRIMARY KEY, n int", "1, 1")
    with source.snapshot() as opened:
        assert opened.count(scan_of(source, name)) == 1
        made.execute("SET lock_timeout = 100")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            made.execute(f"ALTER TABLE {table(name)} ADD o int")
        made.execute("RESET lock_timeout")


# --- hash ---------------------------------------------------------------------------------------

EQUAL_BUT_NOT_IDENTICAL = [
    ("bigint", "1", "4294967296"),
    ("bigint", "-1", "4294967295"),
    ("bigint", "0", "-1"),
    ("integer", "1", "-1"),
    ("numeric", "1.0", "1.00"),
    ("numeric", "5", "-5"),
    ("numeric(9,2)", "5", "-5"),
    ("numeric(9,2)", "1", "10000"),
    ("numeric(9,2)", "'NaN'", "0"),
    ("double precision", "0.0", "'-0.0'"),
    ("real", "0.0", "'-0.0'"),
    ("json", "'{\"a\":1}'", "'{\"a\": 1}'"),
    ("jsonb", "'1.0'", "'1.00'"),
    ("numeric", "'infinity'", "'-infinity'"),
    ("varchar", "'a'", "'a '"),
    ("bpchar", "'a'", "'a '"),
    ("text", "''", "NULL"),
    ("char(3)", "'a'", "'b'"),
    ("interval", "'1 mon'", "'30 days'"),
    ("interval", "'24:00'", "'1 day'"),
    ("timestamp", "'2000-01-01 00:00:00.000001'", "'2000-01-01 01:11:34.967296'"),
    ("timestamptz", "'infinity'", "'-infinity'"),
    ("timetz", "'12:00+00'", "'13:00+01'"),
    ("date", "'infinity'", "'-infinity'"),
    ("boolean", "false", "NULL"),
    ("inet", "'10.0.0.1'", "'10.0.0.1/8'"),
    ("integer[]", "'{1,2}'", "'[0:1]={1,2}'"),
    ("numeric[]", "'{1.0}'", "'{1.00}'"),
    ("numrange", "'[1.0,2)'", "'[1.00,2)'"),
    ("point", "'(0,0)'", "'(-0,0)'"),
    ("bytea", "''", "NULL"),
    ("uuid", "'00000000-0000-0000-0000-000000000000'", "NULL"),
]


@pytest.mark.parametrize(("declared", "one", "other"), EQUAL_BUT_NOT_IDENTICAL)
def test_the_hash_sees_what_equality_does_not(
    source: Source, made: Made, declared: str, one: str, other: str
) -> None:
    """Values that differ in their bytes alone have different hashes."""
    name = made.table(f"n int PRIMARY KEY, v {declared}", f"1, {one}")
    scan = scan_of(source, name)
    before = checksum(source, scan)
    made.execute(f"UPDATE {table(name)} SET v = {other}")
    assert checksum(source, scan) != before


def test_text_under_a_collation_of_its_own_is_hashed_by_its_bytes(
    source: Source, made: Made
) -> None:
    """A column's collation takes no part in what is seen."""
    name = made.table('n int PRIMARY KEY, v text COLLATE "C", w varchar(3)', "1, 'a', 'a'")
    scan = scan_of(source, name)
    assert scan.schema.column("v").collation == 'pg_catalog."C"'
    assert scan.schema.column("w").collation is None
    before = checksum(source, scan)
    made.execute(f"UPDATE {table(name)} SET v = 'A'")
    assert checksum(source, scan) != before


def test_swapped_values_change_the_sum(source: Source, made: Made, owner: Connection) -> None:
    """Of 5,000 swaps of two rows' values in a column each changes the xor over the table."""
    name = made.table("k int, l int, a bigint, b text, c numeric, d date, PRIMARY KEY (k, l)")
    made.execute(
        f"INSERT INTO {table(name)} SELECT n, n + 1, n * 7919, 'x' || n, n / 7.0, "
        f"date '2013-01-01' + n FROM generate_series(1, 400) n"
    )
    scan = scan_of(source, name)
    chance = random.Random(3)  # what is drawn stays the same
    pairs = []
    for _ in range(5000):
        one, other = chance.sample(range(1, 401), 2)
        pairs.append((one, other, chance.choice("abcdkl")))
    owner.execute(pin(Terms(), local=False).encode())
    try:
        unswapped, swapped = _pair_sums(owner, scan, pairs)
    finally:
        owner.execute(b"RESET ALL")
    assert len(unswapped) == len(swapped) == 5000
    assert not [number for number in unswapped if unswapped[number] == swapped[number]]


def _pair_sums(
    owner: Connection, scan: Scan, pairs: list[tuple[int, int, str]]
) -> tuple[dict[int, int], dict[int, int]]:
    """Return by pair the xor of its two rows' hashes, as they are and with one column swapped."""
    owner.execute(b"CREATE TEMP TABLE pairs (number int, one int, other int, name text)")
    with owner.cursor().copy("COPY pairs FROM STDIN") as copy:
        for number, (one, other, name) in enumerate(pairs):
            copy.write_row((number, one, other, name))
    names = scan.schema.names
    swap = ", ".join(
        f"CASE WHEN p.name = '{name}' THEN o.{name} ELSE s.{name} END AS {name}" for name in names
    )
    plain = ", ".join(f"s.{name}" for name in names)
    found: list[dict[int, int]] = []
    for listed in (plain, swap):
        both = " UNION ALL ".join(
            f"SELECT p.number, {listed} FROM pg_temp.pairs p "
            f"JOIN {table(scan.table)} s ON s.k = p.{me} "
            f"JOIN {table(scan.table)} o ON o.k = p.{you}"
            for me, you in (("one", "other"), ("other", "one"))
        )
        summed = (
            f"SELECT number, bit_xor({mixed('h')}) FROM "
            f"(SELECT number, {raw_row_hash(scan.schema)} AS h FROM ({both}) AS b OFFSET 0) AS r "
            "GROUP BY 1"
        )
        found.append(dict(owner.execute(summed.encode()).fetchall()))
    owner.execute(b"DROP TABLE pg_temp.pairs")
    return found[0], found[1]


def test_swapped_parts_of_keys_change_the_key_sum(source: Source, made: Made) -> None:
    """Keys (1, a), (2, b) and (1, b), (2, a) have different sums: key hashes are mixed too."""
    name = made.table("k int, l text, PRIMARY KEY (k, l)", "1, 'a'", "2, 'b'")
    keys = replace(scan_of(source, name), hashes="key")
    before = checksum(source, keys)
    made.execute(f"UPDATE {table(name)} SET l = CASE l WHEN 'a' THEN 'b' ELSE 'a' END")
    assert checksum(source, keys) != before


def test_neighbours_share_a_bucket_and_no_hash(source: Source, made: Made) -> None:
    """Up to eight keys in a row do; their hashes differ in the bits that are left."""
    name = made.table("k int, l bigint, PRIMARY KEY (k, l)")
    made.execute(f"INSERT INTO {table(name)} SELECT 1, n FROM generate_series(0, 799) n")
    scan = replace(scan_of(source, name), rows=False, hashes="key")
    found = {row["l"]: row[KEY_HASH] for row in read(source, scan)}
    assert len(set(found.values())) == len({value >> 24 for value in found.values()}) == 800
    buckets = {number // 8: found[number] & 0xFFFFFF for number in range(0, 800, 8)}
    assert all(value & 0xFFFFFF == buckets[number // 8] for number, value in found.items())
    assert len(set(buckets.values())) == 100


def test_no_setting_changes_a_hash(
    cluster: Cluster, source: Source, made: Made, admin: Connection
) -> None:
    """Settings of the role, of the database or of the URL take no part in hashes and texts."""
    name = made.table(
        "n int PRIMARY KEY, a timestamptz, b interval, c double precision, d bytea, e date, f text,"
        " g timestamp, h numeric(9,2), i double precision[], j timestamptz[]",
        "1, '2013-01-01', '1 day', 0.1, '\\x00', '2013-02-01', 'é', '2013-02-01', 1, '{0.1}',"
        " '{2013-02-01}'",
    )
    scan = replace(scan_of(source, name), hashes="both")
    before = read(source, scan)
    settings = {
        "TimeZone": "Asia/Tokyo", "DateStyle": "German", "IntervalStyle": "iso_8601",
        "extra_float_digits": "0", "bytea_output": "escape", "client_encoding": "LATIN1",
        "search_path": "public", "statement_timeout": "1s",
    }  # fmt: skip
    try:
        for setting, value in settings.items():
            admin.execute(f"ALTER ROLE naviglio_source SET {setting} = {literal(value)}".encode())
        other = open_source(cluster.urls()["operations"])
        assert scan_of(other, name).schema == scan.schema
        assert read(other, scan) == before
        other.close()
    finally:
        admin.execute(b"ALTER ROLE naviglio_source RESET ALL")
    options = "-c TimeZone=Asia/Tokyo -c DateStyle=German"
    third = open_source(make_conninfo(cluster.urls()["operations"], options=options))
    assert read(third, scan) == before
    third.close()


def test_the_hash_stays_what_it_was(source: Source, made: Made) -> None:
    """Stored hashes must compare: a change of this value needs another `hash_spec`."""
    name = made.table("k bigint PRIMARY KEY, v text, n numeric(9,2)", "1, 'a', 1.5")
    (row,) = read(source, replace(scan_of(source, name), hashes="both"))
    assert source.traits.hash_spec == "pg-send-jenkins-2"
    assert (row[KEY_HASH], row[ROW_HASH]) == (-5659417313611716807, 2996055914082041705)


# --- fence --------------------------------------------------------------------------------------


@contextmanager
def transaction(url: str, *statements: str) -> Iterator[Connection]:
    """Hold a transaction open."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield connection
        if not connection.closed:
            connection.rollback()


def now_ns(connection: Connection) -> int:
    """Return the server's clock as a point."""
    row = connection.execute(
        b"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8"
    ).fetchone()
    assert row is not None
    return int(row[0]) * 1000


def test_the_fence_is_the_clock_less_the_margin(source: Source, owner: Connection) -> None:
    """Without open transactions only the margin holds the bound back, and nobody is named."""
    before = now_ns(owner)
    fence = source.fence(2.0, None)
    assert fence.point is not None
    assert before - 2 * 10**9 <= fence.point <= now_ns(owner) - 2 * 10**9
    assert fence.held_by == ""


@pytest.mark.parametrize(
    "statement", ["SELECT 1", "CREATE TEMP TABLE t (n int)"], ids=["no xid", "xid"]
)
def test_an_open_transaction_holds_the_fence(
    cluster: Cluster, source: Source, owner: Connection, statement: str
) -> None:
    """With or without an xid: it may still write rows with the time of its start."""
    before = now_ns(owner)
    with transaction(cluster.urls()["operations_app"], statement) as open_one:
        started = open_one.execute(b"SELECT (extract(epoch FROM now()) * 1000000)::int8").fetchone()
        time.sleep(0.3)
        fence = source.fence(0.1, None)
        assert started is not None
        assert fence.point == started[0] * 1000 - 10**8
        assert started[0] * 1000 >= before
        assert str(open_one.info.backend_pid) in fence.held_by
    assert source.fence(0.0, None).held_by == ""


def test_our_own_snapshots_do_not_hold_the_fence(source: Source) -> None:
    """They read only: a long capture beside another does not stop it."""
    with source.snapshot():
        time.sleep(0.2)
        assert source.fence(0.1, None).held_by == ""


def test_a_transaction_of_another_database_does_not_count(cluster: Cluster, source: Source) -> None:
    """It can't write here."""
    with transaction(cluster.urls()["warehouse"], "SELECT 1"):
        time.sleep(0.2)
        assert source.fence(0.1, None).held_by == ""


def test_a_prepared_transaction_stops_the_fence(cluster: Cluster, source: Source) -> None:
    """It has no session and no known start of its rows: nothing moves until it has ended."""
    with psycopg.connect(cluster.urls()["operations_app"], autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS prepared_one (n int)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO prepared_one VALUES (1)")
        connection.execute("PREPARE TRANSACTION 'left behind'")
        try:
            fence = source.fence(0.0, None)
            assert fence.point is None
            assert "'left behind'" in fence.held_by
        finally:
            connection.execute("ROLLBACK PREPARED 'left behind'")
            connection.execute("DROP TABLE prepared_one")
    assert source.fence(0.0, None).point is not None


def test_a_role_that_can_not_see_others_has_no_fence(
    cluster: Cluster, source: Source, admin: Connection
) -> None:
    """Others' starts would look like none: the GRANT is named; a declared lag takes its place."""
    admin.execute(b"REVOKE pg_read_all_stats FROM naviglio_source")
    try:
        with pytest.raises(ConfigError, match='GRANT pg_read_all_stats TO "naviglio_source"'):
            source.fence(1.0, None)
        before = now_ns(admin)
        fence = source.fence(1.0, 600.0)
        assert fence.point is not None
        assert before - 600 * 10**9 <= fence.point <= now_ns(admin) - 600 * 10**9
        assert fence.safety_lag_s == 600.0
    finally:
        admin.execute(b"GRANT pg_read_all_stats TO naviglio_source")
    assert source.fence(1.0, None).point is not None


def test_a_table_without_rows_has_no_highest_number(source: Source, made: Made) -> None:
    """Whatever comes is above; the lowest number of all can be asked for."""
    name = made.table("n int PRIMARY KEY, small smallint")
    scan = scan_of(source, name)
    assert isinstance(source, Counting)
    assert source.above(name, scan.schema.column("small")) == LOWEST
    made.execute(f"INSERT INTO {table(name)} VALUES (1, -5)")
    assert source.above(name, scan.schema.column("small")) == -4
    since = Since(column="small", low=LOWEST, high=-4)
    assert [row["n"] for row in read(source, replace(scan, where=since))] == [1]


def test_a_long_transaction_loses_no_row(cluster: Cluster, source: Source, made: Made) -> None:
    """A row written by an old transaction that commits late is above the fence, and read then."""
    name = made.table("n int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now()")
    scan = scan_of(source, name)
    low = 0
    seen: set[int] = set()

    def capture() -> None:
        nonlocal low
        fence = source.fence(0.05, None)
        assert fence.point is not None
        where = Since(column="at", low=low, high=fence.point)
        seen.update(row["n"] for row in read(source, replace(scan, where=where)))
        low = max(low, fence.point)

    with psycopg.connect(cluster.urls()["operations_app"]) as late:
        late.execute(f"INSERT INTO {table(name)} VALUES (1)".encode())
        made.execute(f"INSERT INTO {table(name)} VALUES (2)")
        time.sleep(0.2)
        capture()
        assert seen == set()
        late.commit()
    time.sleep(0.1)
    capture()
    assert seen == {1, 2}


# --- place --------------------------------------------------------------------------------------


def test_another_history_of_the_same_cluster_is_refused(
    source: Source, people: PostgresPeople
) -> None:
    """A witness whose transaction committed at another time tells that the source was set back."""
    people.rename(1, "x")
    with source.snapshot() as opened:
        place = opened.place(None)
        xid, _, moment = place.witness.partition(" ")
        assert moment
        with pytest.raises(IdentityError, match=xid):
            opened.place(replace(place, witness=f"{xid} 2001-01-01 00:00:00+00"))
        forgotten = replace(place, witness="4294967294 2001-01-01 00:00:00+00")
        assert opened.place(forgotten) == place
        assert opened.place(replace(place, witness="")) == place


def test_a_place_that_lies_ahead_is_refused(source: Source, people: PostgresPeople) -> None:
    """A lagging replica or a restored database stands before the last batch."""
    assert people.table.schema == "public"
    with source.snapshot() as opened:
        place = opened.place(None)
        with pytest.raises(IdentityError, match="lags behind"):
            opened.place(replace(place, order=place.order + 1))


# --- errors and ends ----------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [lambda s: s.fence(1.0, None), lambda s: s.snapshot().__enter__()])
def test_a_wrong_connection_is_told_by_who_acts(
    cluster: Cluster, ask: Callable[[Source], object]
) -> None:
    """A wrong password or database is configuration, an absent server is tried again."""
    url = cluster.urls()["operations"]
    for wrong in ({"password": "hidden-one"}, {"dbname": "nowhere"}, {"user": "nobody-here"}):
        with pytest.raises(ConfigError) as refused:
            ask(open_source(make_conninfo(url, **wrong)))
        assert "hidden-one" not in str(refused.value)
    with pytest.raises(RetryableError):
        ask(open_source("postgresql://a:hidden-one@127.0.0.1:1/x"))
    with pytest.raises(ConfigError) as unread:
        open_source("postgresql://a:hidden-one@[x")
    assert "hidden-one" not in str(unread.value)


def test_no_right_to_read_is_told(source: Source, made: Made) -> None:
    """Which right is missing stands in the message, before anything is read and when it goes."""
    name = made.table("n int PRIMARY KEY", "1")
    scan = scan_of(source, name)
    made.execute(f"REVOKE SELECT ON {table(name)} FROM naviglio_source")
    with pytest.raises(ConfigError, match="SELECT"):
        source.describe(name, ())
    with pytest.raises(ConfigError, match="permission denied"):
        read(source, scan)


def test_a_failure_in_the_middle_of_a_read_is_raised(
    source: Source, made: Made, owner: Connection
) -> None:
    """An error of the server after the first batches reaches the consumer, and no thread stays."""
    name = made.table("n int PRIMARY KEY")
    made.execute(f"INSERT INTO {table(name)} SELECT generate_series(1, 2000000)")
    view = replace(name, table=name.table + "v")
    owner.execute(
        f"CREATE VIEW {table(view)} AS SELECT n, 1 / (1900000 - n) AS v FROM {table(name)}".encode()
    )
    before = set(threading.enumerate())
    with pytest.raises(SourceError, match="division by zero"):
        read(source, scan_of(source, view, "n"))
    assert set(threading.enumerate()) <= before


def test_a_server_that_goes_away_is_tried_again(
    source: Source, made: Made, admin: Connection
) -> None:
    """A session that is ended from outside while it reads is a RetryableError; the next works."""
    name = made.table("n int PRIMARY KEY, v text")
    made.execute(
        f"INSERT INTO {table(name)} SELECT n, repeat('x', 100) FROM generate_series(1, 700000) n"
    )
    scan = scan_of(source, name)
    ended = (
        b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'naviglio_source' "
        b"AND datname = 'operations'"
    )
    with source.snapshot() as opened, pytest.raises(RetryableError):
        for number, _ in enumerate(opened.read(scan)):
            if number == 0:
                admin.execute(ended)
    with source.snapshot() as opened:
        assert opened.count(scan) == 700000
    assert source.fence(1.0, None).point is not None


def test_a_snapshot_left_early_says_so(source: Source, made: Made) -> None:
    """A cancelled read ends its snapshot at once, whatever the size of the table."""
    name = made.table("n int PRIMARY KEY, v text")
    made.execute(
        f"INSERT INTO {table(name)} SELECT n, repeat('x', 100) FROM generate_series(1, 700000) n"
    )
    scan = scan_of(source, name)
    with source.snapshot() as opened:
        batches = opened.read(scan)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        with pytest.raises(RetryableError, match="left early"):
            opened.count(scan)


def test_nothing_stays_open(
    source: Source, cluster: Cluster, people: PostgresPeople, admin: Connection
) -> None:
    """After `close` no session of the source is left on the server."""
    own = PostgresSource(cluster.urls()["operations"])
    scan = scan_of(own, people.table)
    assert len(read(own, scan)) == ROWS
    own.close()
    source.close()
    for _ in range(50):
        found = admin.execute(
            b"SELECT count(*) FROM pg_stat_activity WHERE usename = 'naviglio_source'"
        ).fetchone()
        if found == (0,):
            return
        time.sleep(0.1)
    raise AssertionError("sessions of the source are still open")
