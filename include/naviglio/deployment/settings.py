"""What the embedded Airflow is told: its secrets, made once, and its environment."""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from naviglio.config.home import Home
from naviglio.errors import ConfigError

ADMIN = "admin"
_PORT = 8080
_PORT_FILE = "port"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an embedded Airflow lives, and the address of its user interface."""

    home: Home
    port: int

    @property
    def folder(self) -> Path:
        """All that it writes: secrets, logs, ids of its processes."""
        return self.home.root / "airflow"

    @property
    def url(self) -> str:
        """The address of the user interface."""
        return f"http://127.0.0.1:{self.port}"


def place_of(home: Home, port: int | None, environ: Mapping[str, str]) -> Place:
    """Take the port that was asked for, NAVIGLIO_AIRFLOW_PORT, that of the last start, or 8080."""
    named = environ.get("NAVIGLIO_AIRFLOW_PORT")
    said = str(port or named or _last_port(home) or _PORT)
    if not said.isdigit() or not 0 < int(said) < 2**16:
        where = "NAVIGLIO_AIRFLOW_PORT" if named and not port else "the port"
        raise ConfigError(f"{where}: {said!r} is no port. Name one of 1 to 65535.")
    return Place(home=home, port=int(said))


def remember_port(place: Place) -> None:
    """Let the next start take this port when none is named."""
    (place.folder / _PORT_FILE).write_text(f"{place.port}\n")


def _last_port(home: Home) -> str:
    try:
        return (home.root / "airflow" / _PORT_FILE).read_text().strip()
    except OSError:
        return ""


def make_secrets(place: Place) -> dict[str, str]:
    """Return the secrets by the variables that carry them, made and kept 0600 the first time."""
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _made_once(place.folder / "passwords.json", {ADMIN: secrets.token_urlsafe(18)})
    return _made_once(
        place.folder / "secrets.json",
        {
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(48),
        },
    )


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what every process takes over from its starter: all but another Airflow's settings."""
    kept = {name: value for name, value in environ.items() if not name.startswith("AIRFLOW__")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
    return kept | {"PATH": path}


def environment(place: Place, database: str) -> dict[str, str]:
    """Return what every process of this Airflow is told; secrets travel only here."""
    folder, checkout = place.folder, Path.cwd()
    url = database.replace("postgresql://", "postgresql+psycopg://", 1)
    return make_secrets(place) | {
        "NAVIGLIO_HOME": str(place.home.root),
        "NAVIGLIO_PIPELINES": str(place.home.pipelines),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(checkout / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(checkout / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(max(4, 2 * (os.cpu_count() or 1))),
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{place.url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(place.port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        # The log servers of scheduler and triggerer would listen on all of the machine's addresses.
        # They are left out: logs are read from the disk, and nobody is asked at this port.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": "1",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": "1",
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "airflow.utils.log.file_task_handler=CRITICAL",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }  # fmt: skip


def keep(file: Path, held: Mapping[str, str]) -> None:
    """Write a file of secrets, whole and open to its owner only."""
    draft = file.with_suffix(".new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump(held, out)
    draft.replace(file)


def _made_once(file: Path, made: dict[str, str]) -> dict[str, str]:
    """Return what a file holds; make it if there is none."""
    if not file.exists():
        keep(file, made)
    kept: dict[str, str] = json.loads(file.read_text())
    return kept
