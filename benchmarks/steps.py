"""The steps that are measured, each in a process of its own: `python -m benchmarks.steps NAME`.

What is said to a step comes as JSON by stdin, so that no password stands on a command line. A step
imports and prepares, and returns the work that is timed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from pgpq import ArrowToPostgresBinaryEncoder

from benchmarks.measure import timed
from naviglio.adapters.postgres import open_source
from naviglio.adapters.postgres.merge import add_key, create_staging, create_target
from naviglio.adapters.postgres.target import PostgresTarget
from naviglio.capture.reading import with_op
from naviglio.capture.table import Wish
from naviglio.carriers import arrow_schema
from naviglio.config.home import Home
from naviglio.config.pipeline import load_pipeline
from naviglio.connections.connections import Connections
from naviglio.flows.capture import capture
from naviglio.flows.replicate import catch_up_lake, catch_up_target, replicate
from naviglio.flows.site import Site, open_site
from naviglio.landing.attempt import Attempt
from naviglio.model import BEYOND, OP, Group, LedgerRow, TableName, TableSchema
from naviglio.ports import Scan
from naviglio.storage.local import LocalStore

if TYPE_CHECKING:
    from naviglio.ports import Staging

Work = Callable[[], dict[str, Any] | None]
_CHUNK = 1 << 20
_LINEITEM = TableName(schema="public", table="lineitem")
_LOADED = TableName(schema="bench", table="lineitem")


@contextmanager
def _site(pipeline: str = "bench") -> Iterator[Site]:
    home = Home.find(os.environ)
    named = load_pipeline(home.pipelines / f"{pipeline}.yaml")
    with open_site(named, home, Connections(os.environ, home.connections)) as site:
        yield site


def _group(site: Site, table: str) -> Group:
    return next(g for g in site.pipeline.groups if g.tables[0].name == table)


def _described(url: str, table: str = "lineitem") -> TableSchema:
    source = open_source(url)
    try:
        return source.describe(replace(_LINEITEM, table=table), ())
    finally:
        source.close()


# --- extract ------------------------------------------------------------------------------------


def extract(url: str, folder: str) -> Work:
    """Our way: one snapshot, read into the files of an attempt."""

    def work() -> dict[str, Any]:
        schema = _described(url)
        attempt = Attempt(store=LocalStore(root=folder), number=1)
        with open_source(url).snapshot() as snapshot:
            batches = snapshot.read(Scan(table=_LINEITEM, schema=schema))
            files = attempt.write("lineitem", arrow_schema(schema), batches, schema.key[:1])
        return {"rows": sum(f.rows for f in files), "bytes": sum(f.bytes for f in files)}

    return work


def copy_to_nothing(url: str, table: str) -> Work:
    """The limit: a binary COPY of all columns, its bytes thrown away."""

    def work() -> dict[str, Any]:
        found = 0
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            statement = f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT binary)"
            with cursor.copy(statement.encode()) as copy:
                while data := copy.read():
                    found += len(data)
        return {"bytes": found}

    return work


# --- diff ---------------------------------------------------------------------------------------


def adbc_read(url: str, table: str) -> Work:
    """A full read of a table, its batches thrown away."""

    def work() -> dict[str, Any]:
        with adbc.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            return {"rows": sum(batch.num_rows for batch in cursor.fetch_record_batch())}

    return work


def adbc_compare(url: str, table: str) -> Work:
    """A full read whose rows are hashed here: what a comparison outside of the database needs."""
    from naviglio.storage.engine import local_engine

    def work() -> dict[str, Any]:
        with adbc.connect(url) as connection, connection.cursor() as cursor, local_engine() as here:
            cursor.execute(f"SELECT * FROM {table}")
            here.register("rows_read", cursor.fetch_record_batch())
            hashed = here.sql("SELECT count(*), bit_xor(hash(rows_read)) FROM rows_read")
            return {"rows": hashed.fetchall()[0][0]}

    return work


def capture_table(table: str) -> Work:
    """Capture a table's group: land its next batch, or nothing."""
    import_module("sqlalchemy")  # the first session of a pool would

    def work() -> dict[str, Any]:
        with _site() as site:
            manifest = capture(site, _group(site, table), Wish())
        parts = manifest.parts if manifest else ()
        return {"upserts": sum(p.upserts for p in parts), "deletes": sum(p.deletes for p in parts)}

    return work


# --- staging and apply --------------------------------------------------------------------------


def write_changes(file: str) -> Work:
    """Write the source's `lineitem_changes` as a Parquet file of changes."""
    url = Connections(os.environ, Home.find(os.environ).connections).url("operations")

    def work() -> None:
        name = replace(_LINEITEM, table="lineitem_changes")
        schema = _described(url, name.table)
        wanted = arrow_schema(schema, changes=True)
        with open_source(url).snapshot() as snapshot, pq.ParquetWriter(file, wanted) as writer:
            for batch in snapshot.read(Scan(table=name, schema=schema)):
                writer.write_batch(with_op(batch, wanted))

    return work


