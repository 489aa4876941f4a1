"""The benchmarks of loads into other targets, at a scale where nothing is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ground import Ground
from benchmarks.suites import SUITES
from naviglio.config.home import Home


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """A ground without a server: these suites bring their own targets."""
    made = Ground(home=Home(root=tmp_path, pipelines=tmp_path / "pipelines"), scale=0.001)
    made.files.mkdir()
    return made


def test_a_duckdb_load_and_its_own_merge_change_as_many_rows(ground: Ground) -> None:
    """Which the suite itself compares; one line, with its bar."""
    [line] = SUITES["duckdb"](ground, 1)
    assert line.bar == 1.3
    assert line.values[0] > 0


def test_without_a_sql_server_its_suite_says_so(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And measures nothing."""
    monkeypatch.delenv("NAVIGLIO_TEST_MSSQL", raising=False)
    assert SUITES["mssql"](ground, 1) == []
    assert "NAVIGLIO_TEST_MSSQL names no server" in capsys.readouterr().out
