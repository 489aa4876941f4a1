"""What the real driver sends, and what it makes of a server's errors, over a wire of our own."""

from __future__ import annotations

import socket
import time

import mssql_python
import pytest

from naviglio.adapters.mssql import impersonation
from naviglio.adapters.mssql.errors import is_lost, number_of, translate
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.session import connect, is_alive, readers, settings
from naviglio.errors import ConfigError, NaviglioError, RetryableError, TargetError
from tests.unit.adapters.mssql.tds import BATCH, Server, done, number, refusal, serving
from tests.unit.adapters.mssql.test_errors import CASES

LOGIN = (18456, 18452, 4060, 18401, 17142, 916, 911)  # told while one logs in


def _loads() -> bool:
    """Tell whether the driver finds the system's libraries that its ODBC part needs."""
    try:
        mssql_python.connect("Server={tcp:127.0.0.1,1};Encrypt={no}", timeout=1)
    except mssql_python.Error as error:
        return "Failed to load the driver" not in str(error)
    return True


pytestmark = pytest.mark.skipif(
    not _loads(), reason="the driver can't be loaded: libltdl7 or libgssapi-krb5-2 is not installed"
)


def one(text: str) -> bytes:
    """Answer 1 to a query, and that it is done to all else."""
    return number(1) if "SELECT" in text else done(text)


def gone(server: Server) -> bool:
    """Tell whether everybody has left, soon."""
    for _ in range(100):
        if not server.open:
            return True
        time.sleep(0.02)
    return False


def test_a_session_is_pinned_as_it_is_said() -> None:
    """Each setting is a batch of its own, in order."""
    with serving(Server()) as server:
        connect(server.url("encrypt=no&lock_timeout=7")).close()
        assert server.heard == [(BATCH, statement) for statement in settings(7)]


def test_a_closed_session_ends() -> None:
    """The server sees it go: the driver's own pool is off."""
    with serving(Server()) as server:
        connection = connect(server.url())
        assert len(server.open) == 1
        connection.close()
        assert gone(server)


def test_a_kept_session_is_asked_laid_to_rest_and_ended() -> None:
    """One login for two snapshots; a session whose server has gone away is made again."""
    with serving(Server(one)) as server:
        pool = readers(server.url())
        with pool.session() as first:
            assert fetch(first, "SELECT 1") == [(1,)]
        with pool.session() as second:
            assert second is first
        for client in set(server.open):
            client.shutdown(2)
        with pool.session() as third:
            assert third is not first
            assert is_alive(third)
        pool.close()
        assert gone(server)


@pytest.mark.parametrize(("error", "text", "kind"), [(n, text, kind) for n, _, text, kind in CASES])
def test_who_acts_on_each_number(error: int, text: str, kind: type[NaviglioError]) -> None:
    """As the driver hands on what a server says by this number: at the login, or later."""
    refused = refusal(error, text)
    if error in LOGIN:
        with serving(Server(login=refused)) as server, pytest.raises(NaviglioError) as caught:
            connect(server.url())
        told: NaviglioError = caught.value
    else:
        with serving(Server(lambda said: refused if said == "x" else done(said))) as server:
            connection = connect(server.url())
            with pytest.raises(mssql_python.Error) as raised:
                connection.execute("x")
            connection.close()
        assert number_of(raised.value) == error
        told = translate(raised.value, "w", TargetError)
    assert type(told) is kind
    assert f"(error {error})" in str(told)
    assert "secret" not in str(told)


def test_the_tls_that_is_not_there_is_never_left_out() -> None:
    """It is on unless the URL says otherwise; a server without it is for the configuration."""
    with serving(Server()) as server, pytest.raises(ConfigError, match="ncryption"):
        connect(server.url("encrypt=yes"))
    with serving(Server()) as server, pytest.raises(ConfigError, match="ncryption"):
        connect(server.url("lock_timeout=1"))


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    """A login ends after `login_timeout`."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(RetryableError):
            connect(f"mssql://u:p@127.0.0.1:{silent.getsockname()[1]}/d?login_timeout=2")
        assert time.monotonic() - begun < 30


def test_impersonation_is_sent_as_batches() -> None:
    """A statement with parameters would be another kind of packet, whose end reverts."""
    with serving(Server(one)) as server:
        connection = connect(server.url())
        server.heard.clear()
        fetch(connection, impersonation.execute_as("o'x"))
        fetch(connection, impersonation.revert(b"\1\xff"))
        connection.close()
        assert server.heard[:2] == [
            (BATCH, impersonation.execute_as("o'x")), (BATCH, impersonation.revert(b"\1\xff")),
        ]  # fmt: skip


def test_a_server_that_goes_away_in_a_statement_is_lost() -> None:
    """To be tried again, over another session."""
    with serving(Server(lambda text: b"" if text == "x" else done(text))) as server:
        connection = connect(server.url())
        with pytest.raises(mssql_python.Error) as raised:
            connection.execute("x")
        assert is_lost(raised.value)
        assert type(translate(raised.value, "w", TargetError)) is RetryableError
        assert not is_alive(connection)
        connection.close()
