"""The tests of a transform that docs/pipelines.md shows are tests, and pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[3]


def test_the_documented_tests_pass(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of programs, from the checkout's folder."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "pipelines.md").read_text()
    shown = (
        text.partition("### Test a transform")[2].partition("```python\n")[2].partition("```")[0]
    )
    scope: dict[str, Any] = {}
    exec(shown, scope)  # noqa: S102 - it is what the page shows
    tests = [made for name, made in scope.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test(spark)
