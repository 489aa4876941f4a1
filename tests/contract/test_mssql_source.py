"""SQL Server as a source, on the server that NAVIGLIO_TEST_MSSQL names.

The database must allow SNAPSHOT isolation. Nothing outside the schema `made` is touched.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import replace

import mssql_python
import pytest

from naviglio.adapters.mssql import ledger
from naviglio.adapters.mssql.session import connect
from naviglio.adapters.mssql.source import MssqlSource
from naviglio.adapters.mssql.sql import literal, table
from naviglio.errors import ConfigError
from naviglio.model import ROW_HASH, TableName
from naviglio.ports import Scan, Source
from tests.contract.source import ROWS, SourceContract, rows
from tests.contract.test_mssql_target import URL, VARIABLE

pytestmark = pytest.mark.skipif(
    not URL, reason=f"{VARIABLE} is not set: it is the mssql:// URL of a server to test against"
)
PEOPLE = "id bigint NOT NULL, name nvarchar(20), seen datetimeoffset(6)"


class MssqlPeople:
    """The contract's table, changed over a connection of its own."""

    def __init__(self, outside: mssql_python.Connection) -> None:
        self._outside = outside
        self.made: list[TableName] = []
        self.table = self.make(f"{PEOPLE}, PRIMARY KEY (id)")
        self._fill(self.table)

    def make(self, columns: str, *values: str) -> TableName:
        """Create a table, with rows where values are given."""
        name = TableName(schema="made", table=f"s{uuid.uuid4().hex[:12]}")
        self.made.append(name)
        self._outside.execute(f"CREATE TABLE {table(name)} ({columns})")
        for row in values:
            self._outside.execute(f"INSERT INTO {table(name)} VALUES ({row})")
        return name

    def rename(self, number: int, name: str) -> None:
        """Update one row and commit."""
        self._outside.execute(
            f"UPDATE {table(self.table)} SET name = {literal(name)} WHERE id = {number}"
        )

    def remove(self, number: int) -> None:
        """Delete one row and commit."""
        self._outside.execute(f"DELETE FROM {table(self.table)} WHERE id = {number}")

    def double(self, number: int) -> TableName:
        """Return another table where a key stands twice."""
        doubled = self.make(PEOPLE)
        self._fill(doubled)
        self._outside.execute(
            f"INSERT INTO {table(doubled)} SELECT * FROM {table(doubled)} WHERE id = {number}"
        )
        return doubled

    def _fill(self, name: TableName) -> None:
        self._outside.execute(
            f"INSERT INTO {table(name)} SELECT n, CASE WHEN n % 10 > 0 THEN CONCAT(N'p', n) END,"
            " CASE WHEN n % 10 > 0 THEN DATEADD(minute, n, CAST('2013-01-01T00:00:00+00:00'"
            f" AS datetimeoffset(6))) END FROM (SELECT TOP ({ROWS}) ROW_NUMBER() OVER (ORDER BY"
            " a.object_id) AS n FROM sys.all_columns AS a CROSS JOIN sys.all_columns AS b) AS q"
        )


class TestMssqlSource(SourceContract):
    """The contract, and what only SQL Server has."""

    @pytest.fixture
    def source(self) -> Iterator[Source]:
        """Open the server."""
        opened = MssqlSource(URL)
        yield opened
        opened.close()

    @pytest.fixture
    def people(self) -> Iterator[MssqlPeople]:
        """Make the contract's table."""
        outside = connect(URL)
        with contextlib.suppress(mssql_python.Error):
            outside.execute(ledger.create_schema("made"))
        made = MssqlPeople(outside)
        yield made
        for name in made.made:
            outside.execute(f"DROP TABLE {table(name)}")
        outside.close()

    def test_without_a_lag_there_is_no_fence(self, source: Source) -> None:
        """The error says what to declare."""
        with pytest.raises(ConfigError, match="safety_lag"):
            source.fence(1.0, None)

    @pytest.mark.parametrize(
        ("kind", "values"),
        [
            ("nvarchar(20)", ["N''", "N' '", "N'a'", "N'A'", "N'a '", "NULL", "N'\U0001f600'"]),
            ("float", ["0.0", "-0.0", "1e-300", "NULL"]),
            ("datetimeoffset(7)", ["'2013-01-01T12:00:00.1234567+00:00'",
                                   "'2013-01-01T13:00:00.1234567+01:00'",
                                   "'2013-01-01T12:00:00.1234568+00:00'"]),
            ("datetime", ["'2013-01-01T12:00:00.003'", "'2013-01-01T12:00:00.007'"]),
            ("time(7)", ["'12:00:00.1234567'", "'12:00'"]),
            ("decimal(38,10)", ["1.5", "-9999999999999999999999999999.9999999999", "NULL"]),
            ("varbinary(max)", ["0x", "0x00", "0x0000", "NULL"]),
            ("xml", ["N'<a/>'", "N'<a>b</a>'", "NULL"]),
            ("money", ["922337203685477.5807", "-922337203685477.5808"]),
        ],
    )  # fmt: skip
    def test_different_values_have_different_hashes(
        self, source: Source, people: MssqlPeople, kind: str, values: list[str]
    ) -> None:
        """Equal or not; the reading tells them apart as well."""
        made = people.make(
            f"id int PRIMARY KEY, v {kind} NULL", *(f"{n}, {v}" for n, v in enumerate(values))
        )
        schema = source.describe(made, ())
        hashed = replace(schema, columns=schema.columns[1:], key=("v",))
        with source.snapshot() as snapshot:
            scan = Scan(table=made, schema=schema)
            read = {(row["v"], row["_beyond"]) for row in rows(snapshot, scan)}
            if kind != "xml":
                scan = Scan(table=made, schema=hashed, hashes="both")
                assert len({row[ROW_HASH] for row in rows(snapshot, scan)}) == len(values)
        assert len({str(one) for one in read}) == len(values)
