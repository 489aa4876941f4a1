"""What a stack of containers needs before its processes start: run once at each start of it.

`python -m naviglio.deployment.stack` makes roles and databases in its PostgreSQL, writes their
connections into the home, migrates Airflow's metadata, declares connections and pools. Secrets
come from files, which NAVIGLIO_SECRETS names the folder of.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from naviglio.adapters.postgres import roles
from naviglio.adapters.postgres.errors import translated
from naviglio.config.home import Home
from naviglio.connections.connections import Connections
from naviglio.deployment import declared
from naviglio.deployment.declared import Tell
from naviglio.errors import ConfigError, NaviglioError, TargetError
from naviglio.flows import embedded


def prepare(environ: Mapping[str, str], tell: Tell) -> None:
    """Do all of it; every step may be repeated."""
    home = Home.find(environ)
    folder = Path(environ.get("NAVIGLIO_SECRETS") or "/run/secrets")
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    tell("making roles and databases")
    mark = home.root / "airflow-declared.json"
    if make_databases(home, folder):
        mark.unlink(missing_ok=True)
    tell("migrating the metadata")
    declared.migrate(environ)
    urls = Connections({}, home.connections).stored()
    declared.declare(mark, urls, environ, tell)


def make_databases(home: Home, folder: Path) -> bool:
    """Make roles and databases, write connections down; tell whether Airflow's database is new."""
    airflow = urlsplit(_secret(folder, "airflow_database_url"))
    server = f"{airflow.hostname}:{airflow.port or 5432}"
    admin = quote(_secret(folder, "postgres_password"), safe="")
    urls, passwords = {}, {airflow.username or "airflow": unquote(airflow.password or "")}
    for conn_id in embedded.IDS:
        role, database = roles.LOGINS[conn_id]
        password = _kept(home, conn_id, server) or secrets.token_urlsafe(24)
        passwords[role] = password
        urls[conn_id] = f"postgresql://{role}:{quote(password, safe='')}@{server}/{database}"
    embedded.write_down(home, urls)  # first: a password that was set is never lost
    with translated(f"PostgreSQL at {server}", TargetError):
        made = roles.set_up(f"postgresql://{roles.ADMIN}:{admin}@{server}/postgres", passwords)
    return "airflow" in made


def _kept(home: Home, conn_id: str, server: str) -> str:
    """Return the password that an earlier start gave to our role at this server."""
    parts = urlsplit(Connections({}, home.connections).stored().get(conn_id, ""))
    ours = parts.username == roles.LOGINS[conn_id][0] and parts.netloc.endswith(f"@{server}")
    return unquote(parts.password or "") if ours else ""


def _secret(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text().strip()
    except OSError as problem:
        raise ConfigError(
            f"{folder / name}: {problem.strerror}. Run docker/secrets.sh, as the account that "
            "starts the stack."
        ) from problem


if __name__ == "__main__":
    try:
        prepare(os.environ, lambda line: print(line, flush=True))  # noqa: T201  # progress
    except NaviglioError as error:
        sys.exit(f"{type(error).__name__}: {error}")
