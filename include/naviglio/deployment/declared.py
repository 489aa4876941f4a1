"""What an Airflow must know before it works: its metadata's schema, connections, pools."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from naviglio.errors import ConfigError, TargetError
from naviglio.transform.cluster import HERE, SPARK, read

POOLS = {"naviglio_source": 2, "naviglio_target": 2, "naviglio_spark": 1}
_TYPES = {"postgresql": "postgres"}  # of Airflow, where the scheme is called otherwise
_PORTS = {"mssql": 1433}  # which Airflow's own hook for it needs to be told
_PLACE = ("host", "port")

Tell = Callable[[str], None]
Form = dict[str, object]


def migrate(environ: Mapping[str, str]) -> None:
    """Bring the metadata to the version of Airflow that is installed; it may be repeated."""
    run(["db", "migrate"], environ)


def declare(mark: Path, urls: Mapping[str, str], environ: Mapping[str, str], tell: Tell) -> None:
    """Declare the connections that are new or changed since the last time, and the pools once.

    What was changed in Airflow stays until its connection's URL changes; one whose URL has become
    unclear is taken out, lest runs go on by the old one. `mark` remembers digests: remove it when
    the metadata are new.
    """
    forms = connections(urls, environ.get("NAVIGLIO_SPARK_MASTER") or HERE, tell)
    digests = {conn_id: _digest(form) for conn_id, form in forms.items()}
    told: dict[str, str] = json.loads(mark.read_text()) if mark.exists() else {}
    new = {
        conn_id: form for conn_id, form in forms.items() if digests[conn_id] != told.get(conn_id)
    }
    first = not told
    unclear = [conn_id for conn_id in urls if conn_id in told and conn_id not in forms]
    for conn_id in unclear:
        run(["connections", "delete", conn_id], environ)
        del told[conn_id]
    if new:
        tell("declaring connections and pools" if first else f"declaring {', '.join(new)}")
        _import("connections", new, environ, mark.parent, "--overwrite")
        if first:
            _import("pools", pools(), environ, mark.parent)
    if new or unclear:
        mark.write_text(json.dumps(told | digests))


def connections(urls: Mapping[str, str], master: str, tell: Tell) -> dict[str, Form]:
    """Return Airflow's form of connections by id, and that of Spark; an unclear URL is left out.

    Spark's is the connection `spark_default` where there is one, else `master` alone.
    """
    made: dict[str, Form] = {SPARK: _spark(urls.get(SPARK, master))}
    for conn_id, url in urls.items():
        if conn_id == SPARK:
            continue
        try:
            made[conn_id] = _form(url)
        except ValueError:
            tell(f"connection {conn_id} is not declared in Airflow: its URL can't be taken apart")
    return made


def pools() -> dict[str, Form]:
    """Return Airflow's form of the pools that bound the work on each system."""
    return {
        name: {"slots": slots, "description": "", "include_deferred": False}
        for name, slots in POOLS.items()
    }


def run(arguments: list[str], environ: Mapping[str, str]) -> None:
    """Run a command of Airflow; TargetError tells the end of what a failed one says."""
    done = subprocess.run(
        [command(), *arguments], env=dict(environ), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise TargetError(
            f"`airflow {' '.join(arguments[:2])}` failed:\n{(done.stdout + done.stderr)[-2000:]}"
        )


def command() -> str:
    """Return the path of Airflow's command."""
    found = Path(sys.executable).with_name("airflow")
    if not found.exists():
        raise ConfigError(f"{found}: Airflow is not installed here. Run `make setup`.")
    return str(found)


def _form(url: str) -> Form:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    host, port = parts.hostname or options.get("host", ""), parts.port or options.get("port")
    if not parts.scheme or not (host or parts.path.strip("/")):  # a file has no host
        raise ValueError(parts.scheme)
    port = port or _PORTS.get(parts.scheme)
    form: Form = {
        "conn_type": _TYPES.get(parts.scheme, parts.scheme), "host": host,
        "login": unquote(parts.username or ""), "password": unquote(parts.password or ""),
        "schema": unquote(parts.path.lstrip("/")),
    }  # fmt: skip
    extra = {name: value for name, value in options.items() if name not in _PLACE}
    return form | ({"port": int(port)} if port else {}) | ({"extra": extra} if extra else {})


def _spark(url: str) -> Form:
    read(SPARK, url)  # ConfigError for what isn't known
    master, _, query = url.partition("?")
    extra = {"deploy-mode": "client", **dict(parse_qsl(query))}
    return {"conn_type": "spark", "host": master.rstrip("/"), "extra": extra}


def _import(
    what: str, declared: Mapping[str, Form], environ: Mapping[str, str], folder: Path, *how: str
) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=folder) as file:  # 0600
        json.dump(declared, file)
        file.flush()
        run([what, "import", *how, file.name], environ)


def _digest(form: Form) -> str:
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()
