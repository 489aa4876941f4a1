"""PostgreSQL as a target, on the real server."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg.rows import dict_row

from naviglio.adapters.postgres import open_target
from naviglio.adapters.postgres.embedded import Cluster
from naviglio.adapters.postgres.sql import quote, table
from naviglio.adapters.postgres.target import PostgresTarget
from naviglio.errors import (
    ConfigError,
    DataError,
    NaviglioError,
    RetryableError,
    SwapRefusedError,
)
from naviglio.model import BEYOND, Column, Kind, LoadCounts, TableName, TableSchema
from naviglio.ports import Staging, Target
from tests.contract.postgres_sessions import Sessions
from tests.contract.target import (
    ID,
    NAME,
    PEOPLE,
    Row,
    TargetContract,
    batches,
    deleted,
    ledger_row,
    load,
    person,
)


def column(name: str, kind: Kind, carrier: str = "string", **more: Any) -> Column:
    """Return a column."""
    return Column(name=name, kind=kind, carrier=carrier, source_type="", **more)


class TestPostgresTarget(Sessions, TargetContract):
    """The contract, and what only PostgreSQL shows."""

    @pytest.fixture(autouse=True)
    def _connect(self, cluster: Cluster) -> Iterator[None]:
        self.url = cluster.urls()["warehouse"]
        self.admin_url = cluster.urls()["admin"]
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("CREATE SCHEMA IF NOT EXISTS made")
            self.outside = connection
            yield

    def open(self) -> Target:
        """Open the target once more."""
        return open_target(self.url)

    def stored(self, name: TableName) -> list[Row] | None:
        """Return the rows of a table, by its first column; None when it is absent."""
        if self.ask(f"SELECT to_regclass('{table(name).replace(chr(39), chr(39) * 2)}')") == [None]:
            return None
        return self.outside.execute(f"SELECT * FROM {table(name)} ORDER BY 1".encode()).fetchall()

    def make(self, name: TableName, *, amount: str, unique: bool) -> None:
        """Create a table for PEOPLE by hand, with this type of `amount`, with or without a key."""
        self.outside.execute(
            f"CREATE TABLE {table(name)} (id bigint {'UNIQUE' if unique else ''}, name text,"
            f" amount {amount}, seen timestamptz)".encode()
        )

    def ask(self, query: str) -> list[Any]:
        """Return the first column of a query."""
        return [next(iter(row.values())) for row in self.outside.execute(query.encode())]

    # --- what is written -------------------------------------------------------------------------

    def test_the_target_is_made_from_the_schema(self, target: Target, name: TableName) -> None:
        """Types, lengths and digits of the logical schema; the key is the primary key."""
        load(target, name, [person(1)])

        made = self.ask(
            "SELECT a.attname || ' ' || format_type(atttypid, atttypmod) || attnotnull"
            f" FROM pg_attribute a WHERE attrelid = '{table(name)}'::regclass AND attnum > 0"
        )
        assert made == [
            "id biginttrue", "name character varying(9)false", "amount numeric(9,2)false",
            "seen timestamp with time zonefalse",
        ]  # fmt: skip
        assert self.ask(
            f"SELECT indkey::text FROM pg_index WHERE indrelid = '{table(name)}'::regclass"
            " AND indisprimary"
        ) == ["1"]

    def test_equal_rows_stay_untouched(self, target: Target, name: TableName) -> None:
        """A row that doesn't differ keeps its very version and isn't even locked, short or long."""
        schema = TableSchema(columns=(ID, column("t", "text"), column("j", "json")), key=("id",))
        rows: list[Row] = [
            {"id": 1, "t": "x" * 100_000, "j": '{"a": 1, "a": 2}'},
            {"id": 2, "t": None, "j": None},
            {"id": 3, "t": "old", "j": "1"},
        ]
        load(target, name, rows, schema=schema)
        versions = (
            f"SELECT xmin::text || ' ' || xmax::text FROM {table(name)} WHERE id < 3 ORDER BY id"
        )
        before = self.ask(versions)

        counts = load(target, name, [*rows[:2], {**rows[2], "j": " 1"}], schema=schema, whole=True)

        assert counts == LoadCounts(updated=1, unchanged=2)
        assert self.ask(versions) == before

    def test_equal_but_not_identical_values_are_updated(
        self, target: Target, name: TableName
    ) -> None:
        """1.0 and 1.00, 0.0 and -0.0 are equal to the server and not the same."""
        schema = TableSchema(
            columns=(
                column("k", "number"),
                column("n", "number"),
                column("f", "float64", "double"),
            ),
            key=("k",),
        )
        load(target, name, [{"k": "1.0", "n": "1.0", "f": 0.0}], schema=schema)
        for changed in ({"n": "1.00", "f": 0.0}, {"n": "1.00", "f": -0.0}):
            counts = load(target, name, [{"k": "1.0", **changed}], schema=schema)
            assert counts == LoadCounts(updated=1)

        key = load(target, name, [{"k": "1.00", "n": "1.00", "f": -0.0}], schema=schema, whole=True)

        assert key == LoadCounts(updated=1)
        assert self.ask(f"SELECT k::text || n::text || f::text FROM {table(name)}") == [
            "1.001.00-0"
        ]

    def test_every_kind_comes_through(self, target: Target, name: TableName) -> None:
        """Each carrier becomes the value it carries, by whatever way it is loaded."""
        kinds: dict[str, tuple[Column, Any, str]] = {
            "i2": (column("i2", "int16", "int16"), -(2**15), "-32768"),
            "i4": (column("i4", "int32", "int32"), 2**31 - 1, "2147483647"),
            "i8": (column("i8", "int64", "int64"), -(2**63), "-9223372036854775808"),
            "b": (column("b", "bool", "bool"), False, "false"),
            "f4": (column("f4", "float32", "float"), float("-inf"), "-Infinity"),
            "f8": (column("f8", "float64", "double"), 5e-324, "5e-324"),
            "d": (
                column("d", "decimal", "decimal128(38, 10)", precision=38, scale=10),
                Decimal("-1234567890123456789012345678.0123456789"),
                "-1234567890123456789012345678.0123456789",
            ),
            "n": (column("n", "number"), "1e400", "1" + "0" * 400),
            "t": (column("t", "text"), "é€😀\n\\'\"", "é€😀\n\\'\""),
            "pad": (column("pad", "text", length=3), "a  ", "a  "),
            "dd": (column("dd", "date", "date32[day]"), None, "infinity"),
            "tm": (column("tm", "time"), "24:00:00", "24:00:00"),
            "ts": (column("ts", "timestamp", "timestamp[us]"), None, "4714-11-24 00:00:00 BC"),
            "tz": (
                column("tz", "timestamptz", "timestamp[us, tz=UTC]"), None, "-infinity",
            ),
            "iv": (
                column("iv", "interval"), "-1 years +2 days -03:00:00.5",
                "-1 years +2 days -03:00:00.5",
            ),
            "u": (column("u", "uuid"), "0" * 32, "00000000-0000-0000-0000-000000000000"),
            "by": (column("by", "bytes", "binary"), b"\0\xff", "\\x00ff"),
            "j": (column("j", "json"), '{"b" : 1, "b":2}', '{"b" : 1, "b":2}'),
            "jb": (column("jb", "jsonb"), '{"b" : 1, "b":2}', '{"b": 2}'),
            "l": (column("l", "literal"), "(1,2)", "(1,2)"),
            "nan": (
                column("nan", "decimal", "decimal128(4, 2)", precision=4, scale=2), None, "NaN",
            ),
        }  # fmt: skip
        schema = TableSchema(columns=(ID, *(one for one, _, _ in kinds.values())), key=("id",))
        row: Row = {"id": 1, **{key: given for key, (_, given, _) in kinds.items()}}
        row[BEYOND] = (
            '{"dd": "infinity", "tz": "-infinity", "ts": "4714-11-24 00:00:00 BC", "nan": "NaN"}'
        )
        load(target, name, [row], schema=schema, whole=True)
        listed = ", ".join(f"{quote(key)}::text" for key in kinds)
        expected = {key: text for key, (_, _, text) in kinds.items()}

        for changes in ([{**row, "id": 2}], [{"id": 3}], [{**row, "id": 3}]):
            load(target, name, changes, schema=schema)

        for found in self.outside.execute(f"SELECT {listed} FROM {table(name)}".encode()):
            assert found == expected
        assert load(target, name, [row], schema=schema) == LoadCounts(unchanged=1)

    def test_a_key_beyond_its_carrier(self, target: Target, name: TableName) -> None:
        """Infinity can be a key: it is updated, deleted and compared like others."""
        when = column("at", "timestamptz", "timestamp[us, tz=UTC]")
        schema = TableSchema(columns=(when, column("n", "int32", "int32")), key=("at",))
        row: Row = {"at": None, "n": 1, BEYOND: '{"at": "infinity"}'}
        load(target, name, [row], schema=schema)

        assert load(target, name, [{**row, "n": 2}], schema=schema) == LoadCounts(updated=1)
        assert load(target, name, [row], schema=schema, whole=True) == LoadCounts(updated=1)
        gone = {**row, "_op": "delete"}
        assert load(target, name, [gone], schema=schema) == LoadCounts(deleted=1)

    def test_names_that_differ_in_case_only(self, target: Target, name: TableName) -> None:
        """Two columns, and two targets, to this server."""
        schema = replace(PEOPLE, columns=(*PEOPLE.columns, replace(NAME, name="Name")))
        upper = replace(name, table=name.table.upper())
        for one, text in ((name, "a"), (upper, "b")):
            target.check(one, schema, adopt=False)
            load(target, one, [{"id": 1, "name": text, "Name": text * 2}], schema=schema)
        stored = [(self.stored(one) or [])[0] for one in (name, upper)]
        assert [(row["name"], row["Name"]) for row in stored] == [("a", "aa"), ("b", "bb")]

    # --- a table filled beside -------------------------------------------------------------------

    def beside(self, target: Target, name: TableName, rows: list[Row]) -> Staging:
        """Fill a table that can become the target."""
        assert isinstance(target, PostgresTarget)
        told = batches(PEOPLE, rows, whole=True)
        return target.stage_beside(uuid.uuid4().hex[:16], name, PEOPLE, told)

    def merged(self, target: Target, name: TableName, staging: Staging) -> LoadCounts:
        """Lock and merge."""
        with target.begin() as transaction:
            transaction.lock(name)
            return transaction.merge(name, PEOPLE, staging)

    def test_a_filled_table_becomes_the_target(self, target: Target, name: TableName) -> None:
        """The rows are not written again; key, comment and the schema's grants are there."""
        grant = f"IN SCHEMA {name.schema} GRANT SELECT ON TABLES TO PUBLIC"
        staging = self.beside(target, name, [person(2), person(1)])
        oid = self.ask(f"SELECT '{staging.name}'::regclass::oid")
        self.outside.execute(f"ALTER DEFAULT PRIVILEGES {grant}".encode())
        try:
            assert self.merged(target, name, staging) == LoadCounts(inserted=2)
        finally:
            revoke = grant.replace("GRANT", "REVOKE").replace(" TO ", " FROM ")
            self.outside.execute(f"ALTER DEFAULT PRIVILEGES {revoke}".encode())

        assert self.ask(f"SELECT '{table(name)}'::regclass::oid") == oid
        assert self.ask(f"SELECT has_table_privilege('public', '{table(name)}', 'SELECT')") == [
            True
        ]
        assert load(target, name, [person(1, "Bob"), person(3)]).updated == 1
        target.check(name, PEOPLE, adopt=False)

    def test_a_swap_carries_what_belongs_to_the_target(
        self, target: Target, name: TableName
    ) -> None:
        """Indexes, constraints, grants, comments, defaults; its rows are the new ones."""
        load(target, name, [person(1), person(2)], whole=True)
        made = table(name)
        for statement in (
            f'CREATE INDEX "by na%me" ON {made} USING btree (lower(name) DESC) WHERE id > 0',
            f'ALTER TABLE {made} ADD CONSTRAINT "one seen" UNIQUE NULLS DISTINCT (seen, id)',
            f"ALTER TABLE {made} ADD CONSTRAINT cheap CHECK (amount < 1000)",
            f"ALTER TABLE {made} ALTER COLUMN amount SET DEFAULT 7",
            f"ALTER TABLE {made} ADD COLUMN twice numeric GENERATED ALWAYS AS (amount * 2) STORED",
            f"COMMENT ON TABLE {made} IS 'Made by Naviglio. Mind''s own'",
            f"COMMENT ON COLUMN {made}.name IS 'the name'",
            f"GRANT SELECT ON {made} TO PUBLIC",
            f"GRANT INSERT, UPDATE ON {made} TO naviglio_source WITH GRANT OPTION",
            f"GRANT REFERENCES (id) ON {made} TO naviglio_source",
        ):
            self.outside.execute(statement.encode())
        before = self.belongings(name)
        assert isinstance(target, PostgresTarget)
        assert target.keeps(name, PEOPLE) == ()

        staging = self.beside(target, name, [person(n, f"n{n}") for n in range(2, 7)])
        counts = self.merged(target, name, staging)

        assert counts == LoadCounts(inserted=5, deleted=2)
        assert self.belongings(name) == before
        assert [row["id"] for row in self.stored(name) or []] == [2, 3, 4, 5, 6]
        assert load(target, name, [person(2, "Bob"), deleted(3)]) == LoadCounts(
            updated=1, deleted=1
        )
        again = self.beside(target, name, [person(9)])
        assert self.merged(target, name, again) == LoadCounts(inserted=1, deleted=4)
        assert self.belongings(name) == before

    def belongings(self, name: TableName) -> list[Any]:
        """Return what the catalogue holds of a table, without its numbers."""
        of = f"'{table(name)}'::regclass"
        return [
            self.ask(f"SELECT relacl::text FROM pg_class WHERE oid = {of}"),
            self.ask(f"SELECT relowner::regrole::text FROM pg_class WHERE oid = {of}"),
            self.ask(f"SELECT obj_description({of}, 'pg_class')"),
            self.ask(
                "SELECT concat_ws(' ', attname, atttypid::regtype, atttypmod, attnotnull, attacl,"
                f" col_description({of}, attnum), pg_get_expr(adbin, adrelid)) FROM pg_attribute"
                " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
                f" WHERE attrelid = {of} AND attnum > 0 ORDER BY attnum"
            ),
            self.ask(
                "SELECT pg_get_indexdef(indexrelid) AS def FROM pg_index"
                f" WHERE indrelid = {of} ORDER BY def"
            ),
            self.ask(
                "SELECT conname || pg_get_constraintdef(oid) AS def FROM pg_constraint"
                f" WHERE conrelid = {of} AND contype <> 'n' ORDER BY def"
            ),
        ]

    @pytest.mark.parametrize(
        ("statement", "told"),
        [
            ("CREATE VIEW {mark} AS SELECT id FROM {t}", "view {mark}"),
            ("CREATE TABLE {mark} (id bigint REFERENCES {t})", "constraint {mark}_id_fkey"),
            ("ALTER TABLE {t} ADD CONSTRAINT {name} FOREIGN KEY (id) REFERENCES {t}", "{name}"),
            ("CREATE RULE {name} AS ON DELETE TO {t} DO ALSO NOTHING", "rule {name}"),
            ("CREATE POLICY {name} ON {t}", "policy {name}"),
            ("ALTER TABLE {t} ENABLE ROW LEVEL SECURITY", "row security"),
            ("CREATE STATISTICS {mark} (ndistinct) ON id, name FROM {t}", "statistics object"),
            ("ALTER TABLE {t} SET (fillfactor = 90)", "its storage parameters"),
            ("CREATE TABLE {mark} () INHERITS ({t})", "table {mark}"),
            ("ALTER TABLE {t} ADD COLUMN more int DEFAULT 1", "column 'more', which the lake"),
            ("ALTER TABLE {t} ADD COLUMN more serial", "sequence"),
            ("ALTER TABLE {t} ALTER COLUMN id TYPE numeric", "'id' is numeric"),
            ("ALTER TABLE {t} ALTER COLUMN name SET STATISTICS 5", "settings of column name"),
            ("CREATE FUNCTION {mark}(r {t}) RETURNS int LANGUAGE sql RETURN 1", "function {mark}"),
            ("CREATE PUBLICATION {name} FOR TABLE {t}", "publication"),
            ("ALTER TABLE {t} REPLICA IDENTITY FULL", "replica identity"),
            ("ALTER TABLE {t} ADD CONSTRAINT {name} UNIQUE (seen) DEFERRABLE", "{name}"),
            (
                "CREATE TRIGGER {name} BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION"
                " suppress_redundant_updates_trigger()", "trigger {name}",
            ),
        ],
    )  # fmt: skip
    def test_what_a_swap_would_lose_is_named(
        self, target: Target, name: TableName, statement: str, told: str
    ) -> None:
        """And nothing is swapped: what came after the rows were staged is found as well."""
        load(target, name, [person(1), person(2)], whole=True)
        staging = self.beside(target, name, [person(1), person(3)])
        says = {"t": table(name), "name": f"x_{uuid.uuid4().hex[:8]}"}
        says["mark"] = f"{quote(name.schema)}.y_{uuid.uuid4().hex[:8]}"
        self.outside.execute(statement.format(**says).encode())

        assert isinstance(target, PostgresTarget)
        keeps = "; ".join(target.keeps(name, PEOPLE))
        assert told.format(**{**says, "mark": says["mark"].rpartition(".")[2]}) in keeps.replace(
            f"{name.schema}.", ""
        )
        counts = self.merged(target, name, staging)
        assert counts == LoadCounts(inserted=1, deleted=1, unchanged=1)

    def test_a_target_that_changed_after_its_rows_were_staged(
        self, target: Target, name: TableName
    ) -> None:
        """Another index, another column's type: the filled table would not have them."""
        load(target, name, [person(1), person(2)], whole=True)
        staging = self.beside(target, name, [person(1), person(3)])
        self.outside.execute(f"CREATE INDEX ON {table(name)} (seen)".encode())
        counts = self.merged(target, name, staging)
        assert counts == LoadCounts(inserted=1, deleted=1, unchanged=1)

    def test_a_swap_never_shows_an_empty_table(self, target: Target, name: TableName) -> None:
        """Also to who looks with a snapshot from before it."""
        load(target, name, [person(1), person(2)], whole=True)
        staging = self.beside(target, name, [person(3)])
        with psycopg.connect(self.url) as reader:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SELECT 1")
            self.merged(target, name, staging)
            assert reader.execute(f"SELECT id FROM {table(name)}".encode()).fetchall() == [(3,)]

    def test_a_target_that_was_made_meanwhile_is_merged(
        self, target: Target, name: TableName
    ) -> None:
        """By the filled table, which goes with the commit."""
        staging = self.beside(target, name, [person(1), person(2)])
        load(target, name, [person(1), person(3)])
        assert self.merged(target, name, staging) == LoadCounts(inserted=1, deleted=1, unchanged=1)
        assert staging.attempt not in self.staged()

    def test_a_filled_table_with_two_rows_of_one_key(self, target: Target, name: TableName) -> None:
        """The key is named, and nothing takes the target's place."""
        staging = self.beside(target, name, [person(1), person(7), person(7, "Bob")])
        with pytest.raises(DataError, match=r"key \(id=7\)"):
            self.merged(target, name, staging)
        assert self.stored(name) is None

    @pytest.mark.parametrize(
        "bad",
        [
            {**person(2), BEYOND: '{"amount": "NaN"}'},
            person(2, "far too long"),
            {**person(2), "id": None},
        ],
    )
    def test_rows_that_only_a_merge_can_take_or_blame(
        self, target: Target, name: TableName, bad: Row
    ) -> None:
        """They are refused while the table is filled, and it is gone."""
        with pytest.raises(SwapRefusedError) as caught:
            self.beside(target, name, [person(1), bad])
        assert "far too long" not in str(caught.value)
        assert self.stored(name) is None

    def test_figures_tell_what_is_there(self, target: Target, name: TableName) -> None:
        """An absent target, and what keeps one from being swapped."""
        assert isinstance(target, PostgresTarget)
        assert (target.rows_of(name), target.keeps(name, PEOPLE)) == (None, ())
        cast = replace(PEOPLE, columns=(*PEOPLE.columns, column("u", "uuid")))
        assert "column 'u' is carried as text" in target.keeps(name, cast)[0]

    # --- staging ---------------------------------------------------------------------------------

    def test_staging_of_the_dead_is_dropped_and_of_the_living_kept(self, target: Target) -> None:
        """Whoever stages next, or closes, clears what a dead session left."""
        living, dead, mine = (uuid.uuid4().hex[:16] for _ in range(3))
        killed = self.open()
        killed.stage(dead, PEOPLE, batches(PEOPLE, [person(1)], whole=True), whole=True)
        self.kill(f"hashtextextended('naviglio staging {dead}', 0)")
        target.stage(living, PEOPLE, batches(PEOPLE, [person(1)], whole=True), whole=True)
        other = self.open()

        other.stage(mine, PEOPLE, batches(PEOPLE, [person(1)], whole=True), whole=True)

        assert {living, dead, mine} & self.staged() == {living, mine}
        killed.close()
        other.close()
        assert {living, dead, mine} & self.staged() == {living}

    def test_a_merged_staging_goes_with_its_commit(self, target: Target, name: TableName) -> None:
        """A long run doesn't pile them up."""
        before = self.staged()
        load(target, name, [person(1)])
        assert self.staged() <= before

    def test_a_nul_is_refused_by_the_name_of_its_column(self, target: Target) -> None:
        """PostgreSQL's text can't hold it."""
        rows = batches(PEOPLE, [person(1), person(2, "a\0b")], whole=True)
        with pytest.raises(DataError, match="column 'name' holds a text with a NUL"):
            target.stage("nul", PEOPLE, rows, whole=True)
        assert "nul" not in self.staged()

    def test_staging_is_made_again_after_the_session_was_lost(
        self, target: Target, name: TableName
    ) -> None:
        """A staging table whose session is gone is never merged: it may be empty by now."""
        attempt = uuid.uuid4().hex[:16]
        rows = batches(PEOPLE, [person(1)], whole=True)
        staging = target.stage(attempt, PEOPLE, rows, whole=True)
        self.kill(f"hashtextextended('naviglio staging {attempt}', 0)")
        assert target.ledger() is not None  # over a new session

        with pytest.raises(RetryableError, match="stage again"), target.begin() as transaction:
            transaction.merge(name, PEOPLE, staging)

    # --- what goes wrong -------------------------------------------------------------------------

    def test_a_lost_server_leaves_nothing_half_done(self, target: Target, name: TableName) -> None:
        """The backend dies after the merge and before the commit: try again, as if never done."""
        load(target, name, [person(1)])
        attempt = uuid.uuid4().hex[:16]
        rows = batches(PEOPLE, [person(2), deleted(1)], whole=False)
        staging = target.stage(attempt, PEOPLE, rows, whole=False)

        with pytest.raises(RetryableError), target.begin() as transaction:
            transaction.lock(name)
            transaction.merge(name, PEOPLE, staging)
            transaction.record(ledger_row(name))
            self.kill(f"hashtextextended('naviglio staging {attempt}', 0)")

        assert [row["id"] for row in self.stored(name) or []] == [1]
        assert str(name) not in target.ledger()
        assert load(target, name, [person(2), deleted(1)]) == LoadCounts(inserted=1, deleted=1)

    def test_waiting_for_a_lock_ends(self, name: TableName) -> None:
        """A load never waits for ever for another's."""
        first, second = self.open(), PostgresTarget(self.url, lock_wait_s=0.05)
        with first.begin() as holder:
            holder.lock(name)
            with pytest.raises(RetryableError, match="lock timeout"), second.begin() as waiter:
                waiter.lock(name)
        first.close()
        second.close()

    def test_a_deadlock_is_tried_again(self, target: Target, name: TableName) -> None:
        """Whoever the server chooses to end gets an error that says so."""
        load(target, name, [person(1), person(2)])
        attempt = uuid.uuid4().hex[:16]
        rows = batches(PEOPLE, [person(1, "a"), person(2, "b")], whole=False)
        staging = target.stage(attempt, PEOPLE, rows, whole=False)
        errors: list[Exception] = []
        with psycopg.connect(self.url) as other:
            other.execute(f"UPDATE {table(name)} SET name = 'x' WHERE id = 2".encode())

            def merge() -> None:
                try:
                    with target.begin() as transaction:
                        transaction.merge(name, PEOPLE, staging)
                except RetryableError as error:
                    errors.append(error)

            thread = threading.Thread(target=merge)
            thread.start()
            while not self.ask("SELECT 1 FROM pg_locks WHERE NOT granted"):
                time.sleep(0.01)
            try:
                other.execute(f"UPDATE {table(name)} SET name = 'y' WHERE id = 1".encode())
            except psycopg.errors.DeadlockDetected:
                errors.append(RetryableError("deadlock: the other one"))
            other.rollback()
            thread.join()

        assert len(errors) == 1
        assert "deadlock" in str(errors[0])

    @pytest.mark.parametrize(
        ("constraint", "bad", "said"),
        [
            ("CHECK (amount < 100)", person(40, amount="100"), r"violates check.*key \(id=40\)"),
            ("UNIQUE (name, amount)", person(40, amount="50"), r"violates unique.*key \(id=40\)"),
            ("UNIQUE (amount)", person(40, amount="1"), r"violates unique.*key \(id=(40|2)\)"),
            ("CHECK (name IS NOT NULL)", person(40, None), r"violates check.*key \(id=40\)"),
        ],
    )
    def test_what_a_constraint_refuses(
        self, target: Target, name: TableName, constraint: str, bad: Row, said: str
    ) -> None:
        """The constraint of an adopted table is named, and the key of the row."""
        self.make(name, amount="numeric(9,2)", unique=True)
        self.outside.execute(f"ALTER TABLE {table(name)} ADD {constraint}".encode())
        load(target, name, [person(1, amount="50"), person(2, amount="1")])

        many = [person(n, f"n{n}", f"{n}.1") for n in range(3, 30)]
        with pytest.raises(DataError, match=said) as caught:
            load(target, name, [*many, bad])

        assert "DETAIL" not in str(caught.value)
        assert len(self.stored(name) or []) == 2

    @pytest.mark.parametrize(
        ("kind", "text"), [("uuid", "secret"), ("jsonb", "{secret"), ("time", "99:secret")]
    )
    def test_a_text_that_is_no_value_of_its_type(
        self, target: Target, name: TableName, kind: Kind, text: str
    ) -> None:
        """Named by column and key in a new table too; the text itself is not shown."""
        schema = TableSchema(columns=(ID, column("v", kind)), key=("id",))
        with pytest.raises(DataError, match=r"column 'v'.*key \(id=2\)") as caught:
            load(target, name, [{"id": 1}, {"id": 2, "v": text}], schema=schema)
        assert "secret" not in str(caught.value)
        assert self.stored(name) is None

    @pytest.mark.parametrize("state", ["23514", "42501", "P0001", "XX000"])
    def test_what_a_trigger_says_is_not_told(
        self, target: Target, name: TableName, state: str
    ) -> None:
        """Its text may hold any value of the row, under whatever SQLSTATE it chose."""
        load(target, name, [person(1, "n1")])
        with psycopg.connect(self.url, autocommit=True) as connection:
            function = table(replace(name, table=f"{name.table[:50]}_f"))
            connection.execute(
                f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
                f" RAISE EXCEPTION 'no %', NEW.name USING ERRCODE = '{state}'; END$$".encode()
            )
            connection.execute(
                f"CREATE TRIGGER t BEFORE INSERT OR UPDATE ON {table(name)} FOR EACH ROW"
                f" EXECUTE FUNCTION {function}()".encode()
            )
        with pytest.raises(NaviglioError, match=f"SQLSTATE {state}") as caught:
            load(target, name, [person(2, "secret")])
        assert "secret" not in str(caught.value)

    def test_a_right_that_is_missing_is_named(self, name: TableName) -> None:
        """Before anything is staged."""
        role = f"stranger_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(self.admin_url, dbname="warehouse", autocommit=True) as admin:
            admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
            admin.execute(f"GRANT CONNECT ON DATABASE warehouse TO {role}".encode())
            made = psycopg.conninfo.make_conninfo(self.url, user=role, password="x")
            stranger = open_target(made)
            with pytest.raises(ConfigError, match="may not create tables in schema 'naviglio'"):
                stranger.check(name, PEOPLE, adopt=False)
            with pytest.raises(ConfigError, match="permission denied"):
                load(stranger, name, [person(1)])
            stranger.close()
            admin.execute(f"DROP OWNED BY {role}".encode())
            admin.execute(f"DROP ROLE {role}".encode())

    def test_rights_on_an_adopted_table_are_checked(self, target: Target, name: TableName) -> None:
        """A table of another owner must grant what a merge does, and have every column."""
        self.make(name, amount="numeric(9,2)", unique=True)
        with psycopg.connect(self.admin_url, dbname="warehouse", autocommit=True) as admin:
            admin.execute(f"ALTER TABLE {table(name)} OWNER TO CURRENT_USER".encode())
            admin.execute(f"GRANT SELECT, INSERT ON {table(name)} TO naviglio_target".encode())
        grown = replace(PEOPLE, columns=(*PEOPLE.columns, column("more", "text")))

        with pytest.raises(ConfigError, match=r"lacks UPDATE, DELETE.*no column 'more'"):
            target.check(name, grown, adopt=True)

    def test_a_view_and_a_column_that_must_be_given_are_refused(
        self, target: Target, name: TableName
    ) -> None:
        """What no load could fill is refused at once."""
        self.make(name, amount="numeric(9,2)", unique=True)
        self.outside.execute(f"ALTER TABLE {table(name)} ADD other int NOT NULL".encode())
        with pytest.raises(ConfigError, match="'other' is NOT NULL without a default"):
            target.check(name, PEOPLE, adopt=True)
        view = replace(name, table=name.table + " v")
        self.outside.execute(f"CREATE VIEW {table(view)} AS SELECT 1 AS id".encode())
        with pytest.raises(ConfigError, match="it is a view"):
            target.check(view, PEOPLE, adopt=True)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"password": "wrong"}, ConfigError),
            ({"dbname": "nowhere"}, ConfigError),
            ({"host": "/nowhere"}, RetryableError),
        ],
    )
    def test_a_server_that_cannot_be_reached(
        self, change: dict[str, str], error: type[Exception]
    ) -> None:
        """A refused login is a matter of configuration, a server that is away of time."""
        with pytest.raises(error) as caught:
            open_target(psycopg.conninfo.make_conninfo(self.url, **change)).ledger()
        assert str(psycopg.conninfo.conninfo_to_dict(self.url)["password"]) not in str(caught.value)

    # --- from outside ----------------------------------------------------------------------------

    def kill(self, lock: str) -> None:
        """End the session that holds an advisory lock, as if its process died."""
        ended = self.ask(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
            f" AND objid::bigint = ({lock} & 4294967295)"
        )
        assert ended == [True]

    def staged(self) -> set[str]:
        """Return the attempts that have a staging table."""
        tables = "SELECT relname FROM pg_class WHERE relname LIKE 's\\_%' AND relkind = 'r'"
        return {relname.removeprefix("s_") for relname in self.ask(tables)}


