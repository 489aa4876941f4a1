"""From a mssql:// URL to a connection of the vendor's driver, with its session pinned."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

import mssql_python
from mssql_python import Connection

from naviglio.adapters.mssql.errors import translated
from naviglio.errors import ConfigError, NaviglioError, SourceError, TargetError
from naviglio.pool import NAMES, Pool, Terms, Way, pool_of, taken

# The driver would keep every closed session for whoever connects next: its application locks would
# live on, and so would a user that it impersonates. Here a session that is closed ends.
mssql_python.pooling(enabled=False)

PORT = 1433
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
_ANSI = ("ANSI_NULLS", "ANSI_PADDING", "ANSI_WARNINGS", "ARITHABORT", "CONCAT_NULL_YIELDS_NULL",
         "QUOTED_IDENTIFIER")  # fmt: skip
_SCHEMES = ("mssql", "sqlserver")
REST = (
    "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """What a URL says: how to connect, how long to wait, and which sessions to keep."""

    text: str = field(repr=False)  # the driver's connection string: it holds the password
    server: str
    database: str
    terms: Terms

    @property
    def where(self) -> str:
        """Where it leads, for people: no user, no password."""
        return f"database {self.database!r} at {self.server}"

    @property
    def lock_timeout_s(self) -> int:
        """How long to wait for a lock, in seconds; 0 waits without end."""
        return self.terms.lock_timeout_s


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
    try:
        terms = taken(options)
    except ValueError as error:
        raise _unreadable(str(error)) from None
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
        **{_KEYWORDS[name]: value for name, value in options.items()},
    }
    if not said["PacketSize"].isdecimal() or int(said["PacketSize"]) not in _PACKET_BYTES:
        raise _unreadable(f"packet_size is from {_PACKET_BYTES.start} to {_PACKET_BYTES.stop - 1}")
    text = ";".join(f"{name}={_braced(value)}" for name, value in said.items())
    return Address(text=text, server=f"{host}:{port}", database=database, terms=terms)


def connect(
    url: str, *, lock_wait_s: float | None = None, owner: type[NaviglioError] = TargetError
) -> Connection:
    """Return an open connection in autocommit; `owner` acts on what only the server can mend."""
    said = address(url)
    with translated(said.where, owner):
        terms = said.terms
        connection = mssql_python.connect(said.text, autocommit=True, timeout=terms.login_timeout_s)
        try:
            wait_s = terms.lock_timeout_s if lock_wait_s is None else lock_wait_s
            connection.timeout = terms.statement_timeout_s
            for statement in settings(wait_s):
                connection.execute(statement).close()
        except BaseException:
            with suppress(mssql_python.Error):
                connection.close()
            raise
    return connection


def readers(url: str) -> Pool[Connection]:
    """Return the sessions of snapshots; one that rests has no transaction open."""
    said = address(url)
    way = Way(open=lambda: connect(url, owner=SourceError), wake=is_alive, rest=_rest)
    return pool_of("snapshot", url, way, said.terms, said.where)


def is_alive(connection: Connection) -> bool:
    """Ask the server whether a session that is between two steps is still there."""
    return _done(connection, "SELECT 1")


def _rest(connection: Connection) -> bool:
    return _done(connection, *REST)


def _done(connection: Connection, *statements: str) -> bool:
    try:
        for statement in statements:
            connection.execute(statement).close()
    except mssql_python.Error:
        return False
    return True


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
    if unknown := sorted(options.keys() - _KEYWORDS.keys() - {*NAMES}):
        known = ", ".join(sorted({*_KEYWORDS, *NAMES}))
        raise _unreadable(f"unknown parameter {unknown[0]!r}; known are {known}")


def _unreadable(why: str) -> ConfigError:
    return ConfigError(
        f"the connection's URL is not understood: {why}. Write "
        "mssql://USER:PASSWORD@HOST:1433/DATABASE, user and password percent-encoded."
    )


def _braced(value: str) -> str:
    """Return a value of the driver's connection string, whatever it holds."""
    return "{" + value.replace("}", "}}") + "}"
