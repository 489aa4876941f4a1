"""What every source promises: each adapter's tests subclass `SourceContract`.

A subclass gives two fixtures: `source`, and `people`, a table of that source with 1,000 rows that
the tests may change through a connection of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, Protocol

import pyarrow as pa
import pytest

from naviglio.carriers import arrow_schema, key_schema
from naviglio.conditions import (
    Both,
    Buckets,
    Condition,
    Everything,
    IsNull,
    Keys,
    Not,
    Since,
    Within,
)
from naviglio.errors import ConfigError, IdentityError
from naviglio.model import KEY_HASH, ROW_HASH, TableName, TableSchema, Window
from naviglio.ports import Counting, Scan, Snapshot, Source

ROWS = 1000
START = datetime(2013, 1, 1, tzinfo=UTC)  # row n was seen n minutes later


class People(Protocol):
    """A table of the source: `id` 64-bit integer and key, `name` text, `seen` moment with zone.

    Rows 1 to 1,000 are named `p<id>`; of every tenth `name` and `seen` are NULL.
    """

    table: TableName

    def rename(self, number: int, name: str) -> None:
        """Update one row and commit."""
        ...

    def remove(self, number: int) -> None:
        """Delete one row and commit."""
        ...

    def double(self, number: int) -> TableName:
        """Return another table, of the same columns without a key, where a key stands twice."""
        ...


def minutes(count: float) -> datetime:
    """Return the moment so many minutes after the start."""
    return START + timedelta(minutes=count)


def point(moment: datetime) -> int:
    """Return a moment as a position does: nanoseconds since 1970 UTC."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def window(first: float, last: float) -> Window:
    """Return a window by its minutes after the start."""
    return Window(start=minutes(first), end=minutes(last))


def rows(snapshot: Snapshot, scan: Scan) -> list[dict[str, Any]]:
    """Return all rows of a scan."""
    found: list[dict[str, Any]] = []
    for batch in snapshot.read(scan):
        found += batch.to_pylist()
    return found


def ids(snapshot: Snapshot, scan: Scan, where: Condition) -> set[int]:
    """Return the ids that meet a condition; each must be there once, and `count` agree."""
    chosen = replace(scan, where=where)
    found = [row["id"] for row in rows(snapshot, chosen)]
    assert len(found) == len(set(found)) == snapshot.count(chosen)
    return set(found)


