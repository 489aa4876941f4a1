"""Steps of loads into other targets than PostgreSQL: `python -m benchmarks.target_steps NAME`.

As in benchmarks/steps.py: what is said comes as JSON by stdin, what is returned is timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import mssql_python
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import timed
from naviglio.adapters.duckdb import merge as duck_sql
from naviglio.adapters.duckdb import open_source as open_duck_source
from naviglio.adapters.duckdb.sql import quote, table
from naviglio.adapters.duckdb.target import DuckTarget
from naviglio.adapters.mssql import staging as mssql_staging
from naviglio.adapters.mssql.ledger import SCHEMA, create_schema
from naviglio.adapters.mssql.session import connect
from naviglio.adapters.mssql.target import MssqlTarget
from naviglio.carriers import arrow_schema
from naviglio.model import BEYOND, OP, LedgerRow, TableName, TableSchema

Work = Callable[[], dict[str, Any] | None]
_LOADED = TableName(schema="bench", table="lineitem")
_BATCH = 16_384
_MAX_KEY = 1_000_000_000  # beyond all of TPC-H's at these scales


def generate(folder: str, scale: float) -> Work:
    """Make lineitem as a Parquet file."""

    def work() -> None:
        tool = Path(sys.executable).parent / "tpchgen-cli"
        said = ["parquet", "-s", str(scale), "-T", "lineitem", "--output-dir", folder, "-q"]
        subprocess.run([tool, *said], check=True)

    return work


def duck_base(file: str, rows: str, changes: str, updates: int, inserts: int) -> Work:
    """Make the target that loads start from, with our types and key, and changes as Parquet."""

    def work() -> dict[str, Any]:
        schema = _plain_schema(file, rows)
        with duckdb.connect(file) as base:
            catalogue = Path(file).stem
            base.execute("CREATE SCHEMA bench")
            base.execute(duck_sql.create_target(table(catalogue, _LOADED), schema))
            base.execute("INSERT INTO bench.lineitem SELECT * FROM plain.lineitem")
            base.execute("DROP SCHEMA plain CASCADE")
            some = "SELECT * REPLACE ({}) FROM bench.lineitem ORDER BY hash(rowid, {}) LIMIT {}"
            updated = some.format("l_quantity + 1 AS l_quantity", 1, updates)
            new = some.format(f"l_orderkey + {_MAX_KEY} AS l_orderkey", 2, inserts)
            base.execute(
                f"COPY (SELECT *, NULL::VARCHAR AS {BEYOND}, 'upsert' AS {OP} FROM"
                f" (FROM ({updated}) UNION ALL FROM ({new})) ORDER BY hash(l_comment, l_orderkey))"
                f" TO '{changes}' (FORMAT parquet)"
            )
            ((found,),) = base.execute("SELECT count(*) FROM bench.lineitem").fetchall()
        return {"rows": found}

    return work


def duck_load(file: str, changes: str) -> Work:
    """Our way: staging, checks, MERGE and ledger row, committed and closed."""
    schema = _described(file, "bench")

    def work() -> dict[str, Any]:
        target = DuckTarget(f"duckdb://{file}")
        staged = target.stage("bench", schema, _read(changes, schema, changes=True), whole=False)
        with target.begin() as transaction:
            transaction.lock(_LOADED)
            counts = transaction.merge(_LOADED, schema, staged)
            row = LedgerRow(
                target=str(_LOADED), pipeline="bench", table="lineitem", landing="bench",
                lake_table="bench", version=1, batch=1, attempt="bench",
                loaded_at_utc=datetime.now(UTC), inserted=counts.inserted, updated=counts.updated,
            )  # fmt: skip
            transaction.record(row)
        target.close()
        return {"changed": counts.inserted + counts.updated}

    return work


def duck_merge(file: str, changes: str) -> Work:
    """What one would write by hand: MERGE INTO from the very Parquet file, committed and closed."""
    schema = _described(file, "bench")

    def work() -> dict[str, Any]:
        same = " AND ".join(f"t.{quote(n)} = s.{quote(n)}" for n in schema.key)
        others = [name for name in schema.names if name not in schema.key]
        new = ", ".join(f"{quote(n)} = s.{quote(n)}" for n in others)
        names = ", ".join(map(quote, schema.names))
        values = ", ".join(f"s.{quote(n)}" for n in schema.names)
        with duckdb.connect(file) as here:
            ((touched,),) = here.execute(
                f"MERGE INTO bench.lineitem AS t USING '{changes}' AS s ON {same}"
                f" WHEN MATCHED THEN UPDATE SET {new}"
                f" WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"
            ).fetchall()
        return {"changed": touched}

    return work


def mssql_stage(url: str, file: str, rows: str) -> Work:
    """Our way: staging table, bulk copy, and the comparison of what arrived."""
    schema = _described(file, "bench")

    def work() -> dict[str, Any]:
        target = MssqlTarget(url)
        staged = target.stage("bench", schema, _read(rows, schema), whole=True)
        target.close()
        return {"rows": staged.rows}

    return work


def mssql_bare(url: str, file: str, rows: str) -> Work:
    """The limit: the driver's bulk copy of the same rows into the same table."""
    schema = _described(file, "bench")
    name = mssql_staging.staging_table("bare")
    wanted = mssql_staging.Stream(iter(()), schema, whole=True).schema

    def work() -> dict[str, Any]:
        with connect(url) as here:
            with suppress(mssql_python.Error):
                here.execute(create_schema(SCHEMA)).close()
            here.execute(mssql_staging.drop_staging(name)).close()
            here.execute(mssql_staging.create_staging(name, schema, whole=True)).close()
            renamed = (
                pa.RecordBatch.from_arrays(batch.columns, schema=wanted)
                for batch in _read(rows, schema)
            )
            reader = pa.RecordBatchReader.from_batches(wanted, renamed)
            with here.cursor() as cursor:
                cursor.bulkcopy_arrow(name, reader, timeout=0, table_lock=True, keep_nulls=True)
                ((found,),) = cursor.execute(f"SELECT COUNT_BIG(*) FROM {name}").fetchall()
            here.execute(mssql_staging.drop_staging(name)).close()
        return {"rows": found}

    return work


def _plain_schema(file: str, rows: str) -> TableSchema:
    """Read the rows into `plain.lineitem`; return its logical schema with TPC-H's key."""
    with duckdb.connect(file) as base:
        base.execute("CREATE SCHEMA plain")
        base.execute(f"CREATE TABLE plain.lineitem AS FROM '{rows}'")
    return _described(file, "plain")


def _described(file: str, schema: str) -> TableSchema:
    source = open_duck_source(f"duckdb://{file}")
    try:
        name = TableName(schema=schema, table="lineitem")
        return source.describe(name, ("l_orderkey", "l_linenumber"))
    finally:
        source.close()


def _read(file: str, schema: TableSchema, *, changes: bool = False) -> Iterator[pa.RecordBatch]:
    wanted = arrow_schema(schema, changes=changes)
    for batch in pq.ParquetFile(file).iter_batches(_BATCH):
        if BEYOND not in batch.schema.names:
            batch = batch.append_column(BEYOND, pa.nulls(batch.num_rows, pa.string()))  # noqa: PLW2901 - the same rows
        yield batch.select(wanted.names).cast(wanted)


STEPS: dict[str, Callable[..., Work]] = {
    step.__name__: step
    for step in (generate, duck_base, duck_load, duck_merge, mssql_stage, mssql_bare)
}


if __name__ == "__main__":
    said = json.load(sys.stdin)
    print(json.dumps(timed(STEPS[sys.argv[1]](**said))))
