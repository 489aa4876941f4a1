"""What the landing holds of a table, by hashes: compared with the source bucket by bucket.

DuckDB does the set work over Parquet files, spilling beyond its memory limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from naviglio.capture.reading import hash_schema
from naviglio.carriers import key_schema
from naviglio.model import KEY_HASH, ROW_HASH, TableSchema
from naviglio.ports import Digest
from naviglio.storage.engine import local_engine, quoted, same_key, streamed, view_latest

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BUCKET_ROWS = 32  # fewer: more digests to move; more: more rows for each that changed
_MOST_BITS = 22


def bits_for(rows: int) -> int:
    """Return how many bits of the key hash make buckets of 16 to 32 rows."""
    return min(_MOST_BITS, max(4, math.ceil(math.log2(max(rows, 1) / _BUCKET_ROWS))))


class Known:
    """The keys of a table, with their row hashes unless `keys_only`."""

    def __init__(
        self, connection: DuckDBPyConnection, schema: TableSchema, *, keys_only: bool
    ) -> None:
        self._connection = connection
        self._keys = key_schema(schema)
        self._schema = hash_schema(schema, keys_only=keys_only)
        self._key = ", ".join(quoted(name) for name in schema.key)
        self._same = same_key("stale", "fresh", self._keys)
        self._columns = ", ".join(quoted(name) for name in self._schema.names)
        self._sum = KEY_HASH if keys_only else ROW_HASH
        self._keys_only = keys_only
        self._bucket = KEY_HASH

    def differing(self, bits: int, source: Callable[[], list[Digest]]) -> list[int]:
        """Return the buckets whose rows or checksum are not those of the source's digests.

        The source and the local engine sum at the same time.
        """
        self._bucket = f"{KEY_HASH} & {(1 << bits) - 1}"
        with ThreadPoolExecutor(1, "naviglio-sum") as beside:
            summing = beside.submit(self._digests)
            theirs = set(source())
            mine = summing.result()
        return sorted({digest.index for digest in mine ^ theirs})

    def take(self, buckets: Sequence[int] | None, rows: Iterable[pa.RecordBatch]) -> None:
        """Take the source's rows of these buckets (None: all) to compare with.

        The rows hold the key and, unless only keys are known, the row hash.
        """
        numbers = pa.table({"bucket": pa.array(buckets or [], pa.int64())})
        self._connection.register("numbers", numbers)
        self._connection.execute("CREATE TABLE differing AS SELECT bucket FROM numbers")
        here = "true" if buckets is None else f"{self._bucket} IN (SELECT bucket FROM differing)"
        stale = f"CREATE TABLE stale AS SELECT {self._columns} FROM known WHERE {here}"
        hashes = [] if self._keys_only else [pa.field(ROW_HASH, pa.int64())]
        with (
            self._connection.cursor() as other,
            ThreadPoolExecutor(1, "naviglio-stale") as beside,
            streamed(self._connection, "read", rows, pa.schema([*self._keys, *hashes])),
        ):
            finding = beside.submit(other.execute, stale)  # while the source reads
            self._connection.execute("CREATE TABLE fresh AS SELECT * FROM read")
            finding.result()

    def gone(self) -> pa.Table:
        """Return the keys that the source no longer has."""
        return self._found(f"SELECT {self._key} FROM stale ANTI JOIN fresh ON {self._same}")

    def touched(self) -> pa.Table:
        """Return the keys whose rows are new or have another hash."""
        return self._found(
            f"SELECT {self._key} FROM fresh "
            f"ANTI JOIN stale ON {self._same} AND stale.{ROW_HASH} = fresh.{ROW_HASH}"
        )

    def gained(self) -> int:
        """Return how many rows more the source has (fewer: below zero) than are known."""
        counts = "SELECT (SELECT count(*) FROM fresh) - (SELECT count(*) FROM stale)"
        return int(self._connection.sql(counts).fetchall()[0][0])

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Stream all that is known."""
        return self._stream(f"SELECT {self._columns} FROM known")

    def remaining(self) -> Iterator[pa.RecordBatch]:
        """Stream what is known, without the keys that are gone.

        Keys that the source has beyond them are left out: another way lands them, and until then
        they are not known.
        """
        return self._stream(
            f"SELECT {self._columns} FROM known "
            f"WHERE {self._bucket} NOT IN (SELECT bucket FROM differing) "
            f"UNION ALL SELECT * FROM stale SEMI JOIN fresh ON {self._same}"
        )

    def _digests(self) -> set[Digest]:
        found = self._connection.sql(
            f"SELECT {self._bucket} AS bucket, count(*), bit_xor({self._sum}) "
            "FROM known GROUP BY bucket"
        )
        return {Digest(*row) for row in found.fetchall()}

    def _found(self, query: str) -> pa.Table:
        return self._connection.sql(query).to_arrow_table().cast(self._keys)

    def _stream(self, query: str) -> Iterator[pa.RecordBatch]:
        for batch in self._connection.sql(query).to_arrow_reader(65_536):
            yield batch.cast(self._schema)


@contextmanager
def known_keys(files: Sequence[str], schema: TableSchema) -> Iterator[Known]:
    """Open the keys that these Parquet files hold; one that stands in several counts once."""
    with local_engine() as engine:
        columns = ", ".join(quoted(name) for name in hash_schema(schema, keys_only=True).names)
        if files:
            engine.read_parquet(list(files), union_by_name=True).create_view("landed")
        else:
            engine.register("none", hash_schema(schema, keys_only=True).empty_table())
            engine.execute("CREATE TABLE landed AS FROM none")
        engine.execute(
            f"CREATE VIEW known AS SELECT DISTINCT {columns} FROM landed "
            f"WHERE {KEY_HASH} IS NOT NULL"  # files of deletes hold none
        )
        yield Known(engine, schema, keys_only=True)


@contextmanager
def known_rows(files: Sequence[str], later: Sequence[str], schema: TableSchema) -> Iterator[Known]:
    """Open the keys and hashes of these Parquet files, as the changes in `later` left them."""
    with local_engine() as engine:
        view_latest(engine, "known", files, later, hash_schema(schema, keys_only=False), schema.key)
        yield Known(engine, schema, keys_only=False)
