"""The local engine: DuckDB over Parquet files and Arrow streams, spilling beyond its memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from naviglio.errors import StorageError
from naviglio.model import KEY_HASH, OP

MEMORY = "200MB"


@contextmanager
def local_engine(*, on_disk: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an engine of its own, UTC; what it spilled is gone when it closes.

    `on_disk` keeps tables in a temporary file, for more rows than fit in its memory. Raises
    StorageError for a file that can't be read or a full disk.
    """
    with tempfile.TemporaryDirectory(prefix="naviglio-") as spill:
        where = str(Path(spill, "tables.duckdb")) if on_disk else ":memory:"
        settings = {"memory_limit": MEMORY, "temp_directory": spill, "threads": "2",
                    "preserve_insertion_order": "false"}  # fmt: skip
        with duckdb.connect(where, config={**settings}) as engine:
            engine.execute("SET TimeZone = 'UTC'")
            engine.execute("SET enable_progress_bar = false")  # it would write to stdout
            try:
                yield engine
            except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
                raise StorageError(
                    f"the local engine can't go on ({type(error).__name__}: "
                    f"{str(error).splitlines()[0]}). It spills to {spill}: give that disk more "
                    "room, or restore the file that it names, then run again. For a landing's file "
                    "that is lost, run `naviglio resnapshot` for the table."
                ) from error


@contextmanager
def streamed(
    engine: duckdb.DuckDBPyConnection, name: str, batches: Iterable[pa.RecordBatch], of: pa.Schema
) -> Iterator[None]:
    """Name the rows of a stream, for one reading of them.

    An error of the stream is raised as it was, and so is the end of the process that a signal asks
    for in it: the engine would wrap it, and tell its traceback.
    """
    failed: list[BaseException] = []

    def told() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            failed.append(error)
            raise

    engine.register(name, pa.RecordBatchReader.from_batches(of, told()))
    try:
        yield
    except duckdb.Error:
        if failed:
            raise failed[0] from None
        raise
    finally:
        engine.unregister(name)


def view_files(
    engine: duckdb.DuckDBPyConnection, name: str, files: Iterable[str], schema: pa.Schema
) -> None:
    """Name the rows of Parquet files, in the columns of `schema`; those a file lacks are NULL."""
    engine.register(f"{name}_none", schema.empty_table())
    rows, found = f"{name}_none", sorted(files)
    if found:
        read = engine.read_parquet(found, union_by_name=True, hive_partitioning=False)
        read.create_view(f"{name}_files")
        rows += f" UNION ALL BY NAME FROM {name}_files"
    engine.sql(f"FROM {rows}").select(*map(quoted, schema.names)).create_view(name)


def view_latest(
    engine: duckdb.DuckDBPyConnection,
    name: str,
    files: Sequence[str],
    later: Sequence[str],
    schema: pa.Schema,
    key: Sequence[str],
) -> None:
    """Name the rows of hash files, in the columns of `schema`, as the changes in `later` left them.

    Of each key the last of `later` counts, and is gone where that is a delete, which has no hash.
    """
    shown = ", ".join(map(quoted, schema.names))
    fields = [schema.field(one) for one in key]
    same = same_key(f"{name}_before", f"{name}_later", fields)
    if files:
        engine.read_parquet(list(files)).create_view(f"{name}_before")
    else:
        engine.register(f"{name}_none", schema.empty_table())
        engine.execute(f"CREATE TABLE {name}_before AS FROM {name}_none")
    if not later:
        engine.execute(f"CREATE VIEW {name} AS SELECT {shown} FROM {name}_before")
        return
    changes = []
    for number, file in enumerate(later):
        engine.read_parquet(file).create_view(f"{name}_{number}")
        changes.append(f"SELECT {number} AS {OP}, {shown} FROM {name}_{number}")
    last = ", ".join(
        f"arg_max_null({column}, {OP}) AS {column}"
        for column in map(quoted, schema.names) if column not in map(quoted, key)
    )  # fmt: skip
    keys = ", ".join(f"any_value({quoted(one)}) AS {quoted(one)}" for one in key)
    engine.execute(
        f"CREATE TABLE {name}_later AS SELECT {keys}, {last} "
        f"FROM ({' UNION ALL '.join(changes)}) GROUP BY {', '.join(map(exact, fields))}"
    )
    engine.execute(
        f"CREATE VIEW {name} AS SELECT {shown} FROM {name}_before "
        f"ANTI JOIN {name}_later ON {same} "
        f"UNION ALL SELECT {shown} FROM {name}_later WHERE {KEY_HASH} IS NOT NULL"
    )


def same_key(one: str, other: str, key: Iterable[pa.Field]) -> str:
    """Return the condition that two tables' keys are the same, byte for byte."""
    return " AND ".join(f"{exact(field, one)} = {exact(field, other)}" for field in key)


def exact(field: pa.Field, table: str = "") -> str:
    """Return a key column as what is equal byte for byte: 0.0 = -0.0, and their texts differ."""
    name = f"{table}.{quoted(field.name)}" if table else quoted(field.name)
    return f"{name}::VARCHAR" if pa.types.is_floating(field.type) else name


def quoted(name: str) -> str:
    """Return an identifier as SQL spells it, here and in Delta's own engine."""
    return '"' + name.replace('"', '""') + '"'
