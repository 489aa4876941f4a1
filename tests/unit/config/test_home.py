"""Where a run's files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from naviglio.config.home import Home
from naviglio.errors import ConfigError


def test_without_a_word_all_is_below_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders are those that .gitignore names, absolute, and an empty variable says nothing."""
    monkeypatch.chdir(tmp_path)
    home = Home.find({"NAVIGLIO_HOME": ""})
    assert home.root == tmp_path / ".naviglio"
    assert home.pipelines == tmp_path / "include/pipelines"
    assert home.connections == home.root / "connections.yaml"
    assert {path.parent for path in (home.landing, home.lake, home.postgres)} == {home.root}


def test_the_environment_moves_both(tmp_path: Path) -> None:
    """NAVIGLIO_HOME and NAVIGLIO_PIPELINES are taken, `~` included."""
    home = Home.find({"NAVIGLIO_HOME": str(tmp_path), "NAVIGLIO_PIPELINES": "~/pipelines"})
    assert (home.root, home.pipelines) == (tmp_path, Path.home() / "pipelines")


@pytest.mark.parametrize("name", ["a[1]", "a%41", "a|b", "a^b", "a\\b", "a*", "a\tb"])
def test_a_home_that_delta_would_not_find_is_refused(name: str, tmp_path: Path) -> None:
    """It takes parts of such a path for parts of a URL, and DuckDB for wildcards."""
    with pytest.raises(ConfigError, match="Choose another folder by NAVIGLIO_HOME"):
        Home.find({"NAVIGLIO_HOME": str(tmp_path / name)})


@pytest.mark.parametrize("name", ["a b", "a#b", "ü{x,y}", "a'b\"c", "$HOME~"])
def test_other_homes_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    """tests/unit/lake shows that tables lie well below them."""
    assert Home.find({"NAVIGLIO_HOME": str(tmp_path / name)}).root == tmp_path / name
