"""SQL Server as a target, on the server that NAVIGLIO_TEST_MSSQL names.

Its login needs a database of its own to play in: CREATE TABLE, CREATE SCHEMA and ALTER on what it
makes; the tests of killed sessions VIEW SERVER STATE and ALTER ANY CONNECTION. Nothing outside the
schemas `naviglio`, `made` and `s...` is touched.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import mssql_python
import pytest

from naviglio.adapters.mssql import ledger
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.session import connect
from naviglio.adapters.mssql.sql import literal, table
from naviglio.adapters.mssql.staging import Stream, staging_table
from naviglio.adapters.mssql.tally import differences, figures_query
from naviglio.adapters.mssql.target import MssqlTarget
from naviglio.errors import ConfigError, ContentionError, DataError, RetryableError, TargetError
from naviglio.load.commit import retried
from naviglio.model import BEYOND, Column, Kind, LoadCounts, TableName, TableSchema
from naviglio.ports import Staging, Target
from tests.contract.target import (
    ID,
    NAME,
    PEOPLE,
    Row,
    TargetContract,
    batches,
    ledger_row,
    load,
    person,
    staged_beside,
)

VARIABLE = "NAVIGLIO_TEST_MSSQL"
URL = os.environ.get(VARIABLE, "")

pytestmark = pytest.mark.skipif(
    not URL, reason=f"{VARIABLE} is not set: it is the mssql:// URL of a server to test against"
)


def column(name: str, kind: Kind, carrier: str = "string", **more: Any) -> Column:
    """Return a column."""
    return Column(**{"name": name, "kind": kind, "carrier": carrier, "source_type": "", **more})


class TestMssqlTarget(TargetContract):
    """The contract, and what only SQL Server has."""

    beyond = "2.50"  # it has no NaN
    longest = 128

    outside: mssql_python.Connection

    @pytest.fixture(autouse=True)
    def _outside(self) -> Iterator[None]:
        self.outside = connect(URL)
        with contextlib.suppress(mssql_python.Error):
            self.outside.execute(ledger.create_schema("made"))
        yield
        self.outside.close()

    def open(self) -> Target:
        """Open the target once more."""
        return MssqlTarget(URL)

    def stored(self, name: TableName) -> list[Row] | None:
        """Return the rows of a table, by its first column; None when it is absent."""
        if self.ask("SELECT OBJECT_ID(?, N'U')", table(name)) == [(None,)]:
            return None
        with self.outside.execute(f"SELECT * FROM {table(name)} ORDER BY 1") as cursor:
            names = [one[0] for one in cursor.description]
            return [dict(zip(names, map(_plain, row), strict=True)) for row in cursor.fetchall()]

    def make(self, name: TableName, *, amount: str, unique: bool) -> None:
        """Create a table for PEOPLE by hand, with this type of `amount`, with or without a key."""
        self.run(
            f"CREATE TABLE {table(name)} ([id] bigint NOT NULL{' UNIQUE' if unique else ''},"
            f" [name] nvarchar(max), [amount] {amount}, [seen] datetimeoffset(6))"
        )

    def kill_copying(self) -> None:
        """End the session that copies rows into a staging table, once there is one."""
        self.end("r.command = N'BULK INSERT'")

    def kill_merging(self) -> None:
        """End the session whose merge waits for another's lock, once there is one."""
        self.end("r.command = N'MERGE' AND r.blocking_session_id <> 0")

    def end(self, condition: str) -> None:
        """End a session (needs VIEW SERVER STATE, ALTER ANY CONNECTION)."""
        query = (
            "SELECT r.session_id FROM sys.dm_exec_requests AS r"
            f" WHERE r.database_id = DB_ID() AND {condition}"
        )
        for _ in range(1000):
            if found := self.ask(query):
                self.run(f"KILL {int(found[0][0])}")
                return
            time.sleep(0.01)
        raise AssertionError("there was no such session")

    @contextlib.contextmanager
    def holding(self, name: TableName, number: int) -> Iterator[None]:
        """Keep another session's lock on a row of a table."""
        other = connect(URL)
        other.autocommit = False
        try:
            other.execute(
                f"UPDATE {table(name)} SET [name] = N'held' WHERE [id] = ?", number
            ).close()
            yield
            other.rollback()
        finally:
            other.close()

    def ask(self, query: str, *bound: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self.outside.execute(query, *bound) as cursor:
            return [tuple(row) for row in cursor.fetchall()]

    def run(self, statement: str) -> None:
        """Run a statement."""
        self.outside.execute(statement).close()

    # --- another principal -----------------------------------------------------------------------

    def test_the_user_merges_and_the_session_comes_back(self, name: TableName) -> None:
        """The server says who merged, who recorded, and who the session is afterwards."""
        user = f"naviglio_{uuid.uuid4().hex[:8]}"
        own = self.ask("SELECT USER_NAME()")[0][0]
        self.run(f"CREATE USER [{user}] WITHOUT LOGIN")
        self.run(f"GRANT IMPERSONATE ON USER::[{user}] TO [{own}]" if own != "dbo" else "SELECT 1")
        try:
            self.make(name, amount="decimal(9,2)", unique=True)
            self.run(f"ALTER TABLE {table(name)} ADD [who] sysname NOT NULL DEFAULT USER_NAME()")
            target = MssqlTarget(URL, run_as=user)
            self.run(f"GRANT SELECT ON {table(name)} TO [{user}]")
            with pytest.raises(TargetError, match="lacks INSERT, UPDATE, DELETE"):
                load(target, name, [person(1)])
            self.run(f"GRANT INSERT, UPDATE, DELETE ON {table(name)} TO [{user}]")
            with pytest.raises(DataError):
                load(target, name, [person(1), person(1, "Bob")])
            assert load(target, name, [person(1), person(2)]).inserted == 2
            with target.begin() as transaction:
                transaction.lock(name)
                transaction.record(ledger_row(name))
            with target._session() as session:
                assert fetch(session, "SELECT USER_NAME()") == [(own,)]
            assert {row["who"] for row in self.stored(name) or []} == {user}
            assert target.ledger()[str(name)].principal == user
            target.close()
        finally:
            self.run(f"DROP TABLE IF EXISTS {table(name)}")
            self.run(f"DROP USER [{user}]")

    # --- rows that are switched in ---------------------------------------------------------------

    def merged(self, target: Target, name: TableName, staging: Staging) -> LoadCounts:
        """Merge as a load does: again from the lock on where the server ended it for others."""

        def once() -> LoadCounts:
            with target.begin() as transaction:
                transaction.lock(name)
                return transaction.merge(name, PEOPLE, staging)

        return retried(once)

    def test_a_swap_leaves_the_table_and_all_that_belongs_to_it(
        self, target: Target, name: TableName
    ) -> None:
        """Number, grants, defaults, checks, indexes, properties and views are what they were."""
        load(target, name, [person(1), person(2)], whole=True)
        mark = uuid.uuid4().hex[:8]
        made = table(name)
        self.run(
            f"CREATE INDEX [by ]]name] ON {made} ([name] DESC) INCLUDE ([seen])"
            " WHERE [name] IS NOT NULL WITH (FILLFACTOR = 80, DATA_COMPRESSION = PAGE)"
        )
        self.run(f"ALTER TABLE {made} ADD CONSTRAINT [uq {mark}] UNIQUE ([seen], [id])")
        self.run(f"ALTER TABLE {made} ADD CONSTRAINT [ck {mark}] CHECK ([amount] < 1000)")
        self.run(f"ALTER TABLE {made} ADD CONSTRAINT [df {mark}] DEFAULT 7 FOR [amount]")
        self.run(f"GRANT SELECT ON {made} TO [public]")
        self.run(f"CREATE VIEW [made].[v {mark}] AS SELECT [id] FROM {made}")
        before = self.belongings(name)

        for rows in ([person(n, f"n{n}") for n in range(2, 7)], [person(9)]):
            there = len(self.stored(name) or [])
            staging = staged_beside(target, name, rows)
            counts = self.merged(target, name, staging)
            assert counts == LoadCounts(inserted=len(rows), deleted=there)
            assert self.belongings(name) == before
        assert self.ask(f"SELECT [id] FROM [made].[v {mark}]") == [(9,)]
        assert self.ask(
            "SELECT COUNT(*) FROM sys.objects WHERE name LIKE N'b[_]' + ?", staging.attempt
        ) == [(0,)]

    def belongings(self, name: TableName) -> list[Any]:
        """Return what the catalogue holds of a table."""
        queries = (
            "SELECT name, object_id FROM sys.objects WHERE object_id = OBJECT_ID({})"
            " OR parent_object_id = OBJECT_ID({}) ORDER BY name",
            "SELECT permission_name, grantee_principal_id FROM sys.database_permissions"
            " WHERE major_id = OBJECT_ID({})",
            "SELECT i.name, i.is_unique, i.fill_factor, i.filter_definition, i.is_disabled,"
            " p.data_compression_desc FROM sys.indexes AS i JOIN sys.partitions AS p ON"
            " p.object_id = i.object_id AND p.index_id = i.index_id"
            " WHERE i.object_id = OBJECT_ID({}) ORDER BY i.name",
            "SELECT name, CAST(value AS nvarchar(100)) FROM sys.extended_properties"
            " WHERE major_id = OBJECT_ID({})",
        )
        return [self.ask(query.format(*[literal(table(name))] * 2)) for query in queries]

    @pytest.mark.parametrize(
        ("statement", "told"),
        [
            ("CREATE TRIGGER [made].[{mark}] ON {t} AFTER INSERT AS SET NOCOUNT ON", "trigger"),
            ("CREATE VIEW [made].[{mark}] WITH SCHEMABINDING AS SELECT [id] FROM {t}", "bound to"),
            ("CREATE TABLE [made].[{mark}] ([id] bigint REFERENCES {t})", "foreign key"),
            ("ALTER TABLE {t} ADD CONSTRAINT [{mark}] FOREIGN KEY ([id]) REFERENCES {t}",
             "foreign key"),
            ("ALTER TABLE {t} ADD [more] int", "values of column 'more'"),
            ("ALTER TABLE {t} ADD [twice] AS ([amount] * 2)", "'twice', which the server computes"),
            ("ALTER TABLE {t} ADD [n] int IDENTITY", "'n', which the server computes"),
            ("ALTER TABLE {t} ADD [v] rowversion", "'v', which the server computes"),
            ("ALTER TABLE {t} WITH NOCHECK ADD CONSTRAINT [{mark}] CHECK ([id] > 0)",
             "not trusted"),
            ("CREATE NONCLUSTERED COLUMNSTORE INDEX [{mark}] ON {t} ([amount])", "its kind"),
            ("CREATE INDEX [{mark}] ON {t} ([name]); ALTER INDEX [{mark}] ON {t} DISABLE",
             "disabled"),
        ],
    )  # fmt: skip
    def test_what_a_swap_would_lose_is_named(
        self, target: Target, name: TableName, statement: str, told: str
    ) -> None:
        """And a swap that was begun before it came is a merge."""
        load(target, name, [person(1), person(2)], whole=True)
        staging = staged_beside(target, name, [person(2), person(3)])
        mark = f"m{uuid.uuid4().hex[:10]}"
        self.run(statement.format(t=table(name), mark=mark))

        assert isinstance(target, MssqlTarget)
        assert told in "; ".join(target.keeps(name, PEOPLE))
        counts = self.merged(target, name, staging)
        assert counts == LoadCounts(inserted=1, deleted=1, unchanged=1)

    def test_a_reader_that_holds_the_table_is_not_waited_for(
        self, target: Target, name: TableName
    ) -> None:
        """The swap gives up after a moment; its rows are merged when the reader has gone."""
        load(target, name, [person(1)], whole=True)
        staging = staged_beside(target, name, [person(1), person(2)])
        reader = connect(URL)
        reader.autocommit = False
        try:
            fetch(reader, f"SELECT * FROM {table(name)} WITH (HOLDLOCK, TABLOCK)")
            with pytest.raises(ContentionError, match="merged instead"), target.begin() as one:
                one.lock(name)
                one.merge(name, PEOPLE, staging)
            reader.rollback()
        finally:
            reader.close()
        assert self.merged(target, name, staging) == LoadCounts(inserted=1, unchanged=1)

    def test_indexes_are_built_again_in_the_transaction(
        self, target: Target, name: TableName
    ) -> None:
        """After the commit, and after a rollback, none is off; readers of versions forbid it."""
        load(target, name, [person(n) for n in range(9)], whole=True)
        self.run(f"CREATE INDEX [i] ON {table(name)} ([name]) WITH (DATA_COMPRESSION = ROW)")
        self.run(f"CREATE UNIQUE INDEX [u] ON {table(name)} ([id], [name])")
        versions = self.ask(
            "SELECT 1 FROM sys.databases WHERE database_id = DB_ID() AND"
            " (is_read_committed_snapshot_on = 1 OR snapshot_isolation_state <> 0)"
        )
        before = self.belongings(name)
        assert isinstance(target, MssqlTarget)
        assert target.rebuildable(name) == (0 if versions else 1)
        rows = batches(PEOPLE, [person(n, "Bob") for n in range(9)], whole=False)
        staging = replace(
            target.stage(uuid.uuid4().hex[:16], PEOPLE, rows, whole=False), rebuild=True
        )

        with pytest.raises(RuntimeError, match="stop"), target.begin() as transaction:
            transaction.lock(name)
            transaction.merge(name, PEOPLE, staging)
            raise RuntimeError("stop")
        assert self.belongings(name) == before

        assert self.merged(target, name, staging) == LoadCounts(updated=9)
        assert self.belongings(name) == before

    # --- types -----------------------------------------------------------------------------------

    def test_every_kind_comes_through(self, target: Target, name: TableName) -> None:
        """Each carrier becomes the value that it carries, by whatever way it is loaded."""
        kinds: list[tuple[Column, Any, str]] = [
            (column("i2", "int16", "int16"), -(2**15), "-32768"),
            (column("tiny", "int16", "int16", source_type="tinyint"), 255, "255"),
            (column("i4", "int32", "int32"), 2**31 - 1, "2147483647"),
            (column("i8", "int64", "int64"), -(2**63), "-9223372036854775808"),
            (column("b", "bool", "bool"), False, "0"),
            (
                column("d", "decimal", "decimal128(38, 10)", precision=38, scale=10),
                Decimal("-1234567890123456789012345678.0123456789"),
                "-1234567890123456789012345678.0123456789",
            ),
            (column("n", "number"), "1.5", "1.500000000000000000"),
            (column("t", "text"), "é€😀\n\t\r\\'\"", "é€😀\n\t\r\\'\""),
            (column("pad", "text", length=3), "😀😀 ", "😀😀 "),
            (column("empty", "text"), "", ""),
            (column("tm", "time", precision=6), "23:59:59.999999", "23:59:59.999999"),
            (
                column("ts", "timestamp", "timestamp[us]"),
                datetime(1, 1, 1, 0, 0, 0, 1),  # noqa: DTZ001
                "0001-01-01 00:00:00.000001",
            ),
            (
                column("tz", "timestamptz", "timestamp[us, tz=UTC]"),
                datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
                "9999-12-31 23:59:59.999999 +00:00",
            ),
            (column("u", "uuid"), "0" * 8 + "-0000-0000-0000-" + "a" * 12,
             "00000000-0000-0000-0000-AAAAAAAAAAAA"),
            (column("j", "json"), '{"b" : 1, "b":2}', '{"b" : 1, "b":2}'),
        ]  # fmt: skip
        schema = TableSchema(columns=(ID, *(one for one, _, _ in kinds)), key=("id",))
        row: Row = {"id": 1, **{one.name: given for one, given, _ in kinds}}
        listed = ", ".join(f"CONVERT(nvarchar(max), [{one.name}], 121)" for one, _, _ in kinds)

        for whole in (True, False):
            load(target, name, [row], schema=schema, whole=whole)
            assert self.ask(f"SELECT {listed} FROM {table(name)}") == [
                tuple(text for _, _, text in kinds)
            ]

    def test_bytes_and_floats_keep_every_bit(self, target: Target, name: TableName) -> None:
        """Zeros at the end, the smallest and the negative zero."""
        schema = TableSchema(
            columns=(ID, column("v", "bytes", "binary"), column("f", "float64", "double")),
            key=("id",),
        )
        rows: list[Row] = [
            {"id": 1, "v": b"\1", "f": 0.0}, {"id": 2, "v": b"", "f": 5e-324},
            {"id": 3, "v": None, "f": 1.7976931348623157e308},
        ]  # fmt: skip
        load(target, name, rows, schema=schema)
        assert load(target, name, rows, schema=schema) == LoadCounts(unchanged=3)

        for change in ({"v": b"\1\0", "f": 0.0}, {"v": b"\1\0", "f": -0.0}):
            counts = load(target, name, [{"id": 1, **change}], schema=schema)
            assert counts == LoadCounts(updated=1)

    @pytest.mark.parametrize(
        ("kind", "carrier", "told"),
        [("decimal", "decimal128(4, 2)", "NaN"), ("decimal", "decimal128(4, 2)", "1.239"),
         ("timestamptz", "timestamp[us, tz=UTC]", "infinity"),
         ("timestamp", "timestamp[us]", "4714-11-24 00:00:00 BC"),
         ("timestamp", "timestamp[us]", "2013-01-07 12:00:00.1234567")],
    )  # fmt: skip
    def test_what_has_no_image_is_refused_by_name(
        self, target: Target, name: TableName, kind: Kind, carrier: str, told: str
    ) -> None:
        """Column and key are named, the value is not; nothing is rounded."""
        value = column("v", kind, carrier, precision=4 if kind == "decimal" else 6, scale=2)
        schema = TableSchema(columns=(ID, value), key=("id",))
        rows: list[Row] = [{"id": 1}, {"id": 2, BEYOND: f'{{"v": "{told}"}}'}]
        with pytest.raises(DataError, match=r"column 'v'.*beyond.*key \(id=2\)") as caught:
            load(target, name, rows, schema=schema)
        assert told not in str(caught.value)
        assert self.stored(name) is None

    def test_a_value_beyond_its_carrier_comes_through(
        self, target: Target, name: TableName
    ) -> None:
        """A tenth of a microsecond, which Arrow's carrier has not."""
        at = column("at", "timestamp", "timestamp[us]", source_type="datetime2(7)", precision=7)
        schema = TableSchema(columns=(ID, at), key=("id",))
        row: Row = {"id": 1, BEYOND: '{"at": "2013-01-07 12:00:00.1234567"}'}
        for whole in (True, False):
            load(target, name, [row], schema=schema, whole=whole)
        assert self.ask(f"SELECT CONVERT(varchar(40), [at], 121) FROM {table(name)}") == [
            ("2013-01-07 12:00:00.1234567",)
        ]

    # --- the checksum of what was staged ---------------------------------------------------------

    @pytest.mark.parametrize("column", ["c2", "c3", "c4"])
    def test_values_that_changed_places_in_the_staging_are_noticed(
        self, target: Target, column: str
    ) -> None:
        """The server's figures are those of what was sent, and others once two rows are mixed."""
        rows: list[Row] = [
            {**person(-7, "a€"), "seen": datetime(2013, 1, 7, tzinfo=UTC)},
            {**person(9000, "😀b", "2.00"), "seen": datetime(1, 1, 1, tzinfo=UTC)},
            {**person(5, "", None), "seen": None},
            {**person(2**40, None, "-3.5")},
        ]
        stream = Stream(batches(PEOPLE, rows, whole=True), PEOPLE, whole=True)
        list(stream)
        told = batches(PEOPLE, rows, whole=True)
        name = target.stage(uuid.uuid4().hex[:16], PEOPLE, told, whole=True).name
        self.run(
            f"UPDATE s SET {column} = o.{column} FROM {name} AS s JOIN {name} AS o"
            " ON (s.c1 = -7 AND o.c1 = 9000) OR (s.c1 = 9000 AND o.c1 = -7)"
        )
        (stored,) = self.ask(figures_query(name, stream.schema, "c1"))
        assert differences(stream.tally.figures, stored, stream.schema) == [column]

    # --- keys ------------------------------------------------------------------------------------

    def named(self, name: TableName, collation: str) -> TableSchema:
        """Make a target whose key is a text of a collation; return its schema."""
        self.run(
            f"CREATE TABLE {table(name)} ([name] nvarchar(20) COLLATE {collation} NOT NULL"
            " PRIMARY KEY, [amount] decimal(9,2))"
        )
        return TableSchema(columns=(NAME, PEOPLE.column("amount")), key=("name",))

    def test_keys_are_one_where_the_target_says_so(self, target: Target, name: TableName) -> None:
        """An upsert beats a delete that is spelled otherwise; the newer spelling stays."""
        schema = self.named(name, "Latin1_General_CI_AS")
        load(target, name, [{"name": "Ada", "amount": Decimal(1)}], schema=schema)

        rows: list[Row] = [{"name": "ADA ", "_op": "delete"}, {"name": "ada", "amount": Decimal(1)}]
        counts = load(target, name, rows, schema=schema)

        assert counts == LoadCounts(updated=1)
        assert self.stored(name) == [{"name": "ada", "amount": Decimal("1.00")}]
        assert load(target, name, [{"name": "ADA", "_op": "delete"}], schema=schema).deleted == 1

    def test_two_living_rows_of_one_key_are_named(self, target: Target, name: TableName) -> None:
        """Both spellings, unless the target tells them apart."""
        rows = [{"name": "Ada", "amount": Decimal(1)}, {"name": "ADA", "amount": Decimal(2)}]
        schema = self.named(name, "Latin1_General_CI_AS")
        with pytest.raises(DataError, match=r"\(name=(Ada|ADA)\) and \(name=(Ada|ADA)\)"):
            load(target, name, rows, schema=schema)

        other = replace(name, table=name.table + " bin")
        schema = self.named(other, "Latin1_General_BIN2")
        assert load(target, other, rows, schema=schema) == LoadCounts(inserted=2)

    def test_names_that_differ_in_case_only(self, target: Target, name: TableName) -> None:
        """Refused where the database takes them for one, as are columns; else two."""
        columns = (ID, replace(NAME, name="Name"), replace(NAME, name="name"))
        schema = TableSchema(columns=columns, key=("id",))
        ((folds,),) = self.ask("SELECT CASE WHEN N'a' = N'A' THEN 1 ELSE 0 END")
        if folds:
            with pytest.raises(ConfigError, match="'Name' and 'name'"):
                target.check(name, schema, adopt=False)
            return
        target.check(name, schema, adopt=False)
        load(target, name, [{"id": 1, "Name": "a", "name": "b"}], schema=schema)
        assert [(row["Name"], row["name"]) for row in self.stored(name) or []] == [("a", "b")]

    # --- what goes wrong -------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("constraint", "bad", "said"),
        [
            ("CONSTRAINT [ck {}] CHECK (amount < 100)", person(40, amount="100"),
             r"error 547.*key \(id=40\)"),
            ("CONSTRAINT [uq {}] UNIQUE (amount)", person(40, amount="1"),
             r"error 2627.*key \(id=(40|2)\)"),
        ],
    )  # fmt: skip
    def test_what_a_constraint_refuses(
        self, target: Target, name: TableName, constraint: str, bad: Row, said: str
    ) -> None:
        """The constraint of an adopted table is named, and the key of the row."""
        self.make(name, amount="numeric(9,2)", unique=True)
        self.run(f"ALTER TABLE {table(name)} ADD {constraint.format(name.table)}")
        load(target, name, [person(1, amount="50"), person(2, amount="1")])

        many = [person(n, f"n{n}", f"{n}.1") for n in range(3, 30)]
        with pytest.raises(DataError, match=said):
            load(target, name, [*many, bad])

        assert len(self.stored(name) or []) == 2

    def test_waiting_for_a_lock_ends(self, name: TableName) -> None:
        """A load never waits for ever for another's."""
        first, second = self.open(), MssqlTarget(URL, lock_wait_s=0.1)
        with first.begin() as holder:
            holder.lock(name)
            with pytest.raises(RetryableError, match="no lock within"), second.begin() as waiter:
                waiter.lock(name)
        first.close()
        second.close()

    def test_a_lost_session_leaves_nothing_half_done(self, name: TableName) -> None:
        """The session is killed after the merge and before the commit (needs ALTER ANY CONNECTION).

        A staging table whose session is gone is never merged: it may have been dropped by now.
        """
        worker = MssqlTarget(URL)
        load(worker, name, [person(1)])
        rows = batches(PEOPLE, [person(2)], whole=False)
        staging = worker.stage(uuid.uuid4().hex[:16], PEOPLE, rows, whole=False)
        with worker._session() as connection:
            ((session,),) = connection.execute("SELECT @@SPID").fetchall()
        with pytest.raises(RetryableError), worker.begin() as transaction:
            transaction.lock(name)
            transaction.merge(name, PEOPLE, staging)
            self.run(f"KILL {int(session)}")
        assert [row["id"] for row in self.stored(name) or []] == [1]

        with pytest.raises(RetryableError, match="stage again"), worker.begin() as transaction:
            transaction.merge(name, PEOPLE, staging)
        assert load(worker, name, [person(2)]) == LoadCounts(inserted=1)
        worker.close()

    def test_staging_of_the_dead_is_dropped_and_of_the_living_kept(self, target: Target) -> None:
        """Whoever closes clears what others left, and only that."""
        living, dead = (uuid.uuid4().hex[:16] for _ in range(2))
        target.stage(living, PEOPLE, batches(PEOPLE, [person(1)], whole=True), whole=True)
        self.run(f"SELECT 1 AS [c1] INTO {staging_table(dead)}")
        other = self.open()
        other.ledger()
        other.close()
        assert [self.ask("SELECT OBJECT_ID(?)", staging_table(a)) == [(None,)]
                for a in (living, dead)] == [False, True]  # fmt: skip

    def test_the_ledger_is_made_once_by_many(self) -> None:
        """Loads of several targets may begin at once."""
        errors: list[Exception] = []

        def one(number: int) -> None:
            worker = self.open()
            try:
                made = TableName(schema="made", table=f"t{number} {uuid.uuid4().hex[:8]}")
                load(worker, made, [person(1)])
            except Exception as error:  # noqa: BLE001 - told to the test
                errors.append(error)
            finally:
                worker.close()

        threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


def _plain(value: Any) -> Any:
    """Return times in UTC, as the contract compares them."""
    aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.astimezone(UTC) if aware else value
