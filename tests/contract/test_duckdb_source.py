"""DuckDB as a source, on real files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from naviglio.adapters.duckdb.source import DuckSource
from naviglio.adapters.duckdb.sql import literal
from naviglio.conditions import Buckets, Keys
from naviglio.errors import ConfigError, IdentityError, RetryableError
from naviglio.model import KEY_HASH, ROW_HASH, TableName
from naviglio.ports import LOWEST, Counting, Scan, Source
from tests.contract.source import ROWS, SourceContract, rows

EXTREMES = {
    "TINYINT": ["-128", "127"],
    "UTINYINT": ["0", "255"],
    "USMALLINT": ["65535"],
    "UINTEGER": ["4294967295"],
    "UBIGINT": ["18446744073709551615"],
    "HUGEINT": ["-170141183460469231731687303715884105728"],
    "BOOLEAN": ["true", "false"],
    "DOUBLE": ["-0.0", "0.0", "nan", "inf", "5e-324"],
    "FLOAT": ["-0.0", "1e-45"],
    "DECIMAL(38,10)": ["-9999999999999999999999999999.9999999999"],
    "VARCHAR": ["", " ", "a\nb", "😀", "1:a"],
    "DATE": ["0001-01-01", "9999-12-31", "infinity", "-infinity", "4713-01-01 (BC)"],
    "TIME": ["00:00:00", "23:59:59.999999", "24:00:00"],
    "TIMESTAMP": ["0001-01-01", "9999-12-31 23:59:59.999999", "infinity", "290000-01-01"],
    "TIMESTAMP WITH TIME ZONE": ["9999-12-31 23:59:59.999999+00", "-infinity"],
    "UUID": ["00000000-0000-0000-0000-00000000000f"],
    "BLOB": ["", "\\x00\\xFF"],
    "JSON": ["{}", '{ "a":1}'],
    "INTERVAL": ["1 day", "24 hours", "1 month"],
    "ENUM('a', 'b')": ["b"],
}


class DuckPeople:
    """The contract's table, changed over a session of its own in this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.table = TableName(schema="main", table="people")
        self._make("people", "PRIMARY KEY")

    def execute(self, *statements: str) -> None:
        """Run statements, each its own commit."""
        with duckdb.connect(
            self._path, config={"autoinstall_known_extensions": "false"}
        ) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for statement in statements:
                connection.execute(statement)

    def rename(self, number: int, name: str) -> None:
        """Update one row and commit."""
        self.execute(f"UPDATE people SET name = {literal(name)} WHERE id = {number}")

    def remove(self, number: int) -> None:
        """Delete one row and commit."""
        self.execute(f"DELETE FROM people WHERE id = {number}")

    def double(self, number: int) -> TableName:
        """Return another table where a key stands twice."""
        self._make("doubled", "NOT NULL")
        self.execute(f"INSERT INTO doubled SELECT * FROM doubled WHERE id = {number}")
        return replace(self.table, table="doubled")

    def _make(self, name: str, key: str) -> None:
        self.execute(
            f"CREATE TABLE {name} (id BIGINT {key}, name VARCHAR, seen TIMESTAMPTZ)",
            f"INSERT INTO {name} SELECT n, CASE WHEN n % 10 > 0 THEN 'p' || n END, "
            "CASE WHEN n % 10 > 0 THEN TIMESTAMPTZ '2013-01-01 00:00:00+00'"
            f" + to_minutes(n) END FROM range(1, {ROWS + 1}) t(n)",
        )


