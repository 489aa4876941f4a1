"""What the deployment files promise, read from the files themselves; linters read their syntax."""

from __future__ import annotations

import fnmatch
import http.server
import importlib.util
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {name for name, said in SERVICES.items() if said["restart"] == "no"}
AIRFLOW = {"api-server", "scheduler", "dag-processor", "triggerer"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|FERNET|_KEY|SQL_ALCHEMY_CONN")


def _lock(path: str) -> dict[str, str]:
    """Return the locked packages of a file with their hashes and markers."""
    parts = re.split(r"^(?=[a-z0-9])", (ROOT / path).read_text("utf-8"), flags=re.MULTILINE)
    return {part.split("==")[0]: part for part in parts if "==" in part}


def test_the_image_holds_the_locked_versions() -> None:
    """Its lock is a part of requirements.txt, hash by hash, and pip is told to check the hashes."""
    whole, image = _lock("requirements.txt"), _lock("docker/requirements.txt")
    assert image == {name: whole[name] for name in image}
    assert all("--hash=sha256:" in part for part in image.values())
    assert {"apache-airflow", "pyspark", "deltalake"} < set(image)
    assert not {"pytest", "mypy", "playwright"} & set(image)
    installs = re.findall(r"pip install (?:[^&\n]|\\\n)+", DOCKERFILE)
    assert len(installs) == 4
    assert all("--require-hashes" in one or "--no-deps" in one for one in installs)


def test_the_image_runs_as_nobody_special() -> None:
    """Its last user is not root, code belongs to root, and no file of the image is a secret."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["${UID}:${GID}"]
    assert re.findall(r"^ARG [UG]ID=(\d+)$", last, re.MULTILINE) == ["1000", "1000"]
    assert "--chown" not in last
    assert not [n for n in re.findall(r"(?:ARG|ENV) (\w+)", DOCKERFILE) if SECRET.search(n)]


def test_only_what_is_copied_reaches_the_engine() -> None:
    """The context leaves everything out but what a COPY names."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    let_in = {line[1:] for line in lines if line.startswith("!")} - {"Dockerfile"}
    copied = {
        source
        for words in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in words.split()
    }
    assert {c for c in copied if not _within(c, let_in)} == set()
    assert {entry for entry in let_in if not any(_within(c, {entry}) for c in copied)} == set()
    for secret in ("docker/secrets/x", ".env", ".naviglio/connections.yaml", "connections.yaml"):
        assert not _within(secret, let_in)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_bounded_and_watched(name: str) -> None:
    """It has limits, a health check (or ends), a log that doesn't grow, and no rights to spare."""
    said = SERVICES[name]
    limits = said["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} == set(limits)
    assert said["healthcheck"].get("test") or (name in ONCE and said["healthcheck"]["disable"])
    assert said["logging"]["options"].keys() >= {"max-size", "max-file"}
    assert said["cap_drop"] == ["ALL"]
    assert "cap_add" not in said
    assert "privileged" not in said
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert said["user"].startswith("${NAVIGLIO_UID:-1000}:")
    assert ":latest" not in said["image"].replace("2022-latest", "")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_told_no_secret(name: str) -> None:
    """Secrets are files, named by what reads them: none in an environment or on a command line."""
    said = SERVICES[name]
    for variable, value in said.get("environment", {}).items():
        if SECRET.search(variable):
            assert variable.endswith(("_FILE", "_CMD"))
            assert re.search(r"^(cat )?/(run/secrets/\w+|dev/shm/passwords\.json)$", value)
    assert not [part for part in said.get("command", ()) if "://" in part and "@" in part]
    used = set(re.findall(r"/run/secrets/(\w+)", json.dumps(said)))
    assert used <= set(said.get("secrets", ()))
    assert set(said.get("secrets", ())) <= set(COMPOSE["secrets"])


def test_no_port_is_open_beyond_this_machine() -> None:
    """One port is published, Airflow's, on loopback."""
    ports = [port for said in SERVICES.values() for port in said.get("ports", ())]
    assert ports == ["127.0.0.1:${AIRFLOW_PORT:-8080}:8080"]


def test_the_stack_is_whole() -> None:
    """PostgreSQL 18 set for logs, Airflow's four processes after the first steps, Spark."""
    assert set(SERVICES) == AIRFLOW | {
        "postgres", "init", "spark-master", "spark-worker", "sqlserver"
    }  # fmt: skip
    assert SERVICES["postgres"]["image"].endswith("postgres:18-bookworm}")
    assert set(SERVICES["postgres"]["command"]) > {
        "wal_level=logical", "max_prepared_transactions=16", "track_commit_timestamp=on"
    }  # fmt: skip
    assert {"init"} == ONCE
    for name in AIRFLOW:
        assert SERVICES[name]["depends_on"]["init"]["condition"] == "service_completed_successfully"
    assert {n for n, said in SERVICES.items() if said.get("profiles")} == {"sqlserver"}


def test_tasks_and_spark_see_one_home() -> None:
    """Who captures, computes and shows sees landing and lake under the same path."""
    home = "home:/var/lib/naviglio"
    sees = {name for name, said in SERVICES.items() if home in said.get("volumes", ())}
    assert sees == AIRFLOW | {"init", "spark-worker"}
    assert "NAVIGLIO_HOME=/var/lib/naviglio" in DOCKERFILE
    named = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", ())}
    assert {volume for volume in named if not volume.startswith(".")} == set(COMPOSE["volumes"])


def test_secrets_are_made_once_for_their_owner(tmp_path: Path) -> None:
    """The script makes each secret of the stack, 0600, random, once; git doesn't see them."""
    script = tmp_path / "docker" / "secrets.sh"
    script.parent.mkdir()
    script.write_bytes((ROOT / "docker" / "secrets.sh").read_bytes())
    first = _made_by(script)
    assert set(first) == {Path(said["file"]).name for said in COMPOSE["secrets"].values()}
    assert _made_by(script) == first
    (script.parent / "secrets" / "postgres_password").unlink()
    again = _made_by(script)
    assert [name for name in first if again[name] != first[name]] == ["postgres_password"]
    assert json.loads(first["airflow_passwords"]).keys() == {"admin"}
    assert len(first["airflow_fernet_key"]) == 44
    assert (tmp_path / ".env").read_text().count("NAVIGLIO_UID=") == 1
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert {"/docker/secrets/", ".env"} <= set(ignored)


def test_a_part_of_airflow_is_asked_after(answering: str) -> None:
    """The health check believes a healthy part, and neither a sick one, none, nor silence."""
    found = importlib.util.spec_from_file_location("healthy", ROOT / "docker" / "healthy.py")
    assert found is not None
    assert found.loader is not None
    healthy = importlib.util.module_from_spec(found)
    found.loader.exec_module(healthy)
    assert healthy.well(answering)
    assert healthy.well(answering, "scheduler")
    assert not healthy.well(answering, "triggerer")
    assert not healthy.well(answering, "unknown")
    assert not healthy.well("http://127.0.0.1:1/")


@pytest.fixture
def answering() -> Iterator[str]:
    """A server that answers as Airflow does: the scheduler is healthy, the triggerer isn't."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            said = {"scheduler": {"status": "healthy"}, "triggerer": {"status": None}}
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def _within(path: str, entries: set[str]) -> bool:
    return any(fnmatch.fnmatch(path, one) or path.startswith(f"{one}/") for one in entries)


def _made_by(script: Path) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    subprocess.run(["/bin/sh", str(script)], check=True, capture_output=True, env=environ)
    files = list((script.parent / "secrets").iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert (script.parent / "secrets").stat().st_mode & 0o777 == 0o700
    return {path.name: path.read_text() for path in files}
