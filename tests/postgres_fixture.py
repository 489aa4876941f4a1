"""The embedded PostgreSQL that tests share: real, in a temporary folder, once a session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from naviglio.adapters.postgres.embedded import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Run one cluster for the whole session; tests keep apart by the names of their tables."""
    home = Path(tempfile.mkdtemp(prefix="naviglio-test-"))
    made = Cluster(home)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(home)