def write_rows(file: str, source: str) -> Work:
    """Write the source's `lineitem` as a Parquet file of all rows, as the lake has them."""
    schema = _described(source)

    def work() -> None:
        wanted = arrow_schema(schema)
        with open_source(source).snapshot() as snapshot, pq.ParquetWriter(file, wanted) as writer:
            for batch in snapshot.read(Scan(table=_LINEITEM, schema=schema)):
                full = batch.append_column(BEYOND, pa.nulls(batch.num_rows, pa.string()))
                writer.write_batch((batch if BEYOND in batch.schema.names else full).cast(wanted))

    return work


def first_load(url: str, file: str, source: str) -> Work:
    """Our way from a file of all rows to a target that was absent, committed."""
    from naviglio.load.catch_up import catch_up
    from naviglio.model import TableSpec
    from naviglio.ports import Feed

    schema = _described(source)
    spec = TableSpec(
        name="lineitem", source=_LINEITEM, target=_LOADED, key=schema.key, way="stream"
    )

    def work() -> dict[str, Any]:
        target = PostgresTarget(url)
        batches = pq.ParquetFile(file).iter_batches(16_384)
        feed = Feed(
            lake_table="bench", landing="bench", version=1, batch=1, schema=schema,
            why_whole="first load", batches=batches,
        )  # fmt: skip
        row = catch_up(target, "bench", spec, lambda _: feed)
        target.close()
        return {"inserted": row.inserted if row else 0}

    return work


def change_share(rows: str, changes: str, whole: str, percent: int) -> Work:
    """Write changes of a share of the rows, spread, and all rows as they are then."""
    from naviglio.storage.engine import local_engine

    some = f"hash(l_orderkey, l_linenumber) % 100 < {percent}"
    more = "l_quantity + 1 AS l_quantity, now() AS updated_at"

    def work() -> None:
        with local_engine() as here:
            new = f"SELECT * REPLACE ({more}) FROM '{rows}' WHERE {some}"
            here.execute(
                f"COPY (SELECT *, 'upsert' AS {OP} FROM ({new})) TO '{changes}' (FORMAT parquet)"
            )
            here.execute(
                f"COPY ({new} UNION ALL SELECT * FROM '{rows}' WHERE NOT {some})"
                f" TO '{whole}' (FORMAT parquet)"
            )

    return work


def swap_in(url: str, file: str, source: str) -> Work:
    """Our way from a file of all rows to a target that is there, by a table beside."""
    schema = _described(source)

    def work() -> dict[str, Any]:
        target = PostgresTarget(url)
        batches = pq.ParquetFile(file).iter_batches(16_384)
        staged = target.stage_beside("bench", _LOADED, schema, _cast(batches, schema))
        with target.begin() as transaction:
            transaction.lock(_LOADED)
            counts = transaction.merge(_LOADED, schema, staged)
        target.close()
        assert counts.deleted, "it was merged"
        return {"rows": counts.inserted}

    return work


def merge_share(url: str, file: str, source: str) -> Work:
    """Our way from a file of changes to a target that is there, by a merge."""
    schema = _described(source)

    def work() -> dict[str, Any]:
        target = PostgresTarget(url)
        batches = _cast(pq.ParquetFile(file).iter_batches(16_384), schema, changes=True)
        staged = target.stage("bench", schema, batches, whole=False)
        with target.begin() as transaction:
            transaction.lock(_LOADED)
            counts = transaction.merge(_LOADED, schema, staged)
        target.close()
        return {"rows": counts.updated}

    return work


def _cast(
    batches: Iterator[pa.RecordBatch], schema: TableSchema, *, changes: bool = False
) -> Iterator[pa.RecordBatch]:
    wanted = arrow_schema(schema, changes=changes)
    for batch in batches:
        yield batch.select(wanted.names).cast(wanted)


def copy_then_index(url: str, file: str, source: str) -> Work:
    """The limit of a first load: COPY into the table itself, then its key's index, commit."""
    schema = _described(source)

    def work() -> dict[str, Any]:
        rows = pq.ParquetFile(file)
        encoder = ArrowToPostgresBinaryEncoder(
            pa.schema([rows.schema_arrow.field(name) for name in schema.names])
        )
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SET maintenance_work_mem = '256MB'")
            cursor.execute("CREATE SCHEMA bench")
            cursor.execute(create_target("bench.lineitem", schema))
            with cursor.copy("COPY bench.lineitem FROM STDIN (FORMAT binary)") as copy:
                copy.write(encoder.write_header())
                for batch in rows.iter_batches(8_192, columns=list(schema.names)):
                    copy.write(encoder.write_batch(batch))
                copy.write(encoder.finish())
            copied = cursor.rowcount
            cursor.execute(add_key(_LOADED, schema.key))
        return {"inserted": copied}

    return work


def encode(file: str, encoded: str) -> Work:
    """Encode a Parquet file as binary COPY takes it."""

    def work() -> None:
        batches = pq.ParquetFile(file)
        encoder = ArrowToPostgresBinaryEncoder(batches.schema_arrow)
        with Path(encoded).open("wb") as out:
            out.write(encoder.write_header())
            for batch in batches.iter_batches(8_192):
                out.write(encoder.write_batch(batch))
            out.write(encoder.finish())

    return work


