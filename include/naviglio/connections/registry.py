"""The one list of adapters: a line each, imported when one of its connections is opened."""

from __future__ import annotations

import importlib
from types import ModuleType

from naviglio.connections.connections import Urls
from naviglio.connections.urls import doubled_at, misread_port, scheme_of
from naviglio.errors import ConfigError
from naviglio.known import known_all
from naviglio.ports import Source, Target

ADAPTERS = {
    "postgresql": "naviglio.adapters.postgres",
    "postgres": "naviglio.adapters.postgres",
    "mssql": "naviglio.adapters.mssql",
    "duckdb": "naviglio.adapters.duckdb",
}


def open_source(conn_id: str, connections: Urls) -> Source:
    """Open the connection `conn_id` to read from; ConfigError for an id or scheme not known."""
    url = connections.url(conn_id)
    source: Source = _adapter(conn_id, url).open_source(url)
    return source


def open_target(conn_id: str, connections: Urls, run_as: str = "") -> Target:
    """Open the connection `conn_id` to write to; ConfigError for an id or scheme not known.

    What a transaction of the target does, the principal `run_as` does where one is named;
    ConfigError where the system has no principals.
    """
    url = connections.url(conn_id)
    adapter = _adapter(conn_id, url)
    if run_as and not getattr(adapter, "IMPERSONATES", False):
        raise ConfigError(
            f"connection {conn_id!r}: a {scheme_of(url)} database has no principals to run as. "
            f"Remove `run_as: {run_as}`."
        )
    opened: Target = adapter.open_target(url, run_as) if run_as else adapter.open_target(url)
    return opened


def _adapter(conn_id: str, url: str) -> ModuleType:
    scheme = scheme_of(url)
    if scheme not in ADAPTERS:
        raise ConfigError(
            f"connection {conn_id!r}: no adapter for "
            f"{f'scheme {scheme!r}' if scheme else 'a URL without a scheme'}; "
            f"{known_all(ADAPTERS, scheme)} Write SCHEME://USER:PASSWORD@HOST:PORT/DATABASE."
        )
    escape = "If the password holds one of / ? # @ : % write it as %2F %3F %23 %40 %3A %25."
    if misread_port(url):
        raise ConfigError(f"connection {conn_id!r}: the port in its URL is no number. {escape}")
    if doubled_at(url):
        raise ConfigError(f"connection {conn_id!r}: its URL has more than one `@`. {escape}")
    return importlib.import_module(ADAPTERS[scheme])