class TestDuckSource(SourceContract):
    """The contract, and what only DuckDB has."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Return the file."""
        return tmp_path / "operations.duckdb"

    @pytest.fixture
    def source(self, path: Path) -> Iterator[Source]:
        """Open the file."""
        opened = DuckSource(f"duckdb://{path}")
        yield opened
        opened.close()

    @pytest.fixture
    def people(self, path: Path) -> DuckPeople:
        """Fill the file."""
        return DuckPeople(path)

    def test_without_a_lag_there_is_no_fence(self, source: Source, people: DuckPeople) -> None:
        """Nothing tells when a writer began: the error says what to declare."""
        assert people.table.table
        with pytest.raises(ConfigError, match="safety_lag"):
            source.fence(1.0, None)

    def test_a_table_without_rows_has_no_highest_number(
        self, source: Source, people: DuckPeople
    ) -> None:
        """Whatever comes is above."""
        people.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        name = TableName(schema="", table="t")
        assert isinstance(source, Counting)
        assert source.above(name, source.describe(name, ()).column("id")) == LOWEST

    def test_every_type_is_exact(self, source: Source, people: DuckPeople) -> None:
        """Extremes come back as the file has them, in the carrier or as a literal beside it."""
        names = {kind: f"c{n}" for n, kind in enumerate(EXTREMES)}
        columns = ", ".join(f"{name} {kind}" for kind, name in names.items())
        most = max(map(len, EXTREMES.values()))
        listed = [[v[n % len(v)] for v in EXTREMES.values()] for n in range(most)]
        people.execute(
            f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})",
            *(f"INSERT INTO t VALUES ({n}, {', '.join(map(literal, row))})"
              for n, row in enumerate(listed)),
        )  # fmt: skip
        schema = source.describe(TableName(schema="", table="t"), ())
        scan = Scan(table=TableName(schema="", table="t"), schema=schema, hashes="both")
        with source.snapshot() as snapshot:
            found = {row["id"]: row for row in rows(snapshot, scan)}
            hashes = {row[ROW_HASH] for row in found.values()}
        assert len(hashes) == len(found) == most
        by = {kind: [found[n][name] for n in range(most)] for kind, name in names.items()}
        assert by["UTINYINT"][:2] == [0, 255]
        assert by["UBIGINT"][0] == "18446744073709551615"
        assert by["HUGEINT"][0] == EXTREMES["HUGEINT"][0]
        assert str(by["DECIMAL(38,10)"][0]) == EXTREMES["DECIMAL(38,10)"][0]
        assert [str(value) for value in by["DOUBLE"]] == ["-0.0", "0.0", "nan", "inf", "5e-324"]
        assert by["VARCHAR"] == EXTREMES["VARCHAR"]
        assert by["TIME"][:3] == EXTREMES["TIME"]
        assert by["BLOB"][1] == b"\x00\xff"
        assert by["JSON"][1] == '{ "a":1}'
        day = names["DATE"]
        assert [row[day] is None for row in found.values()] == [False, False, True, True, True]
        beyond = [found[n]["_beyond"] for n in range(most)]
        assert beyond[0] is None
        assert f'"{day}":"4713-01-01 BC"' in beyond[4]
        assert f'"{day}":"infinity"' in beyond[2]
        assert f'"{names["TIMESTAMP"]}":"290000-01-01 00:00:00"' in beyond[3]

    def test_equal_values_that_are_not_identical_have_other_hashes(
        self, source: Source, people: DuckPeople
    ) -> None:
        """0.0 and -0.0, a day and 24 hours, NULL and nothing, texts that shift between columns."""
        people.execute(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, f DOUBLE, i INTERVAL, a VARCHAR, b VARCHAR)",
            "INSERT INTO t VALUES (1, '0.0', '1 day', '', 'ab'), (2, '-0.0', '1 day', '', 'ab'),"
            " (3, '0.0', '24 hours', '', 'ab'), (4, '0.0', '1 day', NULL, 'ab'),"
            " (5, '0.0', '1 day', 'a', 'b'), (6, '0.0', '1 day', '2:', 'ab')",
        )
        table = TableName(schema="", table="t")
        schema = source.describe(table, ())
        same_key = replace(schema, columns=tuple(c for c in schema.columns if c.name != "id"))
        scan = Scan(table=table, schema=replace(same_key, key=("a",)), hashes="both")
        with source.snapshot() as snapshot:
            found = [row[ROW_HASH] for row in rows(snapshot, scan)]
        assert len(set(found)) == 6

    def test_composite_keys_are_read_exactly(self, source: Source, people: DuckPeople) -> None:
        """Also such as are carried as text."""
        people.execute(
            "CREATE TABLE t (u UUID, n HUGEINT, x VARCHAR, PRIMARY KEY (u, n))",
            "INSERT INTO t SELECT md5(n::VARCHAR)::UUID, n, 'x' FROM range(10) t(n)",
        )
        table = TableName(schema="", table="t")
        scan = Scan(table=table, schema=source.describe(table, ()), rows=False, hashes="key")
        with source.snapshot() as snapshot:
            keys = rows(snapshot, scan)[3:5]
            wanted = pa.table({name: [row[name] for row in keys] for name in ("u", "n")})
            found = rows(snapshot, replace(scan, where=Keys(keys=wanted)))
            everything = snapshot.digest(replace(scan, hashes="key"), Buckets(bits=1))
        assert sorted(row[KEY_HASH] for row in found) == sorted(row[KEY_HASH] for row in keys)
        assert sum(digest.rows for digest in everything) == 10

    def test_what_has_no_carrier_is_refused_by_name(
        self, source: Source, people: DuckPeople
    ) -> None:
        """Nested types, nanoseconds, times with zone; a key without an order."""
        people.execute(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, l INTEGER[], n TIMESTAMP_NS)",
            "CREATE TABLE j (d JSON)",
        )
        with pytest.raises(ConfigError, match=r"'l' of type INTEGER\[\], 'n' of type TIMESTAMP_NS"):
            source.describe(TableName(schema="", table="t"), ())
        with pytest.raises(ConfigError, match=r"'d' \(JSON\)"):
            source.describe(TableName(schema="", table="j"), ("d",))

    def test_a_table_altered_since_is_read_again(self, source: Source, people: DuckPeople) -> None:
        """The described columns must be those of the moment."""
        schema = source.describe(people.table, ())
        people.execute("ALTER TABLE people ALTER name TYPE BLOB USING name::BLOB")
        with source.snapshot() as snapshot, pytest.raises(RetryableError, match="altered"):
            snapshot.count(Scan(table=people.table, schema=schema))

    def test_another_file_in_its_place_is_refused(
        self, source: Source, people: DuckPeople, path: Path
    ) -> None:
        """A copy under the same name is another file; one set back is older."""
        assert people.table.table
        with source.snapshot() as snapshot:
            place = snapshot.place(None)
        source.close()
        path.rename(path.with_suffix(".old"))
        path.write_bytes(path.with_suffix(".old").read_bytes())
        with source.snapshot() as snapshot, pytest.raises(IdentityError, match="resnapshot"):
            snapshot.place(place)
        source.close()
        path.with_suffix(".old").rename(path)
        long_ago = path.stat().st_mtime_ns - 10**12
        os.utime(path, ns=(long_ago, long_ago))
        with source.snapshot() as snapshot, pytest.raises(IdentityError, match="last written"):
            snapshot.place(place)
