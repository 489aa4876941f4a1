"""Where Spark runs: what a connection says of it, checked before anything is submitted."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl

from naviglio.errors import ConfigError

SPARK = "spark_default"  # the id of the connection where none is named
HERE = "local[*]"  # where there is no connection of that id
SUBMIT = "spark-submit"
BINARIES = (SUBMIT, "spark2-submit", "spark3-submit")
# As Airflow's Spark provider names them in a connection's extra; the second line is Naviglio's own.
OPTIONS = (
    "queue", "deploy-mode", "spark-binary", "namespace", "principal", "keytab",
    "proxy-user", "properties-file", "conf",
)  # fmt: skip
# They tell where a driver on a cluster is asked for its state; here the driver is the task's child.
_OF_NO_USE = ("rest-scheme", "rest-port", "yarn_resourcemanager_webapp_address")
_MASTERS = re.compile(
    r"local(\[(\*|[1-9]\d*)(,[1-9]\d*)?\])?|yarn"
    r"|spark://[^\s/:@,]+:\d+(,[^\s/:@,]+:\d+)*|k8s://[^\s@]+"
)
_SECRET = re.compile(r"secret|password|token|credential|access\.?key", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where Spark runs, and as whom."""

    master: str = HERE
    queue: str = ""  # of YARN
    namespace: str = ""  # of Kubernetes
    binary: str = SUBMIT
    principal: str = ""
    keytab: bytes = field(default=b"", repr=False)
    proxy_user: str = ""
    properties_file: str = ""
    conf: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_here(self) -> bool:
        """Whether Spark is one process of this machine."""
        return self.master.startswith("local")


def cluster_of(conn_id: str, master: str, extra: Mapping[str, Any]) -> Cluster:
    """Return what a connection says; ConfigError for what isn't known, or can't be kept."""
    if not _MASTERS.fullmatch(master):
        raise ConfigError(
            f"{_named(conn_id)} names the master {master!r}; known: local[*], local[N], yarn, "
            "spark://HOST:PORT, k8s://https://HOST:PORT. Correct its host."
        )
    for name in extra:
        if name not in (*OPTIONS, *_OF_NO_USE):
            close = get_close_matches(name, OPTIONS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"{_named(conn_id)} has the option {name!r}; known: {', '.join(OPTIONS)}.{hint}"
            )
    _check(conn_id, extra)
    said = {name: str(extra.get(name) or "") for name in OPTIONS}
    return Cluster(
        master=master, queue=said["queue"], namespace=said["namespace"],
        binary=said["spark-binary"] or SUBMIT, principal=said["principal"],
        keytab=_keytab(conn_id, said["keytab"]), proxy_user=said["proxy-user"],
        properties_file=said["properties-file"], conf=_conf(conn_id, extra.get("conf")),
    )  # fmt: skip


def read(conn_id: str, url: str) -> Cluster:
    """Return what a connection outside of Airflow says: MASTER?OPTION=VALUE&..."""
    master, _, query = url.partition("?")
    return cluster_of(conn_id, master.rstrip("/"), dict(parse_qsl(query)))


def _check(conn_id: str, extra: Mapping[str, Any]) -> None:
    mode, binary = extra.get("deploy-mode") or "client", extra.get("spark-binary") or SUBMIT
    if mode != "client":
        raise ConfigError(
            f"{_named(conn_id)} has deploy-mode {mode!r}. Here the driver runs beside its task, so "
            "that it ends with it; the executors run on the cluster. Set it to `client`."
        )
    if binary not in BINARIES:
        raise ConfigError(
            f"{_named(conn_id)} has spark-binary {binary!r}; known: {', '.join(BINARIES)}."
        )
    if extra.get("proxy-user") and (extra.get("principal") or extra.get("keytab")):
        raise ConfigError(
            f"{_named(conn_id)} has a proxy-user beside a principal or keytab, of which Spark "
            "takes one. Remove either; with a proxy-user the ticket of the process is used."
        )
    if bool(extra.get("keytab")) != bool(extra.get("principal")):
        raise ConfigError(f"{_named(conn_id)} needs principal and keytab, or neither.")


def _keytab(conn_id: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ConfigError(
            f"{_named(conn_id)}: its keytab is not the Base64 of a file. Paste what "
            "`base64 -w0 KEYTAB` prints."
        ) from None


def _conf(conn_id: str, said: Any) -> dict[str, str]:
    """Return settings of Spark: an object, or its JSON. Command lines are open: no secrets here."""
    try:
        found = json.loads(said) if isinstance(said, str) and said else said or {}
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(
            f'{_named(conn_id)}: `conf` is a JSON object such as {{"spark.executor.memory": "2g"}}.'
        )
    if wrong := [name for name in found if _SECRET.search(name) or not name.startswith("spark.")]:
        raise ConfigError(
            f"{_named(conn_id)}: `conf` can't take {wrong[0]!r}: names begin with `spark.`, and "
            "every user of the machine may read it. Put secrets into a file that only the "
            "account of Airflow's tasks may read, and name it as `properties-file`."
        )
    return {name: str(value) for name, value in found.items()}


def _named(conn_id: str) -> str:
    return f"Spark connection {conn_id!r}"
