"""Keep lake tables fast to read: compact what many small batches left."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from naviglio.flows.site import Site
from naviglio.lake.table import Compacted
from naviglio.model import TableSpec

log = logging.getLogger("naviglio.maintain")


def maintain(site: Site, tables: Iterable[TableSpec]) -> dict[str, Compacted | None]:
    """Compact each lake table where that is worth it; None where it isn't.

    May run beside captures and loads. Raises RetryableError when another compaction runs.
    """
    done: dict[str, Compacted | None] = {}
    for table in tables:
        done[table.name] = found = site.lake(table).compact()
        if found is not None:
            log.info(
                "compacted %s: %d files instead of %d, version %d",
                table.name, found.files_after, found.files_before, found.version,
            )  # fmt: skip
    return done
