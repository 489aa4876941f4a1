"""What every test shares: the tier from its folder, Hypothesis profiles, the embedded server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
TIERS = frozenset({"unit", "contract", "integration", "chaos", "e2e", "dags"})

# They start the embedded PostgreSQL and a Spark, once a session and only when asked for.
pytest_plugins = ["tests.postgres_fixture", "tests.spark_fixture"]

# No deadline: a shared machine's pauses say nothing about the code.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, and with what it shares with others where two run at once."""
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0]
        if tier not in TIERS:
            raise pytest.UsageError(f"{item.path}: tests live in a folder of {sorted(TIERS)}.")
        item.add_marker(tier)
        item.add_marker(pytest.mark.xdist_group(_shared(item, tier)))
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)  # the longest begin first


def _shared(item: pytest.Item, tier: str) -> str:
    """Return what is started once for all tests that name the same: an Airflow, a Spark."""
    if tier == "e2e":
        return tier
    asked = getattr(item, "fixturenames", ())
    return "spark" if "spark" in asked else str(item.path)
