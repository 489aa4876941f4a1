"""From a URL to a session."""

from __future__ import annotations

import socket
from typing import cast
from urllib.parse import quote as percent

import mssql_python
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mssql_python import Connection
from mssql_python.connection_string_parser import _ConnectionStringParser
from mssql_python.pooling import PoolingManager

from naviglio.adapters.mssql.session import REST, _rest, address, connect, is_alive, settings
from naviglio.errors import ConfigError, NaviglioError
from naviglio.pool import Terms
from tests.unit.adapters.mssql.recorder import Recorder
from tests.unit.adapters.mssql.tsql import parsed

WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
)


def said(url: str) -> dict[str, str]:
    """Return what the driver's own parser reads in a URL's connection string."""
    read: dict[str, str] = _ConnectionStringParser(validate_keywords=True)._parse(address(url).text)
    return read


def test_safe_by_default() -> None:
    """TLS, the usual port, a packet that bulk copy can use, no session made again in silence."""
    assert said("mssql://u@h/d") == {
        "server": "tcp:h,1433", "database": "d", "uid": "u", "encrypt": "yes",
        "packetsize": "16384", "connectretrycount": "0",
    }  # fmt: skip


def test_what_a_url_may_say() -> None:
    """Port, certificates and timeouts."""
    url = (
        "mssql://u:p@[::1]:14330/d?encrypt=strict&trust_server_certificate=yes&lock_timeout=5"
        "&login_timeout=3&statement_timeout=600&packet_size=4200"
    )
    read = said(url)
    assert read["server"] == "tcp:::1,14330"
    assert (read["encrypt"], read["trustservercertificate"]) == ("strict", "yes")
    told = address(url)
    assert told.terms == Terms(lock_timeout_s=5, login_timeout_s=3, statement_timeout_s=600)


@given(WORDS, WORDS, WORDS)
def test_user_password_and_database_are_only_values(
    user: str, password: str, database: str
) -> None:
    """Whatever stands in them adds no keyword to the driver's connection string."""
    if "/" in database:
        return
    url = f"mssql://{percent(user, '')}:{percent(password, '')}@h/{percent(database, '')}"
    read = said(url)
    assert (read["uid"], read["pwd"], read["database"]) == (user, password, database)
    assert read["encrypt"] == "yes"
    assert not repr(address(url)).startswith("Address(text=")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mssql://u:secret@h", "names no database"),
        ("mssql://u:secret@h/d?pwd=secret", "unknown parameter 'pwd'"),
        ("mssql://u:secret@h/d?packet_size=4096", "packet_size is from 4200"),
        ("mssql://u:secret@h/d?lock_timeout=-1", "lock_timeout is a number"),
        ("mssql://u:secret@h:x/d", "can't be taken apart"),
        ("mssql://u:sec#ret@h/d", "percent-encoded"),
        ("postgres://u:secret@h/d", "no host"),
    ],
)
def test_what_is_not_understood(url: str, why: str) -> None:
    """It says why and how to write it, and never shows the password."""
    with pytest.raises(ConfigError, match=why) as caught:
        address(url)
    assert "secret" not in str(caught.value)
    assert "mssql://USER:PASSWORD" in str(caught.value)


def test_the_session_is_pinned() -> None:
    """Every setting is understood; waiting for a lock always ends, unless it is said not to."""
    for statement in settings(60):
        parsed(statement)
    assert "SET XACT_ABORT ON" in settings(60)
    assert "SET LOCK_TIMEOUT 60000" in settings(60)
    assert "SET LOCK_TIMEOUT 50" in settings(0.05)


def test_a_closed_session_ends() -> None:
    """The driver's own pool would keep it, with its locks and whom it acts as, for anybody."""
    assert not PoolingManager.is_enabled()
    assert PoolingManager.is_initialized()  # so that no connection turns it on


def test_a_session_that_rests_has_no_transaction_and_is_asked_before_use() -> None:
    """Whatever its snapshot set; one that can't be laid to rest, or is gone, is not lent again."""
    for statement in REST:
        parsed(statement)
    recorder = Recorder()
    session = cast("Connection", recorder)
    assert is_alive(session)
    assert _rest(session)
    assert recorder.calls == ["SELECT 1", *REST]
    gone = cast("Connection", Recorder(lambda _: mssql_python.OperationalError("gone", "")))
    assert not is_alive(gone)
    assert not _rest(gone)


def test_no_server() -> None:
    """A server that is away, or a driver that can't be loaded, is told without the password."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(NaviglioError, match=f"database 'd' at 127.0.0.1:{port}: ") as caught:
        connect(f"mssql://u:secret@127.0.0.1:{port}/d?login_timeout=2")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
