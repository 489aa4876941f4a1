"""DuckDB as a target, on real files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from naviglio.adapters.duckdb.sql import literal, quote, table
from naviglio.adapters.duckdb.target import DuckTarget
from naviglio.connections.connections import Connections
from naviglio.connections.registry import open_target
from naviglio.errors import ConfigError, ContentionError, DataError, RetryableError
from naviglio.model import BEYOND, Column, Kind, LoadCounts, TableName, TableSchema
from naviglio.ports import Target
from tests.contract.target import (
    ID,
    PEOPLE,
    Row,
    TargetContract,
    batches,
    deleted,
    ledger_row,
    load,
    person,
)

CATALOGUE = "warehouse"
UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
MADE = TableName(schema="made", table="people")


def column(name: str, kind: Kind, carrier: str = "string", **more: Any) -> Column:
    """Return a column."""
    return Column(**{"name": name, "kind": kind, "carrier": carrier, "source_type": "", **more})


class TestDuckTarget(TargetContract):
    """The contract, and what only DuckDB has."""

    beyond = "2.50"  # its DECIMAL has no NaN
    is_server = False

    path: Path

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / f"{CATALOGUE}.duckdb"

    def open(self) -> Target:
        """Open the target once more."""
        return DuckTarget(f"duckdb://{self.path}")

    def ask(self, query: str) -> list[Row]:
        """Return all rows of a query, over a session of its own in this process."""
        with duckdb.connect(self.path, config={"autoinstall_known_extensions": "false"}) as outside:
            outside.execute("SET TimeZone = 'UTC'")
            if not query.startswith(("SELECT", "FROM")):
                outside.execute(query)
                return []
            rows: list[Row] = outside.sql(query).to_arrow_table().to_pylist()
            return rows

    def stored(self, name: TableName) -> list[Row] | None:
        """Return the rows of a table, by its first column; None when it is absent."""
        there = self.ask(
            f"SELECT 1 FROM duckdb_tables() WHERE schema_name = {literal(name.schema)}"
            f" AND table_name = {literal(name.table)}"
        )
        return self.ask(f"FROM {table(CATALOGUE, name)} ORDER BY 1") if there else None

    def make(self, name: TableName, *, amount: str, unique: bool) -> None:
        """Create a table for PEOPLE by hand, with this type of `amount`, with or without a key."""
        self.ask(f"CREATE SCHEMA IF NOT EXISTS {quote(name.schema)}")
        self.ask(
            f"CREATE TABLE {table(CATALOGUE, name)} (id bigint NOT NULL{' UNIQUE' * unique},"
            f" name varchar, amount {amount}, seen timestamptz)"
        )

    # --- types -----------------------------------------------------------------------------------

    def test_every_kind_comes_through(self, target: Target, name: TableName) -> None:
        """In a first load, an insert, an update; the same row again is unchanged."""
        far = "4714-11-24 (BC) 00:00:00"
        kinds = {
            "i2": (column("i2", "int16", "int16"), -(2**15), str(-(2**15))),
            "i8": (column("i8", "int64", "int64"), 2**63 - 1, str(2**63 - 1)),
            "b": (column("b", "bool", "bool"), True, "true"),
            "f4": (column("f4", "float32", "float"), -0.0, "-0.0"),
            "f8": (column("f8", "float64", "double"), float("nan"), "nan"),
            "n": (column("n", "number"), "1.50", "1.50"),
            "t": (column("t", "text"), "a'b\n\t\0é👍 ", "a'b\n\t\0é👍 "),
            "d": (column("d", "date", "date32[day]"), None, "infinity"),
            "ti": (column("ti", "time"), "24:00:00", "24:00:00"),
            "ts": (column("ts", "timestamp", "timestamp[us]"), None, far),
            "tz": (column("tz", "timestamptz", "timestamp[us, tz=UTC]"), None, "-infinity"),
            "iv": (column("iv", "interval"), "-1 days +02:03:04", "-1 days +02:03:04"),
            "u": (column("u", "uuid"), UUID, UUID),
            "by": (column("by", "bytes", "binary"), b"\0\xff", "\\x00\\xFF"),
            "j": (column("j", "json"), '{"b" : 1, "b":2}', '{"b" : 1, "b":2}'),
            "l": (column("l", "literal"), "(1,2)", "(1,2)"),
        }  # fmt: skip
        schema = TableSchema(columns=(ID, *(one for one, _, _ in kinds.values())), key=("id",))
        row: Row = {"id": 1, **{key: given for key, (_, given, _) in kinds.items()}}
        row[BEYOND] = '{"d": "infinity", "tz": "-infinity", "ts": "4714-11-24 00:00:00 BC"}'
        listed = ", ".join(f"{quote(key)}::VARCHAR AS {quote(key)}" for key in kinds)
        expected = {key: text for key, (_, _, text) in kinds.items()}
        load(target, name, [row], schema=schema, whole=True)

        for changes in ([{**row, "id": 2}], [{"id": 3}], [{**row, "id": 3}]):
            load(target, name, changes, schema=schema)

        assert self.ask(f"SELECT {listed} FROM {table(CATALOGUE, name)}") == [expected] * 3
        assert load(target, name, [row], schema=schema) == LoadCounts(unchanged=1)
        positive = [{**row, "f4": 0.0}]
        assert load(target, name, positive, schema=schema) == LoadCounts(updated=1)

    @pytest.mark.parametrize(
        ("wrong", "given", "beyond"),
        [
            (column("v", "uuid"), "secret", None),
            (column("v", "json"), "{secret", None),
            (column("v", "time"), "99:secret", None),
            (column("v", "time"), "12:00:00.1234567", None),
            (column("v", "timestamp", "timestamp[us]"), None, "294276-12-31 00:00:00"),
            (column("v", "decimal", "decimal128(4, 2)", precision=4, scale=2), None, "NaN"),
            (column("v", "decimal", "decimal128(4, 2)", precision=4, scale=2), None, "1.239"),
        ],
    )
    def test_what_has_no_faithful_image_is_refused(
        self, target: Target, name: TableName, wrong: Column, given: str | None, beyond: str | None
    ) -> None:
        """Named by column and key; the value itself is neither shown nor rounded."""
        schema = TableSchema(columns=(ID, wrong), key=("id",))
        bad: Row = {"id": 2, "v": given, BEYOND: beyond and f'{{"v": "{beyond}"}}'}

        with pytest.raises(DataError, match=r"column 'v'.*key \(id=2\)") as caught:
            load(target, name, [{"id": 1}, bad], schema=schema)

        assert "secret" not in str(caught.value)
        assert self.stored(name) is None

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

    # --- names -----------------------------------------------------------------------------------

    def test_a_schema_may_be_called_like_the_file(self, target: Target) -> None:
        """DuckDB would not know which of them is meant."""
        name = TableName(schema=CATALOGUE, table="t")
        assert load(target, name, [person(1)]) == LoadCounts(inserted=1)
        assert load(target, name, [person(1)]) == LoadCounts(unchanged=1)

    def test_names_that_differ_in_case_only(self, target: Target, name: TableName) -> None:
        """DuckDB takes them for one, so neither two columns nor two targets may have them."""
        alike = replace(PEOPLE, columns=(*PEOPLE.columns, replace(ID, name="Id")))
        with pytest.raises(ConfigError, match="'id' and 'Id' are one"):
            target.check(name, alike, adopt=False)
        with target.begin() as transaction:
            transaction.record(ledger_row(name))
        with pytest.raises(ConfigError, match="Write it in the same way"):
            target.check(replace(name, schema="MADE"), PEOPLE, adopt=False)

    # --- what goes wrong -------------------------------------------------------------------------

    def test_staging_ends_with_its_session(self, target: Target, name: TableName) -> None:
        """A staging table whose session is gone is never merged, and none is left in the file."""
        rows = batches(PEOPLE, [person(1)], whole=True)
        staging = target.stage("gone", PEOPLE, rows, whole=True)
        target.close()

        with pytest.raises(RetryableError, match="stage again"), target.begin() as transaction:
            transaction.merge(name, PEOPLE, staging)
        assert (
            self.ask("SELECT 1 FROM duckdb_tables() WHERE table_name LIKE 's!_%' ESCAPE '!'") == []
        )

    def test_waiting_for_a_turn_ends(self, name: TableName) -> None:
        """A load never waits for ever for another's."""
        first, second = self.open(), DuckTarget(f"duckdb://{self.path}?lock_timeout=0.05")
        with first.begin() as holder:
            holder.lock(name)
            with pytest.raises(ContentionError, match="no turn within"), second.begin() as waiter:
                waiter.lock(name)
        first.close()
        second.close()

    # --- what stays, and where -------------------------------------------------------------------

    @pytest.mark.parametrize("whole", [False, True])
    def test_rows_stay_where_they_are(
        self, target: Target, name: TableName, *, whole: bool
    ) -> None:
        """What differs is updated in its place, in the columns that change."""
        load(target, name, [person(n) for n in range(5)], whole=True)
        gone = [] if whole else [deleted(4)]
        counts = load(target, name, [person(0), person(1), person(2, "Bob"), person(3), *gone],
                      whole=whole)  # fmt: skip
        assert counts == LoadCounts(updated=1, deleted=1, unchanged=3)
        places = self.ask(f"SELECT id, rowid AS place FROM {table(CATALOGUE, name)} ORDER BY id")
        assert [(row["id"], row["place"]) for row in places] == [(0, 0), (1, 1), (2, 2), (3, 3)]

    @pytest.mark.parametrize("whole", [False, True])
    def test_values_that_only_the_target_has_stay(
        self, target: Target, name: TableName, *, whole: bool
    ) -> None:
        """A column that the lake does not have keeps them, and new rows get its default."""
        self.make(name, amount="DECIMAL(9,2), own VARCHAR DEFAULT 'new'", unique=True)
        load(target, name, [person(1), person(2)])
        self.ask(f"UPDATE {table(CATALOGUE, name)} SET own = 'mine'")
        load(target, name, [person(1, "Bob"), person(2), person(3)], whole=whole)
        stored = [(row["id"], row["name"], row["own"]) for row in self.stored(name) or []]
        assert stored == [(1, "Bob", "mine"), (2, "Ada", "mine"), (3, "Ada", "new")]

    def test_a_column_that_hides_the_row_number_is_refused(
        self, target: Target, name: TableName
    ) -> None:
        """Rows are updated by that number."""
        self.make(name, amount="DECIMAL(9,2), RowID BIGINT", unique=True)
        with pytest.raises(ConfigError, match="hides DuckDB's own number"):
            target.check(name, PEOPLE, adopt=True)

    def test_a_text_that_only_its_collation_takes_for_equal_is_updated(
        self, target: Target, name: TableName
    ) -> None:
        """Where the row differs at all: the stored spelling is the source's."""
        self.make(name, amount="DECIMAL(9,2)", unique=True)
        stored = table(CATALOGUE, name)
        self.ask(f"ALTER TABLE {stored} ALTER name TYPE VARCHAR COLLATE NOCASE")
        load(target, name, [person(1, "Bob")])
        counts = load(target, name, [person(1, "BOB")])
        assert counts == LoadCounts(updated=1)
        assert [row["name"] for row in self.stored(name) or []] == ["BOB"]

    def test_a_table_that_others_refer_to_is_loaded(self, target: Target, name: TableName) -> None:
        """Its rows could not be deleted, not even to be inserted again."""
        self.make(name, amount="DECIMAL(9,2)", unique=True)
        load(target, name, [person(1), person(2)])
        self.ask(
            f"CREATE TABLE {table(CATALOGUE, replace(name, table='child'))}"
            f" (id bigint REFERENCES {quote(name.schema)}.{quote(name.table)} (id))"
        )
        self.ask(f"INSERT INTO {table(CATALOGUE, replace(name, table='child'))} VALUES (1)")
        assert load(target, name, [person(1, "Bob"), person(3)]) == LoadCounts(
            inserted=1, updated=1
        )

    def test_a_unique_value_may_move_from_row_to_row(self, target: Target, name: TableName) -> None:
        """Both rows are gone before they come back."""
        self.make(name, amount="DECIMAL(9,2) UNIQUE", unique=True)
        load(target, name, [person(1, amount="1"), person(2, amount="2")])
        swapped = [person(1, amount="2"), person(2, amount="1")]
        assert load(target, name, swapped) == LoadCounts(updated=2)

    def test_what_a_check_refuses(self, target: Target, name: TableName) -> None:
        """The constraint of an adopted table is named, and the key of the row."""
        self.make(name, amount="DECIMAL(9,2) CHECK (amount < 100)", unique=True)
        load(target, name, [person(1)])

        with pytest.raises(DataError, match=r"CHECK constraint failed.*key \(id=40\)"):
            load(target, name, [person(2), person(40, amount="100")])
        assert [row["id"] for row in self.stored(name) or []] == [1]
        assert load(target, name, [person(2)]) == LoadCounts(inserted=1)

    def test_a_view_and_a_column_that_must_be_given_are_refused(
        self, target: Target, name: TableName
    ) -> None:
        """What no load could fill is refused at once."""
        self.make(name, amount="DECIMAL(9,2), other int NOT NULL", unique=True)
        with pytest.raises(ConfigError, match="'other' is NOT NULL without a default"):
            target.check(name, PEOPLE, adopt=True)
        view = replace(name, table=name.table + " v")
        self.ask(f"CREATE VIEW {table(CATALOGUE, view)} AS SELECT 1 AS id")
        with pytest.raises(ConfigError, match="it is a view"):
            target.check(view, PEOPLE, adopt=True)

    @pytest.mark.parametrize("collation", ["NOCASE", "NOACCENT", "NOCASE.NOACCENT"])
    def test_a_key_that_is_compared_otherwise_than_indexed_is_refused(
        self, target: Target, name: TableName, collation: str
    ) -> None:
        """By `=` two such keys are one, and the unique index takes both: shown, then refused."""
        made = table(CATALOGUE, name)
        self.ask(f"CREATE SCHEMA IF NOT EXISTS {quote(name.schema)}")
        self.ask(f"CREATE TABLE {made} (id VARCHAR COLLATE {collation} PRIMARY KEY, name VARCHAR)")
        self.ask(f"INSERT INTO {made} VALUES ('a', 'x'), ('A', 'y'), ('á', 'z')")
        assert len(self.ask(f"SELECT id FROM {made} WHERE id = 'a'")) > 1
        self.ask(f"DELETE FROM {made}")
        text = Column(name="name", kind="text", carrier="string", source_type="text")
        schema = TableSchema(columns=(replace(text, name="id"), text), key=("id",))
        with pytest.raises(ConfigError, match="its key column 'id' has a collation"):
            target.check(name, schema, adopt=True)
        plain = replace(name, table=name.table + " plain")
        self.ask(
            f"CREATE TABLE {table(CATALOGUE, plain)}"
            f" (id VARCHAR PRIMARY KEY, name VARCHAR COLLATE {collation})"
        )
        target.check(plain, schema, adopt=True)

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("duckdb://relative.duckdb", "three slashes"),
            ("duckdb:///", "three slashes"),
            ("duckdb:///nowhere/at/all.duckdb", "its folder does not exist"),
            ("duckdb:///tmp/w.duckdb?memory=1", "no setting 'memory'"),
            ("duckdb:///tmp/w.duckdb?lock_timeout=soon", "no number of seconds"),
        ],
    )
    def test_a_url_that_names_no_file(self, url: str, said: str) -> None:
        """The connection must be corrected; the registry leads here by the scheme alone."""
        with pytest.raises(ConfigError, match=said):
            open_target("w", Connections({"NAVIGLIO_CONN_W": url}, None)).ledger()


