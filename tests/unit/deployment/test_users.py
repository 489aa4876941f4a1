"""Who may log in to the embedded Airflow."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from naviglio.config.home import Home
from naviglio.deployment import airflow, settings, users
from naviglio.deployment.settings import Place
from naviglio.errors import ConfigError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An Airflow that was started once."""
    made = Place(home=Home(root=tmp_path, pipelines=tmp_path), port=8080)
    settings.make_secrets(made)
    return made


def test_a_user_is_added_once_and_changed_and_removed(place: Place) -> None:
    """Another role keeps the password; both files stay their owner's alone."""
    assert users.setting(place) == "admin:admin"
    word = users.add(place, "ann", "viewer")
    assert users.add(place, "ann", "user") == users.password(place, "ann") == word
    assert users.setting(place) == "admin:admin,ann:user"
    for name in ("users.json", "passwords.json"):
        assert stat.S_IMODE((place.folder / name).stat().st_mode) == 0o600
    users.remove(place, "ann")
    assert users.setting(place) == "admin:admin"
    with pytest.raises(ConfigError, match="no user 'ann'; it has admin"):
        users.password(place, "ann")


@pytest.mark.parametrize(
    ("name", "role", "said"),
    [
        ("ann:admin", "viewer", "letters"),
        ("ann,eve", "viewer", "letters"),
        ("ann", "owner", "none of viewer, user, op, admin"),
        ("admin", "viewer", "stays its admin"),
    ],
)
def test_what_airflow_would_misread_is_refused(
    place: Place, name: str, role: str, said: str
) -> None:
    """No name slips a role in; the start's own login stays what it is."""
    with pytest.raises(ConfigError, match=said):
        users.add(place, name, role)
    assert users.setting(place) == "admin:admin"


def test_nobody_is_added_before_the_first_start(tmp_path: Path) -> None:
    """The message says what to run."""
    place = Place(home=Home(root=tmp_path, pipelines=tmp_path), port=8080)
    for ask in (lambda: users.add(place, "ann", "user"), lambda: airflow.command_of(place)):
        with pytest.raises(ConfigError, match="naviglio airflow start"):
            ask()


def test_only_the_api_server_is_told_of_users(place: Place) -> None:
    """So a new user starts nothing anew but it."""
    before = {name: airflow._told(place, "postgresql://h/d", name) for name in airflow.NAMES}
    users.add(place, "ann", "viewer")
    after = {name: airflow._told(place, "postgresql://h/d", name) for name in airflow.NAMES}
    assert [name for name in airflow.NAMES if before[name] != after[name]] == ["api-server"]
