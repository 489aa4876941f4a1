"""What a target lacks: the touched keys of the change feed, with the rows as of one version."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from naviglio.carriers import arrow_schema
from naviglio.errors import RetryableError, StorageError
from naviglio.lake.commits import read_commits
from naviglio.lake.merge import exact, same_key
from naviglio.lake.schema import logical_schema, only_adds
from naviglio.model import DELETE, OP, UPSERT, LedgerRow, TableSchema
from naviglio.ports import Feed
from naviglio.storage.engine import local_engine, quoted, view_files

_BATCH_ROWS = 16_384


def feed_of(table: DeltaTable, landing: str, since: LedgerRow | None) -> Feed | None:
    """Return what the target of `since` lacks of a lake table; None when it lacks nothing."""
    schema, version = logical_schema(table), table.version()
    if not schema.columns:  # no part has come yet
        return None
    lake_table, number = str(table.metadata().id), table.transaction_version(landing) or 0
    loaded = (lake_table, version, number)
    if since is not None and (since.lake_table, since.version, since.batch) == loaded:
        return None
    why = _why_whole(table, landing, schema, since)
    then = None if since is None or why else DeltaTable(table.table_uri, version=since.version)
    return Feed(
        lake_table=lake_table,
        landing=landing,
        version=version,
        batch=number,
        schema=schema,
        why_whole=why,
        batches=_changes(table, then, schema) if then else rows_of(table, schema),
        rows=_rows(table),
        changed_rows=_touched(table, then.version()) if then else None,
        gained=_gained(table, then) if then else None,
        evolved=then is not None and logical_schema(then).names != schema.names,
    )


def _gained(table: DeltaTable, then: DeltaTable) -> int | None:
    """Count how many rows more a lake table has than in a version before."""
    before, now = _rows(then), _rows(table)
    return None if before is None or now is None else now - before


def _rows(table: DeltaTable) -> int | None:
    """Count a lake table's rows by the statistics of its files."""
    counts = pa.table(table.get_add_actions()).column("num_records").to_pylist()
    return None if None in counts else sum(counts)


def _touched(table: DeltaTable, since: int) -> int | None:
    """Count the rows that the commits after `since` touched, one of many commits as many times."""
    commits = read_commits(_folder(table), range(since + 1, table.version() + 1))
    counts = [commit.touched_rows for commit in commits]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def rows_of(table: DeltaTable, schema: TableSchema) -> Iterator[pa.RecordBatch]:
    """Stream all rows of a lake table in their carriers."""
    wanted = arrow_schema(schema)
    with _files_may_go(table):
        for batch in pa.RecordBatchReader.from_stream(table.scan(columns=wanted.names)):
            if batch.num_rows:
                yield batch.select(wanted.names).cast(wanted)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a reader has seen of a lake table: its id, its Delta version, the batch it held then."""

    lake_table: str
    version: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class Images:
    """Old and new images of the rows that changed; with `why_whole` they can't be told."""

    now: Seen
    why_whole: str
    batches: Iterator[pa.RecordBatch]


def images_of(
    table: DeltaTable, landing: str, since: Seen | None, columns: Sequence[str]
) -> Images:
    """Return some columns of all rows that changed since, as they were and as they are."""
    schema, version = logical_schema(table), table.version()
    number = table.transaction_version(landing) or 0
    now = Seen(lake_table=str(table.metadata().id), version=version, batch=number)
    why = _why_whole(table, landing, schema, since)
    same = since is None or why or since.version == version
    batches = iter(()) if same or since is None else _images(table, since.version, columns)
    return Images(now=now, why_whole=why, batches=batches)


