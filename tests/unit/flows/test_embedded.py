"""Which connections `start` may write: its own, and none that somebody pointed elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from naviglio.config.home import Home
from naviglio.connections.connections import Connections
from naviglio.flows import embedded

URLS = {
    "operations": "postgresql://naviglio_source:one@/operations?host=/a/socket&port=5432",
    "operations_app": "postgresql://operations_app:two@/operations?host=/a/socket&port=5432",
    "warehouse": "postgresql://naviglio_target:three@/warehouse?host=/a/socket&port=5432",
}


class Started:
    """A cluster that runs already."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def running(self) -> bool:
        """Say yes."""
        return True

    def start(self) -> None:
        """Do nothing: it runs."""

    def urls(self) -> dict[str, str]:
        """Return its addresses, the administrator's too."""
        return {**URLS, "admin": "postgresql://naviglio_admin:four@/postgres"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a running cluster."""
    monkeypatch.setattr("naviglio.adapters.postgres.embedded.Cluster", Started)
    return Home(root=tmp_path, pipelines=tmp_path)


def test_it_writes_its_connections_for_the_owner_alone(home: Home) -> None:
    """The report holds no password, the file no administrator."""
    report = embedded.start(home)
    assert set(report.connections) == set(URLS)
    assert not any(secret in str(report) for secret in ("one", "two", "three", "four"))
    assert Connections({}, home.connections).url("warehouse") == URLS["warehouse"]
    assert home.connections.stat().st_mode & 0o777 == 0o600
    assert "admin" not in home.connections.read_text()


def test_a_connection_that_points_elsewhere_is_left_alone(home: Home) -> None:
    """Somebody's own warehouse stays; a moved socket or a new password is written anew."""
    own = "postgresql://me:secret@db.example.com/warehouse"
    moved = "postgresql://naviglio_source:old@/operations?host=/b/socket&port=5432"
    Connections({}, home.connections).write({"warehouse": own, "operations": moved})
    report = embedded.start(home)
    assert report.kept == ("warehouse",)
    after = Connections({}, home.connections)
    assert after.url("warehouse") == own
    assert after.url("operations") == URLS["operations"]