def test_memory_is_bounded_by_the_batch(tmp_path: Path) -> None:
    """Batches are taken one by one as they come, not gathered first."""
    rows, taken = 50_000, 0
    schema = TableSchema(columns=(ID,), key=("id",))
    arrow = pa.schema([("id", pa.int64()), (BEYOND, pa.string())])

    def feed() -> Iterator[pa.RecordBatch]:
        nonlocal taken
        for _ in range(4):
            taken += 1
            numbers = pa.array(range(taken * rows, (taken + 1) * rows))
            yield pa.RecordBatch.from_arrays([numbers, pa.nulls(rows, pa.string())], schema=arrow)

    target = DuckTarget(f"duckdb://{tmp_path}/w.duckdb")
    staging = target.stage(uuid.uuid4().hex[:16], schema, feed(), whole=True)
    assert (staging.rows, staging.has_beyond, taken) == (4 * rows, False, 4)
    target.close()


# --- other processes ------------------------------------------------------------------------------

_VICTIM = """
import sys
from tests.contract.target import PEOPLE, batches, deleted, ledger_row, person
from tests.contract.test_duckdb_target import MADE, DuckTarget
target = DuckTarget(sys.argv[1])
changes = [person(2), deleted(1)]
staging = target.stage("victim", PEOPLE, batches(PEOPLE, changes, whole=False), whole=False)
with target.begin() as transaction:
    transaction.lock(MADE)
    transaction.merge(MADE, PEOPLE, staging)
    transaction.record(ledger_row(MADE))
    print("merged", flush=True)
    sys.stdin.read()
"""


def test_another_process_has_the_file_and_is_killed(tmp_path: Path) -> None:
    """While it lives the error names the file and what to do; its half load leaves nothing."""
    url = f"duckdb://{tmp_path}/w.duckdb"
    target = DuckTarget(f"{url}?lock_timeout=0.2")
    load(target, MADE, [person(1)])
    target.close()
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"merged\n"
        with pytest.raises(RetryableError, match=r"w\.duckdb.*Close the program that has it open"):
            target.ledger()
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.communicate()

    assert target.ledger() == {}
    assert load(target, MADE, [person(2), deleted(1)]) == LoadCounts(inserted=1, deleted=1)
    target.close()


def test_a_ledger_of_an_earlier_version_keeps_its_rows(tmp_path: Path) -> None:
    """Columns that came later are added when it is read, and empty."""
    path = tmp_path / "warehouse.duckdb"
    target = DuckTarget(f"duckdb://{path}")
    with target.begin() as transaction:
        transaction.record(ledger_row(MADE))
    before = target.ledger()
    target.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE naviglio.ledger DROP COLUMN batch_attempt")
    again = DuckTarget(f"duckdb://{path}")
    assert again.ledger() == before
    with again.begin() as transaction:
        transaction.record(ledger_row(MADE))
    again.close()
