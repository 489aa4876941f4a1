"""The embedded database server: start it, write its connections down, stop it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from naviglio.config.home import Home
from naviglio.connections.connections import Connections
from naviglio.connections.urls import safe
from naviglio.errors import ConfigError

IDS = ("operations", "operations_app", "warehouse")


@dataclass(frozen=True, kw_only=True)
class ServerReport:
    """What `start` or `stop` found and did; addresses hold no password."""

    folder: str
    running: bool
    was_running: bool
    connections: dict[str, str]
    kept: tuple[str, ...] = ()  # ids that the file gives to another server; left alone


def start(home: Home) -> ServerReport:
    """Start the server unless it runs, and write its connections into the home's file."""
    from naviglio.adapters.postgres.embedded import Cluster

    cluster = Cluster(home.postgres)
    was_running = cluster.running()
    cluster.start()
    urls = {conn_id: url for conn_id, url in cluster.urls().items() if conn_id in IDS}
    kept = write_down(home, urls)
    ours = {conn_id: url for conn_id, url in urls.items() if conn_id not in kept}
    return ServerReport(
        folder=str(home.postgres), running=True, was_running=was_running,
        connections={conn_id: safe(url) for conn_id, url in ours.items()}, kept=kept,
    )  # fmt: skip


def stop(home: Home) -> ServerReport:
    """Stop the server if it runs."""
    from naviglio.adapters.postgres.embedded import Cluster

    cluster = Cluster(home.postgres)
    was_running = cluster.running()
    cluster.stop()
    return ServerReport(
        folder=str(home.postgres), running=False, was_running=was_running, connections={}
    )


def running(home: Home) -> bool:
    """Tell whether the server runs."""
    from naviglio.adapters.postgres.embedded import Cluster

    return Cluster(home.postgres).running()


def urls(home: Home) -> Mapping[str, str]:
    """Return the running server's own URLs by connection id, passwords in them."""
    from naviglio.adapters.postgres.embedded import Cluster

    return Cluster(home.postgres).urls()


def write_down(home: Home, urls: Mapping[str, str]) -> tuple[str, ...]:
    """Write connections into the home's file; return the ids that somebody pointed elsewhere.

    Those are left alone.
    """
    kept = _others(home, urls)
    ours = {conn_id: url for conn_id, url in urls.items() if conn_id not in kept}
    connections = Connections({}, home.connections)
    if any(_url(connections, conn_id) != url for conn_id, url in ours.items()):
        connections.write(ours)
    return kept


def _others(home: Home, urls: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids that somebody pointed elsewhere: at another account or another host."""
    connections = Connections({}, home.connections)
    found = {conn_id: _url(connections, conn_id) for conn_id in urls}
    return tuple(c for c, url in found.items() if url and _account(url) != _account(urls[c]))


def _url(connections: Connections, conn_id: str) -> str:
    """Return what the file says of an id; a file that can't be read is refused when written."""
    try:
        return connections.url(conn_id)
    except ConfigError:
        return ""


def _account(url: str) -> tuple[str | None, str | None, str]:
    parts = urlsplit(url)
    return parts.username, parts.hostname, parts.path
