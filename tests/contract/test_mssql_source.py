"""SQL Server as a source, on the server that NAVIGLIO_TEST_MSSQL names.

The database must allow SNAPSHOT isolation; one test takes the leave away for a moment. Nothing
outside the schema `made` is touched.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

import mssql_python
import pyarrow as pa
import pytest

from naviglio.adapters.mssql import ledger
from naviglio.adapters.mssql.session import connect
from naviglio.adapters.mssql.source import MssqlSource
from naviglio.adapters.mssql.sql import literal, table
from naviglio.conditions import Keys, Since
from naviglio.errors import ConfigError, RetryableError
from naviglio.model import ROW_HASH, TableName, TableSchema
from naviglio.ports import Counting, Scan, Source
from tests.contract.source import ROWS, SourceContract, ids, rows, source_now
from tests.contract.test_mssql_target import URL, VARIABLE

pytestmark = pytest.mark.skipif(
    not URL, reason=f"{VARIABLE} is not set: it is the mssql:// URL of a server to test against"
)
# A point as the source has it: of times nanoseconds since 1970, of others the number itself.
POINTS = """
SELECT CASE WHEN s.kind IN (N'tinyint', N'smallint', N'int', N'bigint') THEN CAST(s.x AS bigint)
            WHEN s.kind = N'datetimeoffset'
            THEN DATEDIFF_BIG(nanosecond, '1970-01-01',
                              CAST(SWITCHOFFSET(CAST(s.x AS datetimeoffset(7)), 0) AS datetime2(7)))
            ELSE DATEDIFF_BIG(nanosecond, '1970-01-01', CAST(s.x AS datetime2(7))) END
FROM (SELECT id, CAST(v AS sql_variant) AS x, CAST(SQL_VARIANT_PROPERTY(v, 'BaseType')
                                                   AS nvarchar(128)) AS kind FROM {}) AS s
