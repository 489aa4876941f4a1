"""Non-clustered indexes of a target: off while most of it is merged, built again at its end.

All in the transaction of the merge, so that nobody ever sees one that is off. It holds readers off
from the first to the commit. A merge that changes so much locks the whole table anyway, against all
but readers of row versions: where the database has such, no index is turned off.
"""

from __future__ import annotations

from dataclasses import dataclass

from mssql_python import Connection

from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.sql import quote, table
from naviglio.model import TableName

# Not those that the key, a constraint or a MERGE's plan may lean on (unique), nor what is no b-tree
# in one piece. A disabled index forgets its compression.
FREE = """
SELECT i.name, p.data_compression_desc
FROM sys.indexes AS i
JOIN sys.data_spaces AS d ON d.data_space_id = i.data_space_id AND d.type = N'FG'
JOIN sys.partitions AS p ON p.object_id = i.object_id AND p.index_id = i.index_id
WHERE i.object_id = OBJECT_ID(?) AND i.type = 2 AND i.is_unique = 0 AND i.is_disabled = 0
  AND i.is_hypothetical = 0
  AND EXISTS (SELECT 1 FROM sys.databases AS b WHERE b.database_id = DB_ID()
              AND b.is_read_committed_snapshot_on = 0 AND b.snapshot_isolation_state = 0)
ORDER BY i.index_id
"""


@dataclass(frozen=True)
class Free:
    """An index that can be turned off."""

    name: str
    compression: str


def free(connection: Connection, target: TableName) -> list[Free]:
    """Return the indexes that can be turned off; none where that holds up who needn't wait."""
    return [Free(*row) for row in fetch(connection, FREE, table(target))]


def disable(target: TableName, index: Free) -> str:
    """Return the statement that turns an index off."""
    return f"ALTER INDEX {quote(index.name)} ON {table(target)} DISABLE"


def rebuild(target: TableName, index: Free) -> str:
    """Return the statement that builds an index again as it was."""
    return (
        f"ALTER INDEX {quote(index.name)} ON {table(target)} REBUILD"
        f" WITH (DATA_COMPRESSION = {index.compression})"
    )