class SourceContract:
    """The promises of `naviglio.ports.Source` and `Snapshot`."""

    @pytest.fixture
    def schema(self, source: Source, people: People) -> TableSchema:
        """Describe the table."""
        return source.describe(people.table, ())

    @pytest.fixture
    def scan(self, people: People, schema: TableSchema) -> Scan:
        """Return a scan of the whole table."""
        return Scan(table=people.table, schema=schema)

    @pytest.fixture
    def snapshot(self, source: Source, people: People) -> Iterator[Snapshot]:
        """Open a moment in which the table is whole."""
        assert people.table.table
        with source.snapshot() as opened:
            yield opened

    # --- schema ---------------------------------------------------------------------------------

    def test_the_primary_key_is_found(self, schema: TableSchema) -> None:
        """Without a declared key it is the table's own, and a unique index vouches for it."""
        assert schema.names == ("id", "name", "seen")
        assert schema.key == ("id",)
        assert schema.key_is_unique
        assert not schema.column("id").nullable

    def test_a_key_that_no_index_vouches_for_is_told(self, source: Source, people: People) -> None:
        """A declared key may be any columns; whether it is unique is not believed."""
        declared = source.describe(people.table, ("name",))
        assert declared.key == ("name",)
        assert not declared.key_is_unique
        assert source.describe(people.table, ("name", "id")).key_is_unique is False

    def test_unknown_tables_and_columns_name_the_known(
        self, source: Source, people: People
    ) -> None:
        """A mistake in the YAML is answered with what there is."""
        with pytest.raises(ConfigError, match=people.table.table):
            source.describe(replace(people.table, table="nowhere"), ())
        with pytest.raises(ConfigError, match=r"'nothing'; known: .*seen"):
            source.describe(people.table, ("nothing",))

    # --- read -----------------------------------------------------------------------------------

    def test_rows_come_in_their_carriers(self, snapshot: Snapshot, scan: Scan) -> None:
        """Batches have the promised Arrow schema, and hashes when asked for."""
        hashes = [pa.field(name, pa.int64()) for name in (KEY_HASH, ROW_HASH)]
        carriers = arrow_schema(scan.schema)
        promised = {
            scan: carriers,
            replace(scan, hashes="both"): pa.schema([*carriers, *hashes]),
            replace(scan, rows=False, hashes="key"): pa.schema(
                [*key_schema(scan.schema), hashes[0]]
            ),
        }
        for asked, schema in promised.items():
            found = [batch.schema for batch in snapshot.read(asked)]
            assert found == [schema] * len(found) != []

    def test_values_are_exact(self, snapshot: Snapshot, scan: Scan) -> None:
        """Every row is read once, NULL as NULL."""
        found = {row["id"]: row for row in rows(snapshot, scan)}
        assert sorted(found) == list(range(1, ROWS + 1))
        assert found[7] == {"id": 7, "name": "p7", "seen": minutes(7), "_beyond": None}
        assert found[10] == {"id": 10, "name": None, "seen": None, "_beyond": None}

    def test_an_empty_scan_is_no_error(self, snapshot: Snapshot, scan: Scan) -> None:
        """Nothing to read yields no rows, no digests and no count."""
        nothing = replace(scan, where=Since(column="seen", low=point(minutes(ROWS * 2)), high=None))
        assert rows(snapshot, nothing) == []
        assert snapshot.count(nothing) == 0
        assert snapshot.digest(nothing, Buckets(bits=4)) == []
        assert snapshot.digest(scan, []) == []

    def test_a_snapshot_is_one_moment(
        self, source: Source, people: People, snapshot: Snapshot, scan: Scan
    ) -> None:
        """What commits after it was opened is in no read, digest or count of it."""
        before = snapshot.digest(scan, Buckets(bits=2))
        people.rename(7, "later")
        people.remove(8)
        assert {row["id"]: row["name"] for row in rows(snapshot, scan)}[7] == "p7"
        assert snapshot.count(scan) == ROWS
        assert snapshot.digest(scan, Buckets(bits=2)) == before
        with source.snapshot() as later:
            assert later.count(scan) == ROWS - 1

    def test_the_moment_is_that_of_opening(
        self, source: Source, people: People, scan: Scan
    ) -> None:
        """The snapshot stands from its opening, not from its first read."""
        with source.snapshot() as opened:
            people.remove(8)
            assert opened.count(scan) == ROWS

    def test_a_consumer_may_stop_early(self, source: Source, scan: Scan) -> None:
        """No thread is left behind when a consumer stops or fails; the source goes on."""

        @contextmanager
        def failing() -> Iterator[Iterator[pa.RecordBatch]]:
            with source.snapshot() as opened, closing(opened.read(scan)) as batches:  # type: ignore[type-var]
                yield batches

        before = set(threading.enumerate())
        with failing() as batches:
            next(batches)
        with pytest.raises(ZeroDivisionError), failing() as batches:
            next(batches)
            raise ZeroDivisionError
        assert set(threading.enumerate()) <= before
        with source.snapshot() as opened:
            assert opened.count(scan) == ROWS

    # --- conditions -----------------------------------------------------------------------------

    def test_since_is_half_open(self, snapshot: Snapshot, scan: Scan) -> None:
        """The lower bound is in, the upper is not; a NULL only when asked for."""
        low, high = point(minutes(21)), point(minutes(24))
        since = Since(column="seen", low=low, high=high)
        assert ids(snapshot, scan, since) == {21, 22, 23}
        assert ids(snapshot, scan, replace(since, low=low + 1)) == {22, 23}
        assert ids(snapshot, scan, replace(since, high=high + 1)) == {21, 22, 23, 24}
        nulls = set(range(10, ROWS + 1, 10))
        assert ids(snapshot, scan, replace(since, or_null=True)) == {21, 22, 23} | nulls
        everything = Since(column="seen", low=None, high=None, or_null=True)
        assert ids(snapshot, scan, everything) == set(range(1, ROWS + 1))
        assert ids(snapshot, scan, replace(everything, or_null=False)).isdisjoint(nulls)

    def test_since_reads_integers(self, snapshot: Snapshot, scan: Scan) -> None:
        """Points on an integer column are the numbers themselves."""
        assert ids(snapshot, scan, Since(column="id", low=3, high=5)) == {3, 4}

    def test_since_refuses_what_has_no_order_of_time(self, snapshot: Snapshot, scan: Scan) -> None:
        """A text can't be a modification time."""
        with pytest.raises(ConfigError, match="'name'"):
            snapshot.count(replace(scan, where=Since(column="name", low=1, high=2)))

    def test_within_and_its_opposite_are_all(self, snapshot: Snapshot, scan: Scan) -> None:
        """What isn't known to be in a window, NULL included, is outside of it."""
        within = Within(column="seen", window=window(21, 24))
        inside = ids(snapshot, scan, within)
        assert inside == {21, 22, 23}
        assert ids(snapshot, scan, Not(condition=within)) == set(range(1, ROWS + 1)) - inside

    def test_null_and_both(self, snapshot: Snapshot, scan: Scan) -> None:
        """Conditions combine."""
        nulls = IsNull(column="name")
        assert ids(snapshot, scan, nulls) == set(range(10, ROWS + 1, 10))
        few = Both(one=nulls, other=Since(column="id", low=15, high=35))
        assert ids(snapshot, scan, few) == {20, 30}

    def test_keys_are_read_exactly(self, snapshot: Snapshot, scan: Scan) -> None:
        """Keys that aren't there, or stand twice among the asked ones, do no harm."""
        many = [3, 5, 5, ROWS + 1, *range(10_000, 55_000), 7, 3]
        keys = Keys(keys=pa.table({"id": many}, schema=key_schema(scan.schema)))
        assert ids(snapshot, scan, keys) == {3, 5, 7}
        within = Both(one=Since(column="id", low=4, high=None), other=keys)
        assert ids(snapshot, scan, within) == {5, 7}
        none = Keys(keys=key_schema(scan.schema).empty_table())
        assert ids(snapshot, scan, none) == set()

    def test_buckets_divide_the_rows(self, snapshot: Snapshot, scan: Scan) -> None:
        """Each row is in the bucket that its `_key_hash` names, and in no other."""
        hashed = rows(snapshot, replace(scan, rows=False, hashes="key"))
        for numbers in ([0], [1, 3], [2]):
            expected = {row["id"] for row in hashed if row[KEY_HASH] & 3 in numbers}
            assert ids(snapshot, scan, Buckets(bits=2, numbers=numbers)) == expected
        assert ids(snapshot, scan, Buckets(bits=2)) == set(range(1, ROWS + 1))

    # --- digests --------------------------------------------------------------------------------

    def test_digests_are_the_xor_of_the_hashes_that_are_read(
        self, snapshot: Snapshot, scan: Scan
    ) -> None:
        """The client can compute each digest from the rows' hashes, signed 64 bits."""
        hashed = rows(snapshot, replace(scan, hashes="both"))
        for hashes, name in (("both", ROW_HASH), ("key", KEY_HASH)):
            digests = snapshot.digest(replace(scan, hashes=hashes), Buckets(bits=3))  # type: ignore[arg-type]
            for digest in digests:
                members = [row[name] for row in hashed if row[KEY_HASH] & 7 == digest.index]
                assert digest.rows == len(members)
                assert digest.checksum == reduce(int.__xor__, members)
            assert sorted(digest.index for digest in digests) == list(range(8))

    def test_windows_with_gaps_count_their_own_rows(self, snapshot: Snapshot, scan: Scan) -> None:
        """Rows in a gap, before, after or without a time are in none; empty ones are absent."""
        spans = [window(1, 5), window(5, 9), window(30, 31), window(41, 44), window(2000, 2001)]
        digests = snapshot.digest(scan, spans, "seen")
        assert [(d.index, d.rows) for d in digests] == [(0, 4), (1, 4), (3, 3)]
        hashed = rows(snapshot, replace(scan, hashes="both"))
        members = [row[ROW_HASH] for row in hashed if 41 <= row["id"] < 44]
        assert digests[2].checksum == reduce(int.__xor__, members)

    def test_a_changed_row_changes_its_bucket_alone(
        self, source: Source, people: People, scan: Scan
    ) -> None:
        """An update is seen in one digest; key digests and row counts stay."""
        key = replace(scan, hashes="key")
        with source.snapshot() as one:
            before = one.digest(scan, Buckets(bits=4)), one.digest(key, Buckets(bits=4))
        people.rename(7, "other")
        with source.snapshot() as two:
            after = two.digest(scan, Buckets(bits=4)), two.digest(key, Buckets(bits=4))
        assert len(set(before[0]) - set(after[0])) == 1
        assert before[1] == after[1]

    # --- keys, place, fence ---------------------------------------------------------------------

    def test_bad_keys_are_named(self, source: Source, people: People, scan: Scan) -> None:
        """Keys on several rows and NULL ones are found; a sound key has none."""
        doubled = people.double(7)
        schema = source.describe(doubled, ("id",))
        assert not schema.key_is_unique
        with source.snapshot() as opened:
            assert opened.bad_keys(scan) == []
            assert opened.bad_keys(Scan(table=doubled, schema=schema)) == ["7"]
            nulls = replace(schema, key=("name",))
            bad = opened.bad_keys(Scan(table=doubled, schema=nulls))
            assert sorted(bad) == ["NULL", "p7"]

    def test_a_place_follows_itself(self, source: Source, people: People) -> None:
        """Time goes one way: a later moment follows an earlier one, never the reverse."""
        with source.snapshot() as one:
            first = one.place(None)
            assert one.place(first) == first
            people.rename(7, "later")
            with source.snapshot() as two:
                second = two.place(first)
                assert second.order >= first.order
                assert second.incarnation == first.incarnation
            with pytest.raises(IdentityError, match="resnapshot"):
                one.place(second)

    def test_another_incarnation_is_refused(self, snapshot: Snapshot) -> None:
        """A source that is not the one of the last batch stops with what to do about it."""
        other = replace(snapshot.place(None), incarnation="another")
        with pytest.raises(IdentityError, match=r"another.*resnapshot"):
            snapshot.place(other)

    def test_reads_are_of_one_moment(self, snapshot: Snapshot) -> None:
        """Else they would say why, and no absent row would be taken for a deleted one."""
        assert snapshot.torn == ""

    def test_numbers_end_above_all_that_are_committed(
        self, source: Source, people: People, schema: TableSchema
    ) -> None:
        """The next number, if they grow; it falls with the highest row."""
        assert isinstance(source, Counting)
        number = schema.column("id")
        assert source.above(people.table, number) == ROWS + 1
        people.remove(ROWS)
        assert source.above(people.table, number) == ROWS

    def test_a_fence_tells_where_it_would_be(self, source: Source) -> None:
        """Nothing holds a fence beyond the clock less what was declared."""
        fence = source.fence(0.0, 3600.0)
        assert fence.point is not None
        assert fence.latest is not None
        assert fence.point <= fence.latest <= source_now(source) - 3600 * 10**9

    def test_a_declared_lag_is_recorded(self, source: Source) -> None:
        """With a safety lag the bound lies at least so far back, and the fence says so."""
        fence = source.fence(0.0, 3600.0)
        assert fence.safety_lag_s == 3600.0
        assert fence.point is not None
        assert fence.point <= source_now(source) - 3600 * 10**9

    def test_a_closed_source_opens_anew(self, source: Source, people: People) -> None:
        """`close` gives back what is open; the next question opens it again."""
        source.close()
        source.close()
        assert source.describe(people.table, ()).key == ("id",)

    def test_everything_is_everything(self, snapshot: Snapshot, scan: Scan) -> None:
        """The plainest condition holds for every row, its opposite for none."""
        assert ids(snapshot, scan, Everything()) == set(range(1, ROWS + 1))
        assert ids(snapshot, scan, Not(condition=Everything())) == set()


def source_now(source: Source) -> int:
    """Return a point that the source's clock has passed already, or will within seconds."""
    fence = source.fence(0.0, 0.0)
    assert fence.point is not None
    return fence.point + 5 * 10**9
