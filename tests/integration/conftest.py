"""What tests of the whole line share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from naviglio.adapters.postgres.embedded import Cluster
from tests.integration.lines import Line, drop_schemas, new_line


@pytest.fixture
def line(cluster: Cluster, tmp_path: Path) -> Iterator[Line]:
    """A line of one's own over the shared server."""
    made = new_line(cluster, tmp_path)
    try:
        yield made
    finally:
        drop_schemas(made)
