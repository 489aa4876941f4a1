"""What every test shares: the tier from its folder, Hypothesis profiles, the embedded server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).parent
TIERS = frozenset({"unit", "contract", "integration", "chaos", "e2e", "dags"})
# Whose tests share one Spark.
SPARKS = (
    "tests/integration/test_transforms.py",
    "tests/integration/test_spark_",
    "tests/unit/spark_jobs/",
)

# They start the embedded PostgreSQL and a Spark, once a session and only when asked for.
pytest_plugins = ["tests.postgres_fixture", "tests.spark_fixture"]

# No deadline: a shared machine's pauses say nothing about the code.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, the first folder below `tests/`; the longest begin first."""
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0]
        if tier not in TIERS:
            raise pytest.UsageError(f"{item.path}: tests live in a folder of {sorted(TIERS)}.")
        item.add_marker(tier)
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


class ByWhatIsShared(LoadScopeScheduling):  # type: ignore[misc]  # xdist tells no types
    """Deals tests out to several processes: those of a file, an Airflow or a Spark to one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/e2e/"):
            return "e2e"
        return "spark" if file.startswith(SPARKS) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByWhatIsShared:
    """Have it deal tests out."""
    return ByWhatIsShared(config, log)
