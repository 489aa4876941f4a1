"""Airflow's connections as the URLs that adapters take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

if TYPE_CHECKING:
    from naviglio.connections.connections import Urls

_SCHEMES = {"postgres": "postgresql", "mssqlpython": "mssql"}
# Keys that forms of the UI add to an extra, and those that only other hooks read.
_HIDDEN = ("__", "sqlalchemy_", "placeholder")


@dataclass(frozen=True)
class AirflowConnections:
    """Connections of Airflow by id; those that it doesn't know are asked of `others`."""

    others: Urls

    def url(self, conn_id: str) -> str:
        """Return the URL of a connection; ConfigError when nobody knows it."""
        try:
            return url_of(Connection.get(conn_id))
        except AirflowNotFoundException:
            return self.others.url(conn_id)


def url_of(connection: Connection) -> str:
    """Return a connection as SCHEME://USER:PASSWORD@HOST:PORT/DATABASE?OPTIONS.

    A host that is a folder (of a server's socket) and a port beside it become options.
    """
    kind = connection.conn_type or ""
    scheme = _SCHEMES.get(kind, kind)
    options = {
        key: str(value)
        for key, value in connection.extra_dejson.items()
        if not key.startswith(_HIDDEN) and isinstance(value, str | int | float)
    }
    host, port = connection.host or "", connection.port
    if host.startswith("/"):
        options["host"], host = host, ""
        if port:
            options["port"], port = str(port), None
    user = quote(connection.login or "", safe="")
    password = f":{quote(connection.password, safe='')}" if connection.password else ""
    place = f"{user}{password}@" if user else ""
    place += f"[{host}]" if ":" in host else host
    place += f":{port}" if port else ""
    database = quote((connection.schema or "").removeprefix("/"), safe="")  # a file has the slash
    return f"{scheme}://{place}/{database}" + (
        f"?{urlencode(options, quote_via=quote)}" if options else ""
    )
