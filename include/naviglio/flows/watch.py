"""What a table says now: the values of one column, for who waits until it says something."""

from __future__ import annotations

from dataclasses import replace

from naviglio.connections.connections import Urls
from naviglio.connections.registry import open_source
from naviglio.model import TableName
from naviglio.ports import Scan


def values_of(connections: Urls, conn_id: str, table: TableName, column: str) -> frozenset[str]:
    """Return the different values of a column as text, without NULL; the table is a small one.

    Times are ISO text in UTC. Raises ConfigError for a table or column that isn't there,
    RetryableError while the source is away.
    """
    source = open_source(conn_id, connections)
    try:
        described = source.describe(table, (column,))
        schema = replace(described, columns=(described.column(column),))
        with source.snapshot() as snapshot:
            batches = snapshot.read(Scan(table=table, schema=schema, rows=False))
            return frozenset(
                str(value.isoformat() if hasattr(value, "isoformat") else value)
                for batch in batches
                for value in batch.column(column).to_pylist()
                if value is not None
            )
    finally:
        source.close()
