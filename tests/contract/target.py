"""What every target promises: each adapter's tests subclass `TargetContract`.

A subclass says how to open the target and how to look at its tables from outside.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from naviglio.carriers import arrow_schema
from naviglio.errors import ConfigError, DataError, RetryableError
from naviglio.model import BEYOND, OP, Column, LedgerRow, LoadCounts, TableName, TableSchema
from naviglio.ports import Ranging, Staging, Swapping, Target

Row = dict[str, Any]

ID = Column(name="id", kind="int64", carrier="int64", source_type="bigint", nullable=False)
NAME = Column(
    name="name", kind="text", carrier="string", source_type="character varying(9)", length=9
)
AMOUNT = Column(
    name="amount", kind="decimal", carrier="decimal128(9, 2)", source_type="numeric(9,2)",
    precision=9, scale=2,
)  # fmt: skip
SEEN = Column(
    name="seen", kind="timestamptz", carrier="timestamp[us, tz=UTC]",
    source_type="timestamp with time zone",
)  # fmt: skip
PEOPLE = TableSchema(columns=(ID, NAME, AMOUNT, SEEN), key=("id",))


def person(number: int, name: str | None = "Ada", amount: str | None = "1.00") -> Row:
    """Return a row of PEOPLE."""
    return {"id": number, "name": name, "amount": amount and Decimal(amount)}


def deleted(number: int) -> Row:
    """Return a change that deletes a row of PEOPLE."""
    return {"id": number, OP: "delete"}


def batches(schema: TableSchema, rows: Sequence[Row], *, whole: bool) -> Iterator[pa.RecordBatch]:
    """Yield rows as a feed does; a change without `_op` is an upsert."""
    told = [row if whole else {OP: "upsert", **row} for row in rows]
    arrow = arrow_schema(schema, changes=not whole)
    for start in range(0, len(told), 3):
        yield pa.RecordBatch.from_pylist(told[start : start + 3], schema=arrow)


def ledger_row(target: TableName, version: int = 1) -> LedgerRow:
    """Return a ledger row."""
    return LedgerRow(
        target=str(target), pipeline="p", table="t", landing="l", lake_table="d", version=version,
        batch=version, attempt="a", loaded_at_utc=datetime(2013, 1, 7, 12, tzinfo=UTC),
        why_whole="new", inserted=1, updated=2, deleted=3, unchanged=4,
    )  # fmt: skip


def without_who(row: LedgerRow) -> LedgerRow:
    """Return a ledger row without what the server says of who recorded it."""
    return replace(row, login="", principal="")


def load(
    target: Target, name: TableName, rows: Sequence[Row], *,
    schema: TableSchema = PEOPLE, whole: bool = False,
) -> LoadCounts:  # fmt: skip
    """Stage and merge rows in one transaction."""
    staging = target.stage(
        uuid.uuid4().hex[:16], schema, batches(schema, rows, whole=whole), whole=whole
    )
    with target.begin() as transaction:
        transaction.lock(name)
        return transaction.merge(name, schema, staging)


def staged_beside(target: Target, name: TableName, rows: Sequence[Row]) -> Staging:
    """Fill a table beside; skip where the target merges only."""
    if not isinstance(target, Swapping):
        pytest.skip("this target merges only")
    if held := target.keeps(name, PEOPLE):
        pytest.skip(f"this target can't be swapped: {held[0]}")
    told = batches(PEOPLE, rows, whole=True)
    return target.stage_beside(uuid.uuid4().hex[:16], name, PEOPLE, told)


class TargetContract:
    """The suite; a subclass implements the methods, of a server those of its sessions too."""

    # Of a decimal(9,2): a value that no decimal128(9, 2) holds, where the target has such.
    beyond: ClassVar[str] = "NaN"
    longest: ClassVar[int] = 63  # characters of a name
    is_server: ClassVar[bool] = True

    def open(self) -> Target:
        """Open the target once more."""
        raise NotImplementedError

    def stored(self, name: TableName) -> list[Row] | None:
        """Return the rows of a table, by its first column; None when it is absent."""
        raise NotImplementedError

    def make(self, name: TableName, *, amount: str, unique: bool) -> None:
        """Create a table for PEOPLE by hand, with this type of `amount`, with or without a key."""
        raise NotImplementedError

    def kill_copying(self) -> None:
        """End the session that copies rows into a staging table, once there is one."""
        raise NotImplementedError

    def kill_merging(self) -> None:
        """End the session whose merge waits for another's lock, once there is one."""
        raise NotImplementedError

    def holding(self, name: TableName, number: int) -> AbstractContextManager[None]:
        """Keep another session's lock on a row of a table."""
        raise NotImplementedError

    @pytest.fixture
    def target(self) -> Iterator[Target]:
        """One open target."""
        opened = self.open()
        yield opened
        opened.close()

    @pytest.fixture
    def name(self) -> TableName:
        """A table that no other test uses."""
        return TableName(schema="made", table=f"people {uuid.uuid4().hex[:12]}")

    def test_changes_are_applied_and_counted(self, target: Target, name: TableName) -> None:
        """Inserted, updated, deleted and unchanged rows are told apart; the rest stays."""
        load(target, name, [person(n) for n in range(1, 6)], whole=True)

        counts = load(
            target, name,
            [person(1), person(2, "Bob"), deleted(3), deleted(99), person(7), person(8)],
        )  # fmt: skip

        assert counts == LoadCounts(inserted=2, updated=1, deleted=1, unchanged=1)
        stored = self.stored(name) or []
        assert [(row["id"], row["name"]) for row in stored] == [
            (1, "Ada"), (2, "Bob"), (4, "Ada"), (5, "Ada"), (7, "Ada"), (8, "Ada"),
        ]  # fmt: skip

    def test_whole_makes_equal(self, target: Target, name: TableName) -> None:
        """A key that is not among all rows is gone from the target."""
        first = load(target, name, [person(n) for n in range(4)], whole=True)

        counts = load(target, name, [person(2), person(3, "Cy"), person(4)], whole=True)

        assert first == LoadCounts(inserted=4)
        assert counts == LoadCounts(inserted=1, updated=1, deleted=2, unchanged=1)
        assert [row["id"] for row in self.stored(name) or []] == [2, 3, 4]

    def test_whole_without_rows_empties(self, target: Target, name: TableName) -> None:
        """No rows are an answer like any other; a table for them is made."""
        assert load(target, name, [], whole=True) == LoadCounts()
        assert self.stored(name) == []
        load(target, name, [person(1)])
        assert load(target, name, [], whole=True) == LoadCounts(deleted=1)

    def test_the_same_load_twice_changes_nothing(self, target: Target, name: TableName) -> None:
        """Every merge may be repeated."""
        changes = [person(1), person(2, None, None), deleted(3)]
        load(target, name, changes)

        assert load(target, name, changes) == LoadCounts(unchanged=2)

    def test_an_upsert_beats_a_delete(self, target: Target, name: TableName) -> None:
        """A key that is staged twice, gone and back, is there."""
        load(target, name, [person(1)])

        counts = load(target, name, [deleted(1), person(1, "Eve")])

        assert counts == LoadCounts(updated=1)

    def test_added_columns(self, target: Target, name: TableName) -> None:
        """A column that is new in the lake is added; one that is gone from it keeps its values."""
        load(target, name, [person(1)])
        grown = replace(PEOPLE, columns=(ID, NAME, SEEN, replace(NAME, name="nick")))

        load(target, name, [{"id": 1, "name": "Ada", "nick": "A"}, {"id": 2}], schema=grown)

        stored = self.stored(name) or []
        assert [(row["amount"], row["nick"]) for row in stored] == [
            (Decimal("1.00"), "A"), (None, None),
        ]  # fmt: skip

    @pytest.mark.parametrize("whole", [False, True])
    def test_key_ranges_one_after_the_other(
        self, target: Target, name: TableName, *, whole: bool
    ) -> None:
        """Each is committed by itself; together they do what one merge does."""
        if not isinstance(target, Ranging):
            pytest.skip("this target merges at once")
        load(target, name, [person(n) for n in range(20)], whole=True)
        rows = [person(n, "Bob") for n in range(1, 20, 2)] + [person(50)]
        gone = [deleted(n) for n in range(0, 20, 2)]
        told = batches(PEOPLE, rows if whole else rows + gone, whole=whole)
        staging = target.stage(uuid.uuid4().hex[:16], PEOPLE, told, whole=whole)

        cuts = target.cuts(name, PEOPLE, staging, 3)
        counts, seen = [], []
        for low, high in pairwise((None, *cuts, None)):
            with target.begin() as transaction:
                transaction.lock(name)
                counts.append(transaction.merge_range(name, PEOPLE, staging, low, high))
            seen.append(sum(row["name"] == "Bob" for row in self.stored(name) or []))

        assert len(cuts) == 2
        assert 0 < seen[0] < seen[1] < seen[2] == 10
        assert LoadCounts(inserted=1, updated=10, deleted=10) == LoadCounts(
            **{one: sum(getattr(c, one) for c in counts) for one in vars(counts[0])}
        )
        assert [row["id"] for row in self.stored(name) or []] == [*range(1, 20, 2), 50]

    # --- rows that are filled in beside ----------------------------------------------------------

    @pytest.mark.parametrize("there", [False, True])
    def test_rows_filled_in_beside_become_the_targets(
        self, target: Target, name: TableName, *, there: bool
    ) -> None:
        """Whether the target was there or not; loads go on afterwards."""
        if there:
            load(target, name, [person(n) for n in range(5)], whole=True)
        staging = staged_beside(target, name, [person(n, "Bob") for n in (3, 4, 7)])
        assert (staging.beside, staging.rows, staging.whole) == (True, 3, True)
        assert (self.stored(name) is not None) is there

        with target.begin() as transaction:
            transaction.lock(name)
            counts = transaction.merge(name, PEOPLE, staging)

        assert counts == LoadCounts(inserted=3, deleted=5 if there else 0)
        assert [row["id"] for row in self.stored(name) or []] == [3, 4, 7]
        changes = [person(3), deleted(7), person(8)]
        assert load(target, name, changes) == LoadCounts(inserted=1, updated=1, deleted=1)
        target.check(name, PEOPLE, adopt=False)

    @pytest.mark.parametrize("there", [False, True])
    def test_a_swap_that_is_rolled_back_leaves_the_old_rows(
        self, target: Target, name: TableName, *, there: bool
    ) -> None:
        """And the same staging can be brought in again."""
        if there:
            load(target, name, [person(1)], whole=True)
        staging = staged_beside(target, name, [person(2), person(3)])
        with pytest.raises(RuntimeError, match="stop"), target.begin() as transaction:
            transaction.lock(name)
            transaction.merge(name, PEOPLE, staging)
            raise RuntimeError("stop")
        assert [row["id"] for row in self.stored(name) or []] == ([1] if there else [])

        with target.begin() as transaction:
            transaction.lock(name)
            transaction.merge(name, PEOPLE, staging)
        assert [row["id"] for row in self.stored(name) or []] == [2, 3]

    def test_a_target_that_was_loaded_meanwhile_gets_the_same_rows(
        self, target: Target, name: TableName
    ) -> None:
        """By a merge of what was filled in beside, where it was made for an absent target."""
        staging = staged_beside(target, name, [person(1), person(2)])
        load(target, name, [person(1), person(3)])
        with target.begin() as transaction:
            transaction.lock(name)
            counts = transaction.merge(name, PEOPLE, staging)
        assert counts == LoadCounts(inserted=1, deleted=1, unchanged=1)

    # --- sessions that end -----------------------------------------------------------------------

    def test_a_session_that_is_killed_while_it_copies(
        self, target: Target, name: TableName
    ) -> None:
        """Nothing is staged, nothing loaded; the next try does it all."""
        if not self.is_server:
            pytest.skip("there is no server that could end a session")
        load(target, name, [person(1)])

        def struck() -> Iterator[pa.RecordBatch]:
            many = arrow_schema(PEOPLE, changes=True)
            rows = [{OP: "upsert", **person(n)} for n in range(50_000)]
            batch = pa.RecordBatch.from_pylist(rows, schema=many)
            yield batch
            self.kill_copying()
            for _ in range(20):  # what the driver and the wire hold back is not much
                yield batch

        with pytest.raises(RetryableError):
            target.stage(uuid.uuid4().hex[:16], PEOPLE, struck(), whole=False)

        assert [row["id"] for row in self.stored(name) or []] == [1]
        assert load(target, name, [person(2)]) == LoadCounts(inserted=1)

    def test_a_session_that_is_killed_while_it_merges(
        self, target: Target, name: TableName
    ) -> None:
        """Neither rows nor ledger are there; the next try does it all."""
        if not self.is_server:
            pytest.skip("there is no server that could end a session")
        load(target, name, [person(1), person(2)])
        changes = [person(2, "Bob"), person(3), deleted(1)]
        rows = batches(PEOPLE, changes, whole=False)
        staging = target.stage(uuid.uuid4().hex[:16], PEOPLE, rows, whole=False)
        errors: list[Exception] = []

        def merge() -> None:
            try:
                with target.begin() as transaction:
                    transaction.lock(name)
                    transaction.record(ledger_row(name))
                    transaction.merge(name, PEOPLE, staging)
            except Exception as error:  # noqa: BLE001 - told to the test
                errors.append(error)

        with self.holding(name, 2):
            thread = threading.Thread(target=merge)
            thread.start()
            self.kill_merging()
            thread.join()

        assert [type(error) for error in errors] == [RetryableError], errors
        assert [row["name"] for row in self.stored(name) or []] == ["Ada", "Ada"]
        assert str(name) not in target.ledger()
        assert load(target, name, changes) == LoadCounts(inserted=1, updated=1, deleted=1)

    def test_nothing_is_seen_before_the_commit(self, target: Target, name: TableName) -> None:
        """Rows and ledger become visible together, and go together."""
        rows = batches(PEOPLE, [person(1)], whole=True)
        staging = target.stage("roll" + uuid.uuid4().hex[:8], PEOPLE, rows, whole=True)

        with pytest.raises(RuntimeError, match="stop"), target.begin() as transaction:
            transaction.lock(name)
            transaction.merge(name, PEOPLE, staging)
            transaction.record(ledger_row(name))
            raise RuntimeError("stop")

        assert self.stored(name) is None
        assert str(name) not in target.ledger()

    def test_the_ledger_keeps_its_row(self, target: Target, name: TableName) -> None:
        """What was recorded is returned as it was, and replaced by the next."""
        for version in (1, 2):
            with target.begin() as transaction:
                before = transaction.lock(name)
                transaction.record(ledger_row(name, version))
            assert (before and without_who(before)) == (ledger_row(name) if version == 2 else None)

        other = self.open()
        assert without_who(other.ledger()[str(name)]) == ledger_row(name, 2)
        other.close()

    def test_loads_of_one_target_take_turns(self, name: TableName) -> None:
        """Also before the target has a row: the second sees what the first recorded."""
        seen: list[int] = []
        locked = threading.Barrier(4)

        def one() -> None:
            worker = self.open()
            locked.wait()
            with worker.begin() as transaction:
                row = transaction.lock(name)
                seen.append(row.version if row else 0)
                transaction.record(ledger_row(name, seen[-1] + 1))
            worker.close()

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert seen == [0, 1, 2, 3]

    def test_an_error_while_staging_leaves_nothing(self, target: Target, name: TableName) -> None:
        """The error of the feed is passed on as it is, and the same attempt may stage again."""

        def broken() -> Iterator[pa.RecordBatch]:
            yield from batches(PEOPLE, [person(1)], whole=False)
            raise KeyError("the lake is gone")

        attempt = uuid.uuid4().hex[:16]
        with pytest.raises(KeyError, match="the lake is gone"):
            target.stage(attempt, PEOPLE, broken(), whole=False)

        rows = batches(PEOPLE, [person(1)], whole=False)
        assert target.stage(attempt, PEOPLE, rows, whole=False).rows == 1

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            (person(4, "far too long"), r"'name'.*id=4"),
            ({**person(4), "id": None}, r"'id'"),
        ],
    )
    def test_a_row_that_does_not_fit(
        self, target: Target, name: TableName, bad: Row, said: str
    ) -> None:
        """The error names target, column and key, shows no value, and nothing is loaded."""
        load(target, name, [person(1)])

        with pytest.raises(DataError, match=rf"{name}.*{said}") as caught:
            load(target, name, [person(2), person(3), bad, person(5)])

        assert "far too long" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert [row["id"] for row in self.stored(name) or []] == [1]

    def test_two_rows_of_one_key_are_refused(self, target: Target, name: TableName) -> None:
        """Changes are folded before they are staged; if not, the key is named."""
        for _ in range(2):
            with pytest.raises(DataError, match=r"key \(id=7\)"):
                load(target, name, [person(6), person(7), person(8), person(7, "Bob")])
            load(target, name, [person(1)])

    def test_a_stranger_is_not_taken_over(self, target: Target, name: TableName) -> None:
        """A table that was there before needs `adopt`; one's own doesn't."""
        self.make(name, amount="numeric(9,2)", unique=True)
        with pytest.raises(ConfigError, match="adopt"):
            target.check(name, PEOPLE, adopt=False)

        target.check(name, PEOPLE, adopt=True)

        mine = replace(name, table=name.table + " mine")
        target.check(mine, PEOPLE, adopt=False)
        load(target, mine, [person(1)])
        target.check(mine, PEOPLE, adopt=False)

    @pytest.mark.parametrize(
        ("amount", "unique", "said"),
        [("numeric(9,1)", True, "'amount'.*narrower"), ("numeric(9,2)", False, "unique index")],
    )
    def test_an_adopted_table_must_fit(
        self, target: Target, name: TableName, *, amount: str, unique: bool, said: str
    ) -> None:
        """A narrower column and a key without a unique index are refused, also by the merge."""
        self.make(name, amount=amount, unique=unique)

        with pytest.raises(ConfigError, match=said):
            target.check(name, PEOPLE, adopt=True)
        with pytest.raises(ConfigError, match=said):
            load(target, name, [person(1)])
        assert self.stored(name) == []

    def test_a_table_that_was_dropped_is_missed(self, target: Target, name: TableName) -> None:
        """Changes alone would make an incomplete table: the ledger's row must go first."""
        with target.begin() as transaction:
            transaction.lock(name)
            transaction.record(ledger_row(name))

        with pytest.raises(ConfigError, match="the table is gone"):
            target.check(name, PEOPLE, adopt=False)

    @pytest.mark.parametrize(
        "part",
        ['q"uote', "sel ect", "select", "Ünï€", "x" * 50, "';--", "%s", "x]y[z", "a.b", "{0}"],
    )
    def test_names_are_only_names(self, target: Target, part: str) -> None:
        """Whatever stands in the name of a schema, table or column stays a name."""
        name = TableName(
            schema=f"s {uuid.uuid4().hex[:6]} {part}"[:60], table=f"{part}{uuid.uuid4().hex[:9]}"
        )
        schema = TableSchema(
            columns=(replace(ID, name=part), replace(AMOUNT, name=f"a{part}")), key=(part,)
        )
        row = {part: 1, f"a{part}": Decimal(1)}
        load(target, name, [row], schema=schema)
        told = {**row, BEYOND: json.dumps({f"a{part}": self.beyond})}

        assert load(target, name, [told], schema=schema) == LoadCounts(updated=1)
        assert load(target, name, [{part: 1, OP: "delete"}], schema=schema).deleted == 1
        assert self.stored(name) == []

    def test_names_may_be_as_long_as_the_server_takes_them(self, target: Target) -> None:
        """Schema, table and columns; the staging's own names don't grow with them."""
        long = "n" * (self.longest - 9)
        name = TableName(schema=f"s{long}"[:-1] + uuid.uuid4().hex[:9], table=f"{long}{'t' * 9}")
        schema = TableSchema(
            columns=(replace(ID, name=f"{long}{'i' * 9}"), replace(NAME, name=f"{long}{'n' * 9}")),
            key=(f"{long}{'i' * 9}",),
        )
        key, text = schema.names
        target.check(name, schema, adopt=False)
        load(target, name, [{key: 1, text: "a"}, {key: 2, text: "b"}], schema=schema, whole=True)
        changes: list[Row] = [{key: 1, text: "c"}, {key: 2, OP: "delete"}]
        assert load(target, name, changes, schema=schema) == LoadCounts(updated=1, deleted=1)
        assert self.stored(name) == [{key: 1, text: "c"}]

    def test_days_and_moments(self, target: Target, name: TableName) -> None:
        """The ends of the calendar come through."""
        day = Column(name="day", kind="date", carrier="date32[day]", source_type="date")
        schema = TableSchema(columns=(ID, day, SEEN), key=("id",))
        rows: list[Row] = [
            {"id": 1, "day": date.min, "seen": datetime.min.replace(tzinfo=UTC)},
            {"id": 2, "day": date.max, "seen": datetime.max.replace(tzinfo=UTC)},
        ]

        load(target, name, rows, schema=schema)

        assert self.stored(name) == rows
