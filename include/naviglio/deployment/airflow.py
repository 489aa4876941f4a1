"""The embedded Airflow: four processes over the embedded PostgreSQL, on loopback only."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from urllib.parse import urlsplit

from naviglio.connections.connections import Connections
from naviglio.deployment import declared, users
from naviglio.deployment.declared import Tell
from naviglio.deployment.processes import Process, holder
from naviglio.deployment.settings import Place, environment, inherited, remember_port
from naviglio.errors import ConfigError, TargetError
from naviglio.flows import embedded
from naviglio.transform.spark import has_java

NAMES = ("api-server", "scheduler", "dag-processor", "triggerer")
_PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")
_OPTIONS = {"scheduler": ["--skip-serve-logs"], "triggerer": ["--skip-serve-logs"]}
_DECLARED = "declared.json"
_START_LIMIT_S = 180.0


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
    if not has_java(os.environ):
        tell("no Java is here: transforms will fail; install Java 17 or newer, or set JAVA_HOME")
    embedded.start(place.home)
    with _alone(place):
        urls = embedded.urls(place.home)
        for name in NAMES:
            Process(place.folder, name).bound_log()
        told = {name: _told(place, urls["airflow_db"], name) for name in NAMES}
        environ = inherited(os.environ)
        missing = _missing(place, told, tell)
        if "api-server" in missing:
            _check_port(place)
        remember_port(place)
        if missing:
            _migrate(place, urls, environ | told["scheduler"], tell)
        _declare(place, urls, environ | told["scheduler"], tell)
        since = datetime.now(UTC) if missing else datetime.min.replace(tzinfo=UTC)
        for name in missing:
            tell(f"starting {name}")
            command = [declared.command(), name, *_OPTIONS.get(name, ())]
            Process(place.folder, name).start(command, environ, told[name])
        _wait_until_healthy(place, since, tell)
    return status(place)


def stop(place: Place) -> bool:
    """End the four processes and their children; tell whether any lived."""
    if not place.folder.exists():
        return False
    with _alone(place):
        return any([Process(place.folder, name).stop() for name in reversed(NAMES)])


def command_of(place: Place) -> tuple[str, dict[str, str]]:
    """Return Airflow's own command, and the environment in which it means this Airflow.

    Raises `ConfigError` where none was started yet, or its database is stopped.
    """
    if not (place.folder / "migrated").exists():
        raise ConfigError(
            f"{place.folder}: no Airflow was started here yet. Run `naviglio airflow start`."
        )
    if not embedded.running(place.home):
        raise ConfigError("the embedded PostgreSQL is stopped. Run `naviglio airflow start`.")
    told = _told(place, embedded.urls(place.home)["airflow_db"], "scheduler")
    return declared.command(), inherited(os.environ) | told


def _told(place: Place, database: str, name: str) -> dict[str, str]:
    """Return what a process is told; who may log in concerns the api-server alone."""
    told = environment(place, database)
    if name == "api-server":
        told["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = users.setting(place)
    return told


def _missing(place: Place, told: Mapping[str, dict[str, str]], tell: Tell) -> list[str]:
    """Return what doesn't run, having ended what was told otherwise: moved, or of another port."""
    processes = [Process(place.folder, name) for name in NAMES]
    for process in processes:
        if process.found() and not process.told(told[process.name]):
            tell(f"ending {process.name}, which was started with other settings")
            process.stop()
    return [process.name for process in processes if process.found() is None]


def _migrate(place: Place, urls: Mapping[str, str], environ: Mapping[str, str], tell: Tell) -> None:
    """Bring the metadata to this version; what was declared in others is forgotten."""
    mark = place.folder / "migrated"
    # The password tells one cluster from another, and stays when the home moves.
    cluster = sha256((urlsplit(urls["airflow_db"]).password or "").encode()).hexdigest()
    now = f"{version('apache-airflow')} {cluster}"
    if not mark.exists() or mark.read_text() != now:
        tell("migrating the metadata")
        declared.migrate(environ)
        (place.folder / _DECLARED).unlink(missing_ok=True)
        mark.write_text(now)


def _declare(place: Place, urls: Mapping[str, str], environ: Mapping[str, str], tell: Tell) -> None:
    """Tell Airflow of the connections that are new or changed, also while it runs."""
    ours = {conn_id: urls[conn_id] for conn_id in embedded.IDS}
    stored = Connections({}, place.home.connections).stored()
    declared.declare(place.folder / _DECLARED, ours | stored, environ, tell)


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


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(place.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