def _images(table: DeltaTable, since: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    names = [quoted(name) for name in columns]  # delta-rs parses them as SQL too
    with _files_may_go(table):
        yield from pa.RecordBatchReader.from_stream(
            table.load_cdf(
                starting_version=since + 1, ending_version=table.version(), columns=names
            )
        )


def data_files(table: DeltaTable) -> set[str]:
    """Return the paths of a table's data files; delta-rs gives them percent-encoded."""
    return {unquote(file) for file in table.file_uris()}


def _why_whole(
    table: DeltaTable, landing: str, schema: TableSchema, since: LedgerRow | Seen | None
) -> str:
    if since is None:
        return "first load"
    if since.lake_table != str(table.metadata().id):
        return "another lake table"
    if since.version > table.version():
        return "the lake went back"
    later = range(since.version + 1, table.version() + 1)
    try:
        commits = read_commits(_folder(table), later)
        then = DeltaTable(table.table_uri, version=since.version)
        before, number = logical_schema(then), then.transaction_version(landing) or 0
    except (DeltaError, FileNotFoundError, json.JSONDecodeError) as error:
        found = type(error).__name__
        return f"the log of versions {since.version} to {table.version()} can't be read ({found})"
    if number != since.batch:  # an older copy of the folder went on by other commits
        return f"version {since.version} holds batch {number}, and held {since.batch} when loaded"
    why = next((commit.why_not_plain for commit in commits if commit.why_not_plain), "")
    return why or ("" if only_adds(before, schema) else "the logical schema changed")


def _changes(table: DeltaTable, then: DeltaTable, schema: TableSchema) -> Iterator[pa.RecordBatch]:
    """Stream the touched keys: with their rows as of now, or as deletes."""
    wanted, same = arrow_schema(schema, changes=True), same_key(schema)
    with _files_may_go(table), local_engine() as engine:
        # A living row of a touched key stands in a file that came after `then`: each commit that
        # touched it wrote it anew, and a compaction writes all its rows to a new file.
        view_files(engine, "s", data_files(table) - data_files(then), arrow_schema(schema))
        keys = [quoted(name) for name in schema.key]  # delta-rs parses them as SQL too
        feed = table.load_cdf(
            starting_version=then.version() + 1, ending_version=table.version(), columns=keys
        )
        engine.register("feed", pa.RecordBatchReader.from_stream(feed))
        each = ", ".join(f"any_value({key}) AS {key}" for key in keys)
        apart = ", ".join(exact("feed", schema.column(name)) for name in schema.key)
        engine.execute(f"CREATE TEMP TABLE t AS SELECT {each} FROM feed GROUP BY {apart}")
        reader = engine.sql(
            f"SELECT *, '{UPSERT}' AS {OP} FROM s SEMI JOIN t ON {same} UNION ALL BY NAME "
            f"SELECT *, '{DELETE}' AS {OP} FROM t ANTI JOIN s ON {same}"
        ).to_arrow_reader(_BATCH_ROWS)
        for batch in reader:
            yield batch.select(wanted.names).cast(wanted)


@contextmanager
def _files_may_go(table: DeltaTable) -> Iterator[None]:
    """Tell a read that failed because a vacuum or a disk took files from one that is wrong."""
    try:
        yield
    except Exception as error:
        lost = _lost(data_files(DeltaTable(table.table_uri)))
        if lost:
            raise StorageError(
                f"lake table {table.table_uri} has lost data file {lost[0]}. Restore the folder, "
                "or run `naviglio rebuild` for the table."
            ) from error
        if _lost(data_files(table)):
            raise RetryableError(
                f"version {table.version()} of lake table {table.table_uri} can't be read to its "
                "end: a vacuum took its files meanwhile. Run again."
            ) from error
        if isinstance(error, DeltaError | OSError | pa.ArrowException | duckdb.Error):
            raise StorageError(
                f"lake table {table.table_uri} can't be read to its end ({type(error).__name__}). "
                "Check the disk below, restore the folder, or run `naviglio rebuild` for the table."
            ) from error
        raise


def _lost(files: Iterable[str]) -> list[str]:
    return sorted(file for file in files if not Path(file).exists())


def _folder(table: DeltaTable) -> str:
    return unquote(urlsplit(table.table_uri).path)