def test_the_ledger_is_made_once_by_many(cluster: Cluster) -> None:
    """Two processes may find it absent at once; a database without it has an empty one."""
    database = f"fresh_{uuid.uuid4().hex[:8]}"
    admin = cluster.urls()["admin"]
    url = psycopg.conninfo.make_conninfo(cluster.urls()["warehouse"], dbname=database)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database} OWNER naviglio_target".encode())
        try:
            reader = open_target(url)
            assert reader.ledger() == {}
            reader.close()
            errors = _at_once(url)
        finally:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())
    assert errors == []


def _at_once(url: str) -> list[Exception]:
    start = threading.Barrier(6)
    errors: list[Exception] = []

    def one(number: int) -> None:
        worker = open_target(url)
        try:
            start.wait()
            load(worker, TableName(schema="made", table=f"t{number}"), [person(1)])
        except Exception as error:  # noqa: BLE001 - told to the test
            errors.append(error)
        finally:
            worker.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_memory_is_bounded_by_the_batch(cluster: Cluster) -> None:
    """A large batch is encoded in slices; the count is the server's."""
    rows = 200_000
    schema = TableSchema(columns=(ID,), key=("id",))
    arrow = pa.schema([("id", pa.int64()), (BEYOND, pa.string())])
    batch = pa.RecordBatch.from_arrays(
        [pa.array(range(rows)), pa.nulls(rows, pa.string())], schema=arrow
    )
    target = open_target(cluster.urls()["warehouse"])
    staging = target.stage(
        uuid.uuid4().hex[:16], schema, iter([batch, batch.slice(0, 0)]), whole=True
    )
    assert (staging.rows, staging.has_beyond) == (rows, False)
    target.close()
