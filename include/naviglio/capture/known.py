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
from naviglio.model import KEY_HASH, ROW_HASH, TableSchema
from naviglio.ports import Digest
from naviglio.storage.engine import local_engine, quoted, streamed

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
        self._schema = hash_schema(schema, keys_only=keys_only)
        self._key = ", ".join(quoted(name) for name in schema.key)
        self._columns = ", ".join(quoted(name) for name in self._schema.names)
        self._sum = KEY_HASH if keys_only else ROW_HASH
        self._keys_only = keys_only
        self._mask = 0

    def differing(self, bits: int, source: Callable[[], list[Digest]]) -> list[int]:
        """Return the buckets whose rows or checksum are not those of the source's digests.

        The source and the local engine sum at the same time.
        """
        self._mask = (1 << bits) - 1
        with ThreadPoolExecutor(1, "naviglio-sum") as beside:
            summing = beside.submit(self._digests)
            theirs = set(source())
            mine = summing.result()
        return sorted({digest.index for digest in mine ^ theirs})

    def take(self, buckets: Sequence[int], rows: Iterable[pa.RecordBatch]) -> None:
        """Take the source's rows (key and hashes) of these buckets to compare with."""
        self._connection.register("numbers", pa.table({"bucket": pa.array(buckets, pa.int64())}))
        self._connection.execute("CREATE TABLE differing AS SELECT bucket FROM numbers")
        with streamed(self._connection, "read", rows, self._schema):
            for name, origin in (("fresh", "read"), ("stale", "known")):
                self._connection.execute(
                    f"CREATE TABLE {name} AS SELECT {self._columns} FROM {origin} "
                    f"WHERE {KEY_HASH} & {self._mask} IN (SELECT bucket FROM differing)"
                )

    def gone(self) -> pa.Table:
        """Return the keys that the source no longer has."""
        return self._keys(f"SELECT {self._key} FROM stale ANTI JOIN fresh USING ({self._key})")

    def touched(self) -> pa.Table:
        """Return the keys whose rows are new or have another hash."""
        return self._keys(
            f"SELECT {self._key} FROM fresh ANTI JOIN stale USING ({self._key}, {ROW_HASH})"
        )

    def successor(self) -> Iterator[pa.RecordBatch]:
        """Stream what is known once the taken rows have landed.

        Where only keys are known, those that the source has beyond them are left out: another way
        lands them, and until then they are not known.
        """
        stale = f"SELECT * FROM stale SEMI JOIN fresh USING ({self._key})"
        relation = self._connection.sql(
            f"SELECT {self._columns} FROM known "
            f"WHERE {KEY_HASH} & {self._mask} NOT IN (SELECT bucket FROM differing) "
            f"UNION ALL {stale if self._keys_only else 'SELECT * FROM fresh'}"
        )
        for batch in relation.to_arrow_reader(65_536):
            yield batch.cast(self._schema)

    def _digests(self) -> set[Digest]:
        found = self._connection.sql(
            f"SELECT {KEY_HASH} & {self._mask} AS bucket, count(*), bit_xor({self._sum}) "
            "FROM known GROUP BY bucket"
        )
        return {Digest(*row) for row in found.fetchall()}

    def _keys(self, query: str) -> pa.Table:
        schema = pa.schema([f for f in self._schema if f.name not in (KEY_HASH, ROW_HASH)])
        return self._connection.sql(query).to_arrow_table().cast(schema)


@contextmanager
def known_from(files: Sequence[str], schema: TableSchema, *, keys_only: bool) -> Iterator[Known]:
    """Open what these Parquet files hold; a key that stands in several counts once."""
    with local_engine() as engine:
        _view(engine, files, hash_schema(schema, keys_only=keys_only), keys_only=keys_only)
        yield Known(engine, schema, keys_only=keys_only)


def _view(
    connection: DuckDBPyConnection,
    files: Sequence[str],
    schema: pa.Schema,
    *,
    keys_only: bool,
) -> None:
    columns = ", ".join(quoted(name) for name in schema.names)
    if not files:
        connection.register("known", schema.empty_table())
        return
    connection.read_parquet(list(files), union_by_name=True).create_view("landed")
    distinct = "DISTINCT" if keys_only else ""
    connection.execute(
        f"CREATE VIEW known AS SELECT {distinct} {columns} FROM landed "
        f"WHERE {KEY_HASH} IS NOT NULL"  # files of deletes hold none
    )