def copy_encoded(url: str, encoded: str, source: str) -> Work:
    """The limit: a COPY of encoded rows into a table like the staging."""
    schema = _described(source)

    def work() -> None:
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS like_staging")
            cursor.execute(create_staging("like_staging", schema, whole=False))
            with (
                cursor.copy("COPY like_staging FROM STDIN (FORMAT binary)") as copy,
                Path(encoded).open("rb") as file,
            ):
                while data := file.read(_CHUNK):
                    copy.write(data)

    return work


def stage(url: str, file: str, source: str) -> Work:
    """Our way into staging."""
    schema = _described(source)

    def work() -> dict[str, Any]:
        target = PostgresTarget(url)
        staged = _stage(target, schema, file)
        target.close()
        return {"rows": staged.rows}

    return work


def upsert(url: str, file: str, source: str) -> Work:
    """Our way from a file of changes to the committed target."""
    schema = _described(source)

    def work() -> dict[str, Any]:
        from datetime import UTC, datetime

        target = PostgresTarget(url)
        staged = _stage(target, schema, file)
        with target.begin() as transaction:
            transaction.lock(_LOADED)
            counts = transaction.merge(_LOADED, schema, staged)
            row = LedgerRow(
                target=str(_LOADED), pipeline="bench", table="lineitem", landing="bench",
                lake_table="bench", version=1, batch=1, attempt=staged.attempt,
                loaded_at_utc=datetime.now(UTC), inserted=counts.inserted, updated=counts.updated,
            )  # fmt: skip
            transaction.record(row)
        target.close()
        return {"inserted": counts.inserted, "updated": counts.updated}

    return work


def _stage(target: PostgresTarget, schema: TableSchema, file: str) -> Staging:
    batches = pq.ParquetFile(file).iter_batches(16_384)
    return target.stage("bench", schema, batches, whole=False)


def merge_by_hand(url: str, file: str) -> Work:
    """What one would write by hand: COPY into a staging table, MERGE as it comes, commit."""

    def work() -> dict[str, Any]:
        changes = pq.ParquetFile(file)
        names = [n for n in changes.schema_arrow.names if n not in {BEYOND, OP}]
        encoder = ArrowToPostgresBinaryEncoder(
            pa.schema([changes.schema_arrow.field(name) for name in names])
        )
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE UNLOGGED TABLE by_hand (LIKE bench.lineitem)")
            with cursor.copy("COPY by_hand FROM STDIN (FORMAT binary)") as copy:
                copy.write(encoder.write_header())
                for batch in changes.iter_batches(8_192, columns=names):
                    copy.write(encoder.write_batch(batch))
                copy.write(encoder.finish())
            merged = cursor.execute(_merge(names).encode()).rowcount
            cursor.execute("DROP TABLE by_hand")
        return {"merged": merged}

    return work


def _merge(names: list[str]) -> str:
    others = [name for name in names if name not in {"l_orderkey", "l_linenumber"}]
    return (
        "MERGE INTO bench.lineitem AS t USING by_hand AS s"
        " ON t.l_orderkey = s.l_orderkey AND t.l_linenumber = s.l_linenumber"
        f" WHEN MATCHED THEN UPDATE SET {', '.join(f'{name} = s.{name}' for name in others)}"
        f" WHEN NOT MATCHED THEN INSERT ({', '.join(names)})"
        f" VALUES ({', '.join(f's.{name}' for name in names)})"
    )


# --- whole runs ---------------------------------------------------------------------------------


def apply(table: str) -> Work:
    """Bring the lake table up to the landing."""

    def work() -> None:
        with _site() as site:
            catch_up_lake(site, _group(site, table))

    return work


def load(table: str) -> Work:
    """Bring the target up to the lake: feed, staging, merge."""

    def work() -> dict[str, Any]:
        with _site() as site:
            row = catch_up_target(site, _group(site, table))[table]
        return {"inserted": row.inserted, "updated": row.updated, "why_whole": row.why_whole}

    return work


def replicate_all(pipeline: str) -> Work:
    """A whole run of a pipeline, within one process."""

    def work() -> dict[str, Any]:
        with _site(pipeline) as site:
            reports = [replicate(site, group, Wish()) for group in site.pipeline.groups]
        assert all(report.error is None for report in reports)
        return {"batches": sum(report.batch is not None for report in reports)}

    return work


STEPS: dict[str, Callable[..., Work]] = {
    step.__name__: step
    for step in (
        *(extract, copy_to_nothing, adbc_read, adbc_compare, capture_table, write_changes, encode),
        *(write_rows, first_load, copy_then_index, change_share, swap_in, merge_share),
        *(copy_encoded, stage, upsert, merge_by_hand, apply, load, replicate_all),
    )
}


if __name__ == "__main__":
    said = json.load(sys.stdin)
    print(json.dumps(timed(STEPS[sys.argv[1]](**said))))