ORDER BY s.id
"""
_FINE = ["0000000", "0000001", "1234567", "1234568", "9999999"]
SPANS = {
    **{f"datetime2({n})": [f"'2013-01-01T12:00:0{s}.{f[:n] or 0}'" for s in (0, 1)
                           for f in dict.fromkeys(g[:n] for g in _FINE)] for n in range(8)},
    **{f"datetimeoffset({n})": [f"'2013-01-01T13:00:0{s}.{f[:n] or 0}+01:00'" for s in (0, 1)
                                for f in dict.fromkeys(g[:n] for g in _FINE)] for n in range(8)},
    "datetime": [f"'2013-01-01T12:00:00.{n}'" for n in ("000", "003", "007", "010", "997")],
    "tinyint": ["0", "1", "255"],
    "smallint": ["-32768", "0", "32767"],
    "int": ["-2147483648", "0", "2147483647"],
    "bigint": ["-9223372036854775808", "0", "9223372036854775807"],
}  # fmt: skip
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

    def execute(self, statement: str) -> None:
        """Change something and commit."""
        self._outside.execute(statement).close()

    def points(self, name: TableName) -> list[int]:
        """Return the points of column `v`, by `id`: the server says how many 100 ns they are."""
        cursor = self._outside.execute(POINTS.format(table(name)))
        try:
            return [int(point) for (point,) in cursor.fetchall()]
        finally:
            cursor.close()

    @contextlib.contextmanager
    def transaction(self, statement: str) -> Iterator[None]:
        """Hold a transaction open that did something, then commit it."""
        other = connect(URL)
        try:
            other.execute("BEGIN TRANSACTION").close()
            cursor = other.execute(statement)
            if cursor.description:
                cursor.fetchall()
            cursor.close()
            yield
            other.execute("COMMIT TRANSACTION").close()
        finally:
            other.close()

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

    # --- where ------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("kind", "spelled"), SPANS.items())
    def test_spans_of_each_type_cut_between_two_values(
        self, source: Source, people: MssqlPeople, kind: str, spelled: list[str]
    ) -> None:
        """Pain 2 of the peers: 100 ns and a datetime's ticks count, ties stay together."""
        values = [value for value in spelled for _ in range(2)]  # each stands twice
        made = people.make(
            f"id int PRIMARY KEY, v {kind}", *(f"{n}, {value}" for n, value in enumerate(values))
        )
        scan = Scan(table=made, schema=source.describe(made, ()))
        with source.snapshot() as opened:
            points = people.points(made)
            for n, point in enumerate(points):
                below = ids(opened, scan, Since(column="v", low=None, high=point))
                above = ids(opened, scan, Since(column="v", low=point, high=None))
                tie = n - n % 2
                assert below == set(range(tie))
                assert above == set(range(tie, len(values)))

    def test_a_row_version_streams_every_change(self, source: Source, people: MssqlPeople) -> None:
        """A row comes again with each write, and never twice otherwise."""
        made = people.make("id int PRIMARY KEY, x int, v rowversion")
        column = source.describe(made, ()).column("v")
        scan = Scan(table=made, schema=source.describe(made, ()))
        assert isinstance(source, Counting)
        seen: list[set[int]] = []
        low = source.above(made, column)
        for change in ("INSERT INTO {} (id, x) VALUES (1, 1), (2, 2)", "UPDATE {} SET x = 3"
                       " WHERE id = 1", "UPDATE {} SET x = 3 WHERE id = 9"):  # fmt: skip
            people.execute(change.format(table(made)))
            high = source.above(made, column)
            with source.snapshot() as opened:
                seen.append(ids(opened, scan, Since(column="v", low=low, high=high)))
            low = high
        assert seen == [{1, 2}, {1}, set()]

    # --- fence ------------------------------------------------------------------------------------

    @pytest.fixture
    def fenced(self, source: Source) -> Source:
        """Return the source if its server tells when open transactions began."""
        if reason := self._unfenced(source):
            pytest.skip(f"the server or the login's rights give no fence of times: {reason}")
        return source

    @staticmethod
    def _unfenced(source: Source) -> str:
        try:
            source.fence(1.0, None)
        except ConfigError as error:
            return str(error)
        return ""

    def test_the_fence_is_known_or_says_what_to_do(self, source: Source) -> None:
        """By the server's clock; else the error names the GRANT or the lag."""
        reason = self._unfenced(source)
        if reason:
            assert "safety_lag" in reason
            assert re.search("GRANT VIEW|before 2022", reason)
        fence = source.fence(1.0, 60.0 if reason else None)
        assert fence.point is not None
        assert fence.point <= source_now(source)

    def test_an_open_transaction_holds_the_fence(self, fenced: Source, people: MssqlPeople) -> None:
        """From its begin, whether it wrote or not; our own snapshots do not."""
        free = fenced.fence(0.0, None)
        with (
            fenced.snapshot() as opened,
            people.transaction(f"SELECT 1 FROM {table(people.table)}"),
        ):
            assert opened.torn == ""
            time.sleep(1.5)
            held = fenced.fence(0.0, None)
            assert free.point is not None
            assert held.point is not None
            assert held.latest is not None
            assert free.point <= held.point < held.latest - 10**9
            assert "session" in held.held_by
            time.sleep(0.5)
            assert fenced.fence(0.0, None).point == held.point
        assert fenced.fence(0.0, None).held_by == ""

    @pytest.mark.parametrize(
        ("kind", "now"),
        [
            ("rowversion", ""), ("datetime", "GETUTCDATE()"), ("datetime2(7)", "SYSUTCDATETIME()"),
            ("datetime2(3)", "SYSUTCDATETIME()"), ("datetimeoffset(7)", "SYSDATETIMEOFFSET()"),
            ("datetimeoffset(0)", "SYSDATETIMEOFFSET()"),
        ],
    )  # fmt: skip
    def test_a_long_transaction_loses_no_row(
        self,
        request: pytest.FixtureRequest,
        source: Source,
        people: MssqlPeople,
        kind: str,
        now: str,
    ) -> None:
        """Pain 1 of the peers, late commits under the watermark: above the fence, and read then."""
        if now:
            request.getfixturevalue("fenced")
        default = f"NOT NULL DEFAULT {now}" if now else ""
        made = people.make(f"n int PRIMARY KEY, v {kind} {default}")
        schema = source.describe(made, ())
        seen: set[int] = set()
        low = 0

        def capture() -> None:
            nonlocal low
            high = self._bound(source, made, schema)
            with source.snapshot() as opened:
                scan = Scan(table=made, schema=schema, where=Since(column="v", low=low, high=high))
                seen.update(row["n"] for row in rows(opened, scan))
            low = max(low, high)

        with people.transaction(f"INSERT INTO {table(made)} (n) VALUES (1)"):
            people.execute(f"INSERT INTO {table(made)} (n) VALUES (2)")
            time.sleep(1.5)
            capture()
            assert 1 not in seen
        time.sleep(1.5)
        people.execute(f"INSERT INTO {table(made)} (n) VALUES (3)")
        time.sleep(2.5)  # a time of whole seconds may have been rounded up
        capture()
        assert seen == {1, 2, 3}

    @staticmethod
    def _bound(source: Source, made: TableName, schema: TableSchema) -> int:
        column = schema.column("v")
        if column.kind == "bytes":
            assert isinstance(source, Counting)
            return source.above(made, column)
        point = source.fence(0.05, None).point
        assert point is not None
        return point - int(10 ** (9 - (column.precision or 0)))

    def test_an_uncommitted_number_is_passed_over(
        self, source: Source, people: MssqlPeople
    ) -> None:
        """And waited for by nobody."""
        number = source.describe(people.table, ()).column("id")
        assert isinstance(source, Counting)
        with people.transaction(f"INSERT INTO {table(people.table)} (id) VALUES (5000)"):
            assert source.above(people.table, number) == ROWS + 1

    # --- without one moment -----------------------------------------------------------------------

    def test_without_isolation_reads_are_torn_and_say_so(
        self, source: Source, people: MssqlPeople
    ) -> None:
        """Committed rows come as they are at each read; the owner's statement is named."""
        scan = Scan(table=people.table, schema=source.describe(people.table, ()))
        people.execute("ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION OFF")
        try:
            with source.snapshot() as opened:
                assert opened.torn.endswith(
                    "ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON"
                )
                assert opened.count(scan) == ROWS
                people.remove(8)
                assert opened.count(scan) == ROWS - 1
                assert len(rows(opened, scan)) == ROWS - 1
        finally:
            people.execute("ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON")

    def test_a_snapshot_left_early_is_of_one_moment_or_says_so(
        self, source: Source, people: MssqlPeople
    ) -> None:
        """Cancelling a read may end its transaction; what came after would be another moment's."""
        made = people.make("id bigint PRIMARY KEY, x char(200)")
        people.execute(
            f"INSERT INTO {table(made)} SELECT TOP (40000) ROW_NUMBER() OVER"
            " (ORDER BY a.object_id), 'x' FROM sys.all_columns AS a CROSS JOIN sys.all_columns AS b"
        )
        scan = Scan(table=made, schema=source.describe(made, ()))
        with source.snapshot() as opened:
            batches = opened.read(scan)
            next(batches)
            batches.close()  # type: ignore[attr-defined]  # a generator
            people.execute(f"DELETE FROM {table(made)} WHERE id = 8")
            with contextlib.suppress(RetryableError):
                assert opened.count(scan) == 40000

    def test_keys_of_another_code_page_are_found(self, source: Source, people: MssqlPeople) -> None:
        """The column's collation says into which page they are cast."""
        made = people.make(
            "k varchar(20) COLLATE Cyrillic_General_CI_AS NOT NULL PRIMARY KEY, v int",
            "N'яблоко', 1",
        )
        scan = Scan(table=made, schema=source.describe(made, ()))
        keys = Keys(keys=pa.table({"k": ["яблоко", "Яблоко"]}))
        with source.snapshot() as opened:
            assert [row["v"] for row in rows(opened, replace(scan, where=keys))] == [1]

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
