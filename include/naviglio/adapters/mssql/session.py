"""From a mssql:// URL to a connection of the vendor's driver, with its session pinned."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

import mssql_python
from mssql_python import Connection

from naviglio.adapters.mssql.errors import translated
from naviglio.errors import ConfigError, NaviglioError, TargetError

PORT = 1433
LOGIN_TIMEOUT_S = 15
LOCK_TIMEOUT_S = 60
_PACKET_BYTES = range(4200, 32768)  # at 4096 the driver's bulk copy fails
_PACKET_DEFAULT = 16384
# What the driver takes by its own name; TLS is on unless the URL says otherwise.
_KEYWORDS = {
    "encrypt": "Encrypt",
    "trust_server_certificate": "TrustServerCertificate",
    "host_name_in_certificate": "HostnameInCertificate",
    "server_certificate": "ServerCertificate",
    "authentication": "Authentication",
    "trusted_connection": "Trusted_Connection",
    "server_spn": "ServerSPN",
    "multi_subnet_failover": "MultiSubnetFailover",
    "application_intent": "ApplicationIntent",
    "ip_address_preference": "IpAddressPreference",
    "packet_size": "PacketSize",
}
_TIMEOUTS = {"login_timeout": LOGIN_TIMEOUT_S, "lock_timeout": LOCK_TIMEOUT_S,
             "statement_timeout": 0}  # fmt: skip
_ANSI = ("ANSI_NULLS", "ANSI_PADDING", "ANSI_WARNINGS", "ARITHABORT", "CONCAT_NULL_YIELDS_NULL",
         "QUOTED_IDENTIFIER")  # fmt: skip
_SCHEMES = ("mssql", "sqlserver")


@dataclass(frozen=True, kw_only=True)
class Address:
    """What a URL says: how to connect, and how long to wait (seconds, 0: without end)."""

    text: str = field(repr=False)  # the driver's connection string: it holds the password
    database: str
    login_timeout_s: int
    lock_timeout_s: int
    statement_timeout_s: int


def address(url: str) -> Address:
    """Return what a URL says; ConfigError, which never shows the URL, when it can't be read."""
    try:
        parts = urlsplit(url)
        port = parts.port or PORT
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
                       if parts.query else [])  # fmt: skip
    except ValueError:
        raise _unreadable("it can't be taken apart") from None
    database = unquote(parts.path.removeprefix("/"))
    _refuse(parts.scheme, parts.hostname, database, options, fragment=parts.fragment)
    timeouts = {name: _seconds(name, options, other) for name, other in _TIMEOUTS.items()}
    host = unquote(parts.hostname or "")
    said = {
        "Server": f"tcp:{host},{port}",
        "Database": database,
        "Encrypt": "yes",
        "PacketSize": str(_PACKET_DEFAULT),
        # A session that is silently made again has lost its locks and settings.
        "ConnectRetryCount": "0",
        **({"UID": unquote(parts.username)} if parts.username else {}),
        **({"PWD": unquote(parts.password)} if parts.password else {}),
        **{_KEYWORDS[name]: value for name, value in options.items() if name in _KEYWORDS},
    }
    if not said["PacketSize"].isdecimal() or int(said["PacketSize"]) not in _PACKET_BYTES:
        raise _unreadable(f"packet_size is from {_PACKET_BYTES.start} to {_PACKET_BYTES.stop - 1}")
    text = ";".join(f"{name}={_braced(value)}" for name, value in said.items())
    return Address(
        text=text, database=database, login_timeout_s=timeouts["login_timeout"],
        lock_timeout_s=timeouts["lock_timeout"], statement_timeout_s=timeouts["statement_timeout"],
    )  # fmt: skip


def connect(
    url: str, *, lock_wait_s: float | None = None, owner: type[NaviglioError] = TargetError
) -> Connection:
    """Return an open connection in autocommit; `owner` acts on what only the server can mend."""
    said = address(url)
    with translated(f"database {said.database!r}", owner):
        connection = mssql_python.connect(said.text, autocommit=True, timeout=said.login_timeout_s)
        try:
            wait_s = said.lock_timeout_s if lock_wait_s is None else lock_wait_s
            connection.timeout = said.statement_timeout_s
            for statement in settings(wait_s):
                connection.execute(statement).close()
        except BaseException:
            with suppress(mssql_python.Error):
                connection.close()
            raise
    return connection


def settings(lock_wait_s: float) -> tuple[str, ...]:
    """Return the statements that pin a session, whatever login, database and pool left there.

    The language decides how the server words its errors, by which errors.py knows them.
    """
    return (
        "SET LANGUAGE us_english",
        "SET DATEFORMAT ymd",
        "SET XACT_ABORT ON",  # any error ends the whole transaction
        f"SET LOCK_TIMEOUT {round(lock_wait_s * 1000) or -1}",
        *(f"SET {option} ON" for option in _ANSI),
        "SET NUMERIC_ROUNDABORT OFF",
        "SET TEXTSIZE -1",
        "SET IMPLICIT_TRANSACTIONS OFF",
        # The driver has its own application name; this one a DBA finds in sys.dm_exec_sessions.
        f"SET CONTEXT_INFO 0x{b'naviglio'.hex()}",
    )


def _refuse(
    scheme: str, host: str | None, database: str, options: Mapping[str, str], *, fragment: str
) -> None:
    if scheme.lower() not in _SCHEMES or not host or fragment:
        raise _unreadable("it has no host, or a part of it isn't percent-encoded")
    if not database or "/" in database:
        raise _unreadable("it names no database")
    if unknown := sorted(options.keys() - _KEYWORDS.keys() - _TIMEOUTS.keys()):
        known = ", ".join(sorted({*_KEYWORDS, *_TIMEOUTS}))
        raise _unreadable(f"unknown parameter {unknown[0]!r}; known are {known}")


def _seconds(name: str, options: Mapping[str, str], otherwise: int) -> int:
    text = options.get(name, str(otherwise))
    if not text.isdecimal():
        raise _unreadable(f"{name} is a number of whole seconds")
    return int(text)


def _unreadable(why: str) -> ConfigError:
    return ConfigError(
        f"the connection's URL is not understood: {why}. Write "
        "mssql://USER:PASSWORD@HOST:1433/DATABASE, user and password percent-encoded."
    )


def _braced(value: str) -> str:
    """Return a value of the driver's connection string, whatever it holds."""
    return "{" + value.replace("}", "}}") + "}"
