"""SQL Server's hook: ordinary connections, errors by who acts next."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mssql_python
import pytest
from airflow.providers_manager import _create_provider_info_schema_validator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from naviglio.adapters.mssql.session import address
from naviglio.deployment.provider import provider_info
from naviglio_airflow import hooks
from naviglio_airflow.connections import AirflowConnections
from naviglio_airflow.hooks import MssqlHook
from tests.unit.adapters.mssql.recorder import Recorder

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
URL = os.environ.get("NAVIGLIO_TEST_MSSQL", "")


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declare the connection `w` of Airflow."""

    def declare(**more: Any) -> None:
        said = {"conn_type": "mssql", "host": "h", "schema": "d", "login": "u",
                "password": "s3c/ret", **more}  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_W", json.dumps(said))

    return declare


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Recorder, list[str]]]:
    """Put a recorder in the driver's place; return it, and the URLs that were opened."""

    def open_(answer: Any = lambda _: [(1,)]) -> tuple[Recorder, list[str]]:
        recorder, urls = Recorder(answer), []

        def connect(url: str, **_: Any) -> mssql_python.Connection:
            urls.append(url)
            return cast("mssql_python.Connection", recorder)

        monkeypatch.setattr(hooks, "connect", connect)
        return recorder, urls

    return open_


def test_an_ordinary_connection_is_enough(declared: Any, opened: Any) -> None:
    """Port 1433 where none is said, TLS on, and what only SQLAlchemy reads is left out."""
    _, urls = opened()
    declared(extra={"sqlalchemy_scheme": "mssql+pymssql", "login_timeout": 3})
    MssqlHook(mssql_conn_id="w").get_conn()
    said = address(urls[0])
    assert "Server={tcp:h,1433}" in said.text
    assert "Encrypt={yes}" in said.text
    assert "PWD={s3c/ret}" in said.text
    assert said.terms.login_timeout_s == 3
    declared(port=1500, conn_type="mssqlpython", extra={"encrypt": "strict"})
    MssqlHook(mssql_conn_id="w").get_conn()
    assert "Server={tcp:h,1500}" in address(urls[1]).text
    assert "Encrypt={strict}" in address(urls[1]).text


def test_either_type_leads_to_the_adapter(declared: Any) -> None:
    """A pipeline takes the connection by its id, whichever type it was declared with."""
    others = cast("Any", None)
    for kind in ("mssql", "mssqlpython"):
        declared(conn_type=kind)
        assert AirflowConnections(others).url("w") == "mssql://u:s3c%2Fret@h/d"


def test_statements_and_rows(declared: Any, opened: Any) -> None:
    """Parameters are bound, rows are plain, a transaction ends with a commit."""
    declared()
    recorder, _ = opened()
    hook = MssqlHook(mssql_conn_id="w")
    assert hook.get_records("SELECT a FROM t WHERE b = ?", parameters=("x",)) == [(1,)]
    assert recorder.bound == [("x",)]
    hook.run("DELETE FROM t", autocommit=False)
    assert recorder.calls[-3:] == ["AUTOCOMMIT OFF", "DELETE FROM t", "COMMIT"]
    assert hook.placeholder == "?"


@pytest.mark.parametrize(
    ("words", "raised", "told"),
    [
        ("Transaction was deadlocked on lock and chosen as the deadlock victim", AirflowException,
         "1205"),
        ("Login failed for user 'u'.", AirflowFailException, "18456"),
        ("Could not allocate a new page for database 'd'", AirflowFailException, "1105"),
    ],
)  # fmt: skip
def test_only_what_trying_again_may_mend_is_retried(
    declared: Any, opened: Any, words: str, raised: type[Exception], told: str
) -> None:
    """The server's number is told."""
    declared()
    opened(lambda _: mssql_python.OperationalError("General error", words))
    with pytest.raises(raised, match=rf"database 'd'.*{told}") as caught:
        MssqlHook(mssql_conn_id="w").run("SELECT 1")
    assert type(caught.value) is raised


def test_the_test_button(declared: Any, opened: Any) -> None:
    """It says whether the server answers, and why not, without the password."""
    declared()
    opened(lambda _: [("loader", "d")])
    assert MssqlHook(mssql_conn_id="w").test_connection() == (
        True, "SQL Server answers 'loader' in database 'd'.",
    )  # fmt: skip
    opened(lambda _: mssql_python.OperationalError("General error", "Login failed for user 'u'."))
    works, message = MssqlHook(mssql_conn_id="w").test_connection()
    assert (works, "18456" in message, "s3c" in message) == (False, True, False)
    declared(schema="")
    works, message = MssqlHook(mssql_conn_id="w").test_connection()
    assert (works, "names no database" in message) == (False, True)


def test_airflow_is_told_of_the_type() -> None:
    """The entry point leads to information that Airflow's own schema accepts, and to the hook."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    (entry,) = project["entry-points"]["apache_airflow_provider"].values()
    assert entry == f"{provider_info.__module__}:{provider_info.__name__}"
    validator = _create_provider_info_schema_validator()  # type: ignore[no-untyped-call]
    validator.validate(provider_info())
    (kind,) = provider_info()["connection-types"]
    assert kind["hook-class-name"] == f"{MssqlHook.__module__}.{MssqlHook.__name__}"
    told = (kind["connection-type"], kind["hook-name"])
    assert told == (MssqlHook.conn_type, MssqlHook.hook_name)
    assert provider_info()["package-name"] == project["name"]


@pytest.mark.skipif(not URL, reason="NAVIGLIO_TEST_MSSQL is not set: the URL of a server to test")
def test_a_server_answers(declared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The button, and rows, on a real server."""
    monkeypatch.setenv("AIRFLOW_CONN_W", URL)
    hook = MssqlHook(mssql_conn_id="w")
    assert hook.test_connection()[0]
    assert hook.get_first("SELECT ? + 1", parameters=(1,)) == (2,)
