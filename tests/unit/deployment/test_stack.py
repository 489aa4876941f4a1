"""The first steps of a stack of containers: passwords that stay, connections that others own."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from naviglio.adapters.postgres import roles
from naviglio.config.home import Home
from naviglio.connections.connections import Connections
from naviglio.deployment import stack
from naviglio.errors import ConfigError, RetryableError

SECRETS = {
    "airflow_database_url": "postgresql+psycopg://airflow:air%2Fflow@postgres:5432/airflow\n",
    "postgres_password": "ad/min\n",
}


class Server:
    """What the server was asked for."""

    def __init__(self, *new: str) -> None:
        self.new = set(new)
        self.urls: list[str] = []
        self.passwords: list[dict[str, str]] = []

    def set_up(self, admin_url: str, passwords: dict[str, str]) -> set[str]:
        """Remember it; say which databases were made."""
        self.urls.append(admin_url)
        self.passwords.append(dict(passwords))
        made, self.new = self.new, set()
        return made


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that has nothing yet."""
    made = Server("airflow", "operations", "warehouse")
    monkeypatch.setattr(roles, "set_up", made.set_up)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the secrets."""
    for name, secret in SECRETS.items():
        (tmp_path / name).write_text(secret)
    return tmp_path


def test_passwords_stay_from_start_to_start(server: Server, folder: Path) -> None:
    """The second start finds Airflow's database and sets the same passwords again."""
    home = Home(root=folder / "home", pipelines=folder)
    assert stack.make_databases(home, folder)
    assert not stack.make_databases(home, folder)
    first, second = server.passwords
    assert first == second
    assert first["airflow"] == "air/flow"
    assert set(first) == {"airflow", "naviglio_source", "operations_app", "naviglio_target"}
    assert len(set(first.values())) == 4
    assert unquote(urlsplit(server.urls[0]).password or "") == "ad/min"
    told = Connections({}, home.connections).stored()
    assert unquote(urlsplit(told["warehouse"]).password or "") == first["naviglio_target"]
    assert urlsplit(told["operations"]).hostname == "postgres"


def test_a_connection_that_points_elsewhere_is_left_alone(server: Server, folder: Path) -> None:
    """Somebody's own warehouse stays, and its password goes to no role of ours."""
    home = Home(root=folder / "home", pipelines=folder)
    own = "postgresql://me:theirs@db.example.com/warehouse"
    Connections({}, home.connections).write({"warehouse": own})
    stack.make_databases(home, folder)
    assert Connections({}, home.connections).stored()["warehouse"] == own
    assert "theirs" not in server.passwords[0].values()


@pytest.mark.usefixtures("server")
def test_a_missing_secret_is_named(folder: Path) -> None:
    """The message names the file and the script that makes it."""
    (folder / "postgres_password").unlink()
    with pytest.raises(ConfigError, match=r"postgres_password.*docker/secrets\.sh"):
        stack.make_databases(Home(root=folder / "home", pipelines=folder), folder)


def test_a_server_away_is_told_without_its_password(folder: Path) -> None:
    """Trying again may mend it; nothing of the secrets is in the message."""
    url = SECRETS["airflow_database_url"].replace("postgres:5432", "127.0.0.1:1")
    (folder / "airflow_database_url").write_text(url)
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1:1") as raised:
        stack.make_databases(Home(root=folder / "home", pipelines=folder), folder)
    assert "min" not in str(raised.value)
