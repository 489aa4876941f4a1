"""Where a secret of the embedded servers stands in clear, after an Airflow has worked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg

from naviglio.config.home import Home
from naviglio.flows import embedded

# What holds secrets by design; all of it is open to its owner only.
VAULTS = {"airflow/secrets.json", "airflow/passwords.json", "connections.yaml"}
SERVER = "postgres"  # its folder: the cluster encrypts or hashes what it keeps; its log is read


def leaks(home: Home) -> set[str]:
    """Return the files of a home, and the tables of Airflow's metadata, that show a secret.

    Logs, XComs, rendered fields, events and notes are all among them.
    """
    secrets = set(_secrets(home))
    places = {**dict(_files(home.root)), **dict(_tables(embedded.urls(home)["airflow_db"]))}
    assert any(name.endswith("attempt=1.log") for name in places)
    assert places["xcom"]
    assert places["rendered_task_instance_fields"]
    return {name for name, text in places.items() if any(secret in text for secret in secrets)}


def _secrets(home: Home) -> Iterator[str]:
    for url in embedded.urls(home).values():
        yield unquote(urlsplit(url).password or "")
    for name in ("secrets.json", "passwords.json"):
        yield from json.loads((home.root / "airflow" / name).read_text()).values()


def _files(root: Path) -> Iterator[tuple[str, str]]:
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_file() and name not in VAULTS and not name.startswith(f"{SERVER}/"):
            yield name, path.read_text("latin-1")
    yield f"{SERVER}/server.log", (root / SERVER / "server.log").read_text("latin-1")


def _tables(url: str) -> Iterator[tuple[str, str]]:
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (name,) in names:
            rows = connection.execute(f'SELECT t::text FROM "{name}" t'.encode()).fetchall()
            yield str(name), "\n".join(row for (row,) in rows)
