"""The rows of a table after a part, for parts that are more than a MERGE can hold in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from naviglio.carriers import arrow_schema
from naviglio.lake.merge import same_key
from naviglio.lake.source import Source
from naviglio.model import BEYOND, OP, UPSERT, Part, TableSchema
from naviglio.storage.engine import local_engine, quoted, view_files

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BATCH_ROWS = 16_384


@contextmanager
def rewritten(
    files: set[str], schema: TableSchema, source: Source
) -> Iterator[pa.RecordBatchReader]:
    """Stream what a table of `schema` in `files` holds once the part came: as a MERGE leaves it."""
    with local_engine() as engine:
        view_files(engine, "t", files, arrow_schema(schema))
        view_files(engine, "s", source.files, source.arrow)
        rows = engine.sql(_statement(engine, schema, source.part)).to_arrow_reader(_BATCH_ROWS)
        wanted = arrow_schema(schema)
        batches = (batch.select(wanted.names).cast(wanted) for batch in rows)
        yield pa.RecordBatchReader.from_batches(wanted, batches)


def _statement(engine: DuckDBPyConnection, schema: TableSchema, part: Part) -> str:
    same, names = same_key(part.schema), part.schema.names
    landed = ", ".join(  # a column that the source has lost keeps its value
        f"{'s' if name in (*names, BEYOND) else 't'}.{quoted(name)}"
        for name in (*schema.names, BEYOND)
    )
    upserts = f"SELECT {landed} FROM s LEFT JOIN t ON {same}"
    if part.kind == "snapshot":
        return upserts
    kept = f"SELECT t.* FROM t ANTI JOIN s ON {same}"
    if part.kind == "stream":
        return f"{upserts} WHERE s.{OP} = '{UPSERT}' UNION ALL BY NAME {kept}"
    spans = {"low": [w.start for w in part.windows], "high": [w.end for w in part.windows]}
    instant = pa.timestamp("us", tz="UTC")
    engine.register("spans", pa.table(spans, pa.schema([("low", instant), ("high", instant)])))
    at = f"CAST(t.{quoted(part.event_time)} AS TIMESTAMPTZ)"
    outside = f"ANTI JOIN spans w ON {at} >= w.low AND {at} < w.high"
    return f"{upserts} UNION ALL BY NAME {kept} {outside}"
