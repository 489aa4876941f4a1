"""The benchmarks' harness, at a scale where nothing is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ground import open_ground
from benchmarks.measure import Result
from benchmarks.suites import SUITES
from benchmarks.wire import wiretap

SCALE = 0.001


def test_the_comparisons_run_and_agree_on_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line a bar; a load is checked to have arrived, whoever made it; the wire's bytes count."""
    monkeypatch.delenv("NAVIGLIO_BENCH_PYTHON", raising=False)  # dlt isn't installed for tests
    with open_ground(SCALE, tmp_path) as ground:
        found = SUITES["load"](ground, 1)
        with wiretap(ground.url("operations")) as wire:
            taken = ground.take("copy_to_nothing", url=wire.url, table="lineitem")
    assert [line.bar for line in found] == [1.0]
    assert found[0].values[0] > 0
    assert taken.told["bytes"] < wire.bytes < taken.told["bytes"] * 1.1 + 10_000
    assert "1 by_hand" in capsys.readouterr().out


def test_a_line_tells_whether_its_bar_is_reached() -> None:
    """By the median."""
    line = Result(what="read", values=[1.0, 9.0, 2.0], bar=2.0).line()
    assert line == "| read | 2.00 [1.00-9.00] x | 2 | yes |  |"
    assert "**no**" in Result(what="read", values=[2.01], bar=2.0).line()
