"""What a target lacks: the touched keys of the change feed, with the rows as of one version."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from naviglio.carriers import arrow_schema
from naviglio.errors import RetryableError
from naviglio.lake.commits import read_commits
from naviglio.lake.merge import exact, quote
from naviglio.lake.schema import logical_schema, only_adds
from naviglio.model import DELETE, OP, UPSERT, LedgerRow, TableSchema
from naviglio.ports import Feed

_BATCH_ROWS = 16_384


def feed_of(
    table: DeltaTable, landing: str, since: LedgerRow | None, spill_bytes: int
) -> Feed | None:
    """Return what the target of `since` lacks of a lake table; None when it lacks nothing."""
    schema, version = logical_schema(table), table.version()
    if not schema.columns:  # no part has come yet
        return None
    lake_table, number = str(table.metadata().id), table.transaction_version(landing) or 0
    loaded = (lake_table, version, number)
    if since is not None and (since.lake_table, since.version, since.batch) == loaded:
        return None
    why, batches = _why_whole(table, landing, schema, since), None
    if since is not None and not why:
        try:
            batches = _changes(table, since.version, schema, spill_bytes)
        except (DeltaError, duckdb.Error, pa.ArrowException, OSError, ValueError) as error:
            why = (
                f"the changes of versions {since.version + 1} to {version} can't be read "
                f"({type(error).__name__})"
            )
    return Feed(
        lake_table=lake_table,
        landing=landing,
        version=version,
        batch=number,
        schema=schema,
        why_whole=why,
        batches=rows_of(table, schema) if batches is None else batches,
    )


def rows_of(table: DeltaTable, schema: TableSchema) -> Iterator[pa.RecordBatch]:
    """Stream all rows of a lake table in their carriers."""
    wanted = arrow_schema(schema)
    try:
        for batch in pa.RecordBatchReader.from_stream(table.scan(columns=wanted.names)):
            if batch.num_rows:
                yield batch.select(wanted.names).cast(wanted)
    except (DeltaError, pa.ArrowException, OSError) as error:
        raise _unreadable(table, error) from error


def data_files(table: DeltaTable) -> set[str]:
    """Return the paths of a table's data files; delta-rs gives them percent-encoded."""
    return {unquote(file) for file in table.file_uris()}


def _why_whole(
    table: DeltaTable, landing: str, schema: TableSchema, since: LedgerRow | None
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
    except (DeltaError, OSError, ValueError) as error:
        found = type(error).__name__
        return f"the log of versions {since.version} to {later[-1]} can't be read ({found})"
    if number != since.batch:  # an older copy of the folder went on by other commits
        return f"version {since.version} holds batch {number}, and held {since.batch} when loaded"
    not_plain = [commit.why_not_plain for commit in commits if commit.why_not_plain]
    drift = [] if only_adds(before, schema) else ["the logical schema changed"]
    return next(iter(not_plain + drift), "")


def _changes(
    table: DeltaTable, since: int, schema: TableSchema, spill_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Return the changes after version `since`; what can't be read raises now, not later."""
    before = data_files(DeltaTable(table.table_uri, version=since))
    # A living row of a touched key stands in a file that came after `since`: each commit that
    # touched it wrote it anew, and a compaction writes all its rows to a new file.
    files = sorted(data_files(table) - before)
    stream = _stream(table, since, schema, files, spill_bytes)
    next(stream)
    return stream


def _stream(
    table: DeltaTable, since: int, schema: TableSchema, files: list[str], spill_bytes: int
) -> Iterator[pa.RecordBatch]:
    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="naviglio-feed-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        engine = stack.enter_context(_engine(folder, spill_bytes))
        _collect_keys(engine, table, since, schema, files)
        yield pa.RecordBatch.from_pylist([], arrow_schema(schema, changes=True))
        wanted = arrow_schema(schema, changes=True)
        for sql in _selects(engine, schema, files):
            try:
                for batch in engine.sql(sql).to_arrow_reader(_BATCH_ROWS) or ():
                    yield batch.cast(wanted)
            except (duckdb.Error, pa.ArrowException) as error:
                raise _unreadable(table, error) from error


def _engine(folder: str, spill_bytes: int) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={
            "memory_limit": f"{spill_bytes}B",
            "temp_directory": folder,
            "threads": 2,
            "preserve_insertion_order": False,
        }
    )


def _collect_keys(
    engine: duckdb.DuckDBPyConnection,
    table: DeltaTable,
    since: int,
    schema: TableSchema,
    files: list[str],
) -> None:
    """Fill `touched` with the keys of the change feed, `gone` with those that no file holds."""
    names = ", ".join(quote(name) for name in schema.key)
    cdf = table.load_cdf(
        starting_version=since + 1, ending_version=table.version(), columns=_quoted(schema.key)
    )
    engine.register("cdf", pa.RecordBatchReader.from_stream(cdf))
    engine.execute(f"CREATE TEMP TABLE touched AS SELECT DISTINCT {names} FROM cdf")
    engine.unregister("cdf")
    found = (
        f"(SELECT {names} FROM {_parquet(files)})" if files else "(SELECT * FROM touched LIMIT 0)"
    )
    engine.execute(
        f"CREATE TEMP TABLE gone AS SELECT t.* FROM touched t ANTI JOIN {found} s "
        f"ON {_same_key(schema)}"
    )


def _selects(
    engine: duckdb.DuckDBPyConnection, schema: TableSchema, files: list[str]
) -> Iterator[str]:
    carriers = arrow_schema(schema)
    if files:
        shown = engine.execute(f"DESCRIBE SELECT * FROM {_parquet(files)}").fetchall()
        here = {row[0] for row in shown}
        columns = ", ".join(
            f"s.{quote(n)}" if n in here else f"NULL AS {quote(n)}" for n in carriers.names
        )
        yield (
            f"SELECT {columns}, '{UPSERT}' AS {quote(OP)} FROM {_parquet(files)} s "
            f"SEMI JOIN touched t ON {_same_key(schema)}"
        )
    columns = ", ".join(
        f"t.{quote(n)}" if n in schema.key else f"NULL AS {quote(n)}" for n in carriers.names
    )
    yield f"SELECT {columns}, '{DELETE}' AS {quote(OP)} FROM gone t"


def _same_key(schema: TableSchema) -> str:
    columns = (schema.column(name) for name in schema.key)
    return " AND ".join(f"{exact('t', c)} = {exact('s', c)}" for c in columns)


def _parquet(files: list[str]) -> str:
    names = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"


def _quoted(names: Iterable[str]) -> list[str]:
    """Quote names for delta-rs, which parses column names as SQL."""
    return [quote(name) for name in names]


def _folder(table: DeltaTable) -> str:
    return unquote(urlsplit(table.table_uri).path)


def _unreadable(table: DeltaTable, error: Exception) -> RetryableError:
    return RetryableError(
        f"version {table.version()} of lake table {table.table_uri} can't be read to its end "
        f"({type(error).__name__}): its files went away meanwhile. Run again."
    )
