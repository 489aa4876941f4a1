"""One spark-submit for all the work of a run: `local[*]` unless told otherwise."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from naviglio.errors import ConfigError, RetryableError
from naviglio.transform import jars

log = logging.getLogger("naviglio.spark")
CONF = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    "spark.sql.shuffle.partitions": "8",
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
LOOPBACK = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
_OURS = ("transform ", "stage ", "the process")
# A program reads and writes files: it has no use for the passwords that its starter holds.
_NOT_FOR_SPARK = ("NAVIGLIO_CONN_", "AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
_LAST_LINES = 15
_GRACE_S = 10


@dataclass(frozen=True, kw_only=True)
class Spark:
    """How to submit: the master, the jars of the Delta connector, Naviglio's driver program."""

    master: str
    jars: tuple[Path, ...]
    driver: Path
    conf: Mapping[str, str] = field(default_factory=dict)

    def command(self, work: Path) -> list[str]:
        """Return the command line; it holds no secret."""
        conf = {**CONF, **(LOOPBACK if self.master.startswith("local") else {}), **self.conf}
        listed = ",".join(str(jar) for jar in self.jars)
        settings = [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
        head = [str(_home() / "bin" / "spark-submit"), "--master", self.master]
        return [*head, "--jars", listed, *settings, str(self.driver), str(work)]

    def submit(self, name: str, zone: str, transforms: Sequence[Mapping[str, Any]]) -> Results:
        """Run the transforms in one application; return what happened to each, by name.

        Raises ConfigError without a Java, RetryableError when the application ends badly. It ends
        with this process, whatever ends that.
        """
        if not has_java(os.environ):
            raise ConfigError(
                "Spark needs Java 17 or newer and found no `java`. Install it "
                "(Debian: sudo apt-get install openjdk-17-jre-headless), or set JAVA_HOME."
            )
        with tempfile.TemporaryDirectory(prefix="naviglio-spark-") as folder:
            work, result = Path(folder, "work.json"), Path(folder, "result.json")
            work.write_text(json.dumps(work_of(name, zone, transforms, result)), encoding="utf-8")
            self._run(self.command(work), folder)
            if not result.exists():
                raise RetryableError("Spark ended without a result. Its last lines are above.")
            found: Results = json.loads(result.read_text(encoding="utf-8"))
            return found

    def _run(self, command: Sequence[str], folder: str) -> None:
        kept = {name: v for name, v in os.environ.items() if not name.startswith(_NOT_FOR_SPARK)}
        environ = {**kept, "SPARK_HOME": str(_home()), "PYSPARK_PYTHON": sys.executable,
                   "PYSPARK_DRIVER_PYTHON": sys.executable}  # fmt: skip
        if self.master.startswith("local"):
            environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        last: deque[str] = deque(maxlen=_LAST_LINES)
        with subprocess.Popen(
            command, cwd=folder, env=environ, text=True, errors="replace", start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                for line in process.stdout or ():
                    last.append(line.rstrip())
                    if line.startswith(_OURS):
                        log.info("%s", line.rstrip())
                code = process.wait()
            except BaseException:
                _end(process)
                raise
        if code:
            for line in last:
                log.error("spark: %s", line)
            raise RetryableError(f"spark-submit ended with {code}. Its last lines are above.")


Results = dict[str, dict[str, Any]]


def has_java(environ: Mapping[str, str]) -> bool:
    """Whether a `java` is on the path or in JAVA_HOME, of whatever version."""
    home = environ.get("JAVA_HOME")
    return bool(shutil.which("java", path=environ.get("PATH"))) or bool(
        home and Path(home, "bin", "java").exists()
    )


def local(home: Path, environ: Mapping[str, str]) -> Spark:
    """Return Spark on this machine, or at NAVIGLIO_SPARK_MASTER; fetches the jars at first."""
    return Spark(
        master=environ.get("NAVIGLIO_SPARK_MASTER") or "local[*]",
        jars=tuple(jars.fetch(jars.folder_of(environ, home), environ)),
        driver=Path(__file__).parents[2] / "spark_jobs" / "naviglio_transform.py",
    )


def work_of(
    name: str, zone: str, transforms: Sequence[Mapping[str, Any]], result: Path
) -> dict[str, Any]:
    """Return what the driver program reads."""
    me = psutil.Process()
    owner = {"pid": me.pid, "started": me.create_time(), "host": os.uname().nodename}
    return {"name": f"naviglio {name}", "time_zone": zone, "owner": owner,
            "transforms": list(transforms), "result": str(result)}  # fmt: skip


def _end(process: subprocess.Popen[str]) -> None:
    """End the application with all its processes: first asked, then made to."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(_GRACE_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        else:
            return


def _home() -> Path:
    """Return where Spark is installed: beside pyspark, whatever `python3` the shell would find."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("pyspark is not installed. Run `make setup`.")
    return Path(next(iter(spec.submodule_search_locations)))
