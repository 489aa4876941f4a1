"""Airflow's own test of a connection, as its button and `airflow connections test` do it."""

from __future__ import annotations

import socket
from typing import Any, Protocol

import pytest
from airflow.models import Connection  # noqa: TID251 - the code path under test is this class's
from psycopg.conninfo import conninfo_to_dict

from naviglio.adapters.postgres.embedded import Cluster
from naviglio_airflow.hooks import MssqlHook

# Airflow's own code for the button still asks the manager that Airflow calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")


class Button(Protocol):
    """What a user presses."""

    def __call__(self, **said: Any) -> tuple[bool, str]:
        """Return whether it works, and what Airflow shows."""
        ...


@pytest.fixture
def button(monkeypatch: pytest.MonkeyPatch) -> Button:
    """Test a connection as the API's route does: its URI in the environment, its hook asked."""

    def press(**said: Any) -> tuple[bool, str]:
        connection = Connection(conn_id="tested", **said)
        monkeypatch.setenv("AIRFLOW_CONN_TESTED", connection.get_uri())
        works, message = connection.test_connection()  # type: ignore[no-untyped-call]  # no types
        return bool(works), str(message)

    return press


def test_a_postgresql_connection(cluster: Cluster, button: Button) -> None:
    """The one that a pipeline takes by its id; and a wrong password is told, and not shown."""
    at = conninfo_to_dict(cluster.urls()["operations"])
    said = {
        "conn_type": "postgres", "host": at["host"], "port": int(str(at["port"])),
        "schema": at["dbname"], "login": at["user"], "password": at["password"],
    }  # fmt: skip
    assert button(**said) == (True, "Connection successfully tested")
    works, message = button(**{**said, "password": "s3cret"})
    assert not works
    assert "password authentication failed" in message
    assert "s3cret" not in message


def test_a_sql_server_that_is_away(button: Button) -> None:
    """Our hook is found by the connection's type; address and cause are told, no password."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    said = {
        "conn_type": MssqlHook.conn_type, "host": "127.0.0.1", "port": port, "schema": "d",
        "login": "u", "password": "s3cret", "extra": '{"login_timeout": 2}',
    }  # fmt: skip
    works, message = button(**said)
    assert not works
    assert f"database 'd' at 127.0.0.1:{port}: " in message
    # the second where the ODBC driver's own libraries are missing, as on a bare machine
    assert "the connection is refused" in message or "the driver can't be loaded" in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ('{"encrpt": "yes"}', "unknown parameter 'encrpt'"),
        ('{"lock_timeout": "x"}', "lock_timeout is a num"),
    ],
)
def test_a_connection_that_is_not_understood(button: Button, extra: str, told: str) -> None:
    """It is said before anything is connected, and the extra's mistake is named."""
    works, message = button(
        conn_type=MssqlHook.conn_type, host="h", schema="d", login="u", password="s3cret",
        extra=extra,
    )  # fmt: skip
    assert not works
    assert told in message
    assert "s3cret" not in message
