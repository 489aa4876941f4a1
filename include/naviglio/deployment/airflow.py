"""The embedded Airflow: four processes over the embedded PostgreSQL, on loopback only."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from naviglio.deployment.processes import Process, holder
from naviglio.deployment.settings import Place, environment
from naviglio.errors import ConfigError, TargetError
from naviglio.flows import embedded

NAMES = ("api-server", "scheduler", "dag-processor", "triggerer")
POOLS = {"naviglio_source": 2, "naviglio_target": 2, "naviglio_spark": 1}
_PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")
_START_LIMIT_S = 180.0

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class AirflowReport:
    """The processes of an embedded Airflow by name; None stands for one that doesn't run."""

    url: str
    folder: str
    processes: dict[str, int | None]

    @property
    def running(self) -> bool:
        """Whether all of them run."""
        return all(self.processes.values())


def status(place: Place) -> AirflowReport:
    """Tell which of the four processes live."""
    found = {name: Process(place.folder, name).found() for name in NAMES}
    return AirflowReport(
        url=place.url, folder=str(place.folder),
        processes={name: process.pid if process else None for name, process in found.items()},
    )  # fmt: skip


def start(place: Place, tell: Tell) -> AirflowReport:
    """Start the server and what is missing of the four processes; return when all are healthy.

    Raises `ConfigError` for a taken port and `TargetError`, with the end of its log, for a process
    that ends; what runs then goes on, so that the next start takes up from there.
    """
    embedded.start(place.home)
    with _alone(place):
        missing = [name for name, pid in status(place).processes.items() if pid is None]
        if "api-server" in missing:
            _check_port(place)
        urls = embedded.urls(place.home)
        environ = environment(place, urls["airflow_db"], os.environ)
        if missing:
            _prepare(place, urls, environ, tell)
        since = datetime.now(UTC) if missing else datetime.min.replace(tzinfo=UTC)
        for name in missing:
            tell(f"starting {name}")
            Process(place.folder, name).start([_airflow(), name], environ)
        _wait_until_healthy(place, since, tell)
    return status(place)


def stop(place: Place) -> bool:
    """End the four processes and their children; tell whether any lived."""
    if not place.folder.exists():
        return False
    with _alone(place):
        return any([Process(place.folder, name).stop() for name in reversed(NAMES)])


def _prepare(place: Place, urls: Mapping[str, str], environ: Mapping[str, str], tell: Tell) -> None:
    """Bring the metadata to this version, then add the connections and pools that are missing."""
    mark = place.folder / "migrated"
    now = f"{version('apache-airflow')} {urls['airflow_db'].rpartition('@')[2]}"
    if not mark.exists() or mark.read_text() != now:
        tell("migrating the metadata")
        _run(["db", "migrate"], environ)
        mark.write_text(now)
    ids = {conn_id: urls[conn_id] for conn_id in embedded.IDS}
    wanted = {"connections": connections(ids), "pools": pools()}
    mark = place.folder / "declared"
    if mark.exists() and mark.read_text() == repr(sorted(wanted["connections"])):
        return
    tell("declaring connections and pools")
    for what, declared in wanted.items():
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=place.folder) as file:  # 0600
            json.dump(declared, file)
            file.flush()
            _run([what, "import", file.name], environ)
    mark.write_text(repr(sorted(wanted["connections"])))


def connections(urls: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Return Airflow's form of the server's connections, and that of Spark."""
    from urllib.parse import parse_qs, unquote, urlsplit

    made: dict[str, dict[str, object]] = {
        "spark_default": {
            "conn_type": "spark", "host": "local[*]", "extra": {"deploy-mode": "client"}
        }
    }  # fmt: skip
    for conn_id, url in urls.items():
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        made[conn_id] = {
            "conn_type": "postgres", "host": parts.hostname or query["host"][0],
            "port": parts.port or int(query.get("port", ["5432"])[0]),
            "login": unquote(parts.username or ""), "password": unquote(parts.password or ""),
            "schema": parts.path.lstrip("/"),
        }  # fmt: skip
    return made


def pools() -> dict[str, dict[str, object]]:
    """Return Airflow's form of the pools that bound the work on each system."""
    return {
        name: {"slots": slots, "description": "", "include_deferred": False}
        for name, slots in POOLS.items()
    }


def _wait_until_healthy(place: Place, since: datetime, tell: Tell) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    said: list[str] = []
    while sick := _sick(place, since):
        for name in NAMES:
            process = Process(place.folder, name)
            if process.found() is None:
                raise TargetError(
                    f"Airflow's {name} ended. {process.log} ends so:\n{process.log_end()}"
                )
        if time.monotonic() > deadline:
            raise TargetError(
                f"Airflow is not healthy after {_START_LIMIT_S:.0f} s: {', '.join(sick)}. "
                f"See the logs in {place.folder / 'logs'}, or start again to go on waiting."
            )
        if sick != said:
            tell(f"waiting for {', '.join(sick)}")
            said = sick
        time.sleep(0.5)


def _sick(place: Place, since: datetime) -> list[str]:
    """Return the parts without a heartbeat since then: a killed one stays "healthy" for a while."""
    try:
        address = f"{place.url}/api/v2/monitor/health"
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310  # http of our own
            health = json.load(answer)
    except (OSError, ValueError):
        return ["api-server"]
    return [part for part in _PARTS if not _well(part, health.get(part) or {}, since)]


def _well(part: str, said: Mapping[str, str | None], since: datetime) -> bool:
    beat = said.get(f"latest_{part}_heartbeat")
    fresh = part == "metadatabase" or (beat is not None and datetime.fromisoformat(beat) > since)
    return fresh and said.get("status") == "healthy"


def _check_port(place: Place) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", place.port))
        except OSError as problem:
            raise ConfigError(
                f"port {place.port} of 127.0.0.1 is taken by {holder(place.port)}. Choose another: "
                "`naviglio airflow start --port 8081`, or set NAVIGLIO_AIRFLOW_PORT."
            ) from problem


def _airflow() -> str:
    command = Path(sys.executable).with_name("airflow")
    if not command.exists():
        raise ConfigError(f"{command}: Airflow is not installed here. Run `make setup`.")
    return str(command)


def _run(arguments: list[str], environ: Mapping[str, str]) -> None:
    done = subprocess.run(
        [_airflow(), *arguments], env=dict(environ), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise TargetError(
            f"`airflow {' '.join(arguments[:2])}` failed:\n{(done.stdout + done.stderr)[-2000:]}"
        )


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(place.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
