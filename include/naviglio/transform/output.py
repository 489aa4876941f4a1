"""What Spark wrote into an attempt's folder, checked before the core commits it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from naviglio.carriers import arrow_schema
from naviglio.errors import DataError, StorageError
from naviglio.model import BEYOND, RESERVED, Column, DataFile, Kind, TableSchema
from naviglio.storage.engine import local_engine, quoted, view_files

_SPELLED: dict[str, tuple[Kind, str]] = {
    "int16": ("int16", "smallint"), "int32": ("int32", "integer"), "int64": ("int64", "bigint"),
    "bool": ("bool", "boolean"), "float": ("float32", "real"),
    "double": ("float64", "double precision"), "string": ("text", "text"),
    "binary": ("bytes", "bytea"), "date32[day]": ("date", "date"),
    "timestamp[us]": ("timestamp", "timestamp without time zone"),
    "timestamp[us, tz=UTC]": ("timestamptz", "timestamp with time zone"),
}  # fmt: skip


def logical(name: str, arrow: pa.Schema, key: Sequence[str]) -> TableSchema:
    """Return the logical schema of a program's output; DataError for what has no carrier."""
    taken = [n for n in arrow.names if n in RESERVED and n != BEYOND]
    lacking = [n for n in key if n not in arrow.names]
    if taken or lacking:
        raise DataError(
            f"transform {name!r}: its output lacks key columns {lacking}, or has columns with "
            f"Naviglio's own names {taken}. It has {arrow.names}. Correct the program or the key."
        )
    columns = tuple(_column(name, field) for field in arrow if field.name != BEYOND)
    return TableSchema(columns=columns, key=tuple(key))


def files_in(root: str, folder: str) -> tuple[tuple[DataFile, ...], pa.Schema | None]:
    """Make durable and describe the Parquet files of a folder, those without rows left out.

    Everything else in it, such as Spark's checksum files and what a lost executor was writing, is
    removed. Returns the schema of the files as well, None where there are none. StorageError for a
    file that is no whole Parquet file.
    """
    place, files = Path(root, folder), []
    schema: pa.Schema | None = None
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if path.name.startswith((".", "_")) or path.suffix != ".parquet":
            _remove(path)
            continue
        found, rows = _footer(path)
        schema = schema or found
        if rows == 0:
            path.unlink()
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        files.append(
            DataFile(
                path=f"{folder}/{path.name}", rows=rows, bytes=path.stat().st_size, sha256=digest
            )
        )
    if place.is_dir():
        _sync(place)
    return tuple(files), schema


def check(
    name: str, root: str, files: Sequence[DataFile], schema: TableSchema, day: str, told: int
) -> None:
    """Refuse rows that were lost, or have no key, no day, or another row's key."""
    if (rows := sum(file.rows for file in files)) != told:
        raise StorageError(
            f"transform {name!r}: Spark wrote {told} rows, its files hold {rows}. Run again."
        )
    if schema.column(day).kind != "date":
        raise DataError(
            f"transform {name!r}: its day column {day!r} is {schema.column(day).source_type}, not "
            "a date. Cast it in the program, e.g. to_date(time_hour)."
        )
    with local_engine() as engine:
        view_files(engine, "made", [str(Path(root, f.path)) for f in files], arrow_schema(schema))
        keys = ", ".join(quoted(n) for n in schema.key)
        empty = " OR ".join(f"{quoted(n)} IS NULL" for n in dict.fromkeys((*schema.key, day)))
        if found := engine.execute(f"SELECT {keys} FROM made WHERE {empty} LIMIT 1").fetchone():
            raise DataError(
                f"transform {name!r}: a row has no value in its key or its day {day!r}: "
                f"{_row(schema.key, found)}. Nothing was landed. Correct the program."
            )
        twice = f"SELECT {keys} FROM made GROUP BY ALL HAVING count(*) > 1 LIMIT 1"
        if found := engine.execute(twice).fetchone():
            raise DataError(
                f"transform {name!r}: two rows have one key: {_row(schema.key, found)}. Nothing "
                "was landed. Correct the program, or declare a key that is unique."
            )


def _row(names: Sequence[str], values: Sequence[object]) -> str:
    def text(value: object) -> str:
        return value.isoformat() if isinstance(value, date) else str(value)

    return ", ".join(f"{n}={text(v)}" for n, v in zip(names, values, strict=True))


def _column(name: str, field: pa.Field) -> Column:
    carrier = str(field.type)
    if pa.types.is_decimal128(field.type):
        digits, scale = field.type.precision, field.type.scale
        return Column(
            name=field.name, kind="decimal", carrier=carrier, precision=digits, scale=scale,
            source_type=f"numeric({digits},{scale})",
        )  # fmt: skip
    if carrier not in _SPELLED:
        raise DataError(
            f"transform {name!r}: column {field.name!r} is {carrier}, which the lake can't carry; "
            f"known are {', '.join(_SPELLED)} and decimals. Cast it in the program."
        )
    kind, spelled = _SPELLED[carrier]
    return Column(name=field.name, kind=kind, carrier=carrier, source_type=spelled)


def _footer(path: Path) -> tuple[pa.Schema, int]:
    try:
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"{path}, which Spark wrote, can't be read as Parquet ({type(error).__name__}). Check "
            "the disk below, then run again."
        ) from error
    return footer.schema.to_arrow_schema().remove_metadata(), footer.num_rows


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    for place in (folder, folder.parent):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
