"""One spark-submit for all the work of a run."""

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naviglio.errors import ConfigError, RetryableError, StorageError
from naviglio.transform import jars
from naviglio.transform.cluster import SUBMIT, Cluster

log = logging.getLogger("naviglio.spark")
CONF = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    "spark.sql.shuffle.partitions": "8",
    # Spark 4.2.0 hangs in every Python function over Parquet's columns otherwise (SPARK-58241).
    "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled": "false",
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "WARN",
}
LOOPBACK = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
DRIVER = Path(__file__).parents[2] / "spark_jobs" / "naviglio_transform.py"
_OURS = ("transform ", "the process")
# A program reads and writes files: it has no use for the passwords that its starter holds.
_NOT_FOR_SPARK = ("NAVIGLIO_CONN_", "AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
_LAST_LINES = 15
_GRACE_S = 10

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Application:
    """What spark-submit is told, whoever starts it; neither words nor environment hold a secret.

    All that it leaves on this machine is in the folder of `work`.
    """

    name: str
    work: Path
    jars: str
    conf: Mapping[str, str]
    keytab: Path | None
    environ: Mapping[str, str]

    @property
    def arguments(self) -> list[str]:
        """Return what Naviglio's driver is told."""
        return [str(self.work)]


Start = Callable[[Cluster, Application], None]


def start(cluster: Cluster, application: Application) -> None:
    """Start an application and wait for its end; it ends with this process, whatever ends that.

    Raises RetryableError when it ends badly.
    """
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command(cluster, application), cwd=application.work.parent, env=dict(application.environ),
        text=True, errors="replace", start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            for line in process.stdout or ():
                last.append(line.rstrip())
                if line.startswith(_OURS):
                    log.info("%s", line.rstrip())
            code = process.wait()
        except BaseException:
            end(process)
            raise
    if code:
        for line in last:
            log.error("spark: %s", line)
        raise RetryableError(f"spark-submit ended with {code}. Its last lines are above.")


def command(cluster: Cluster, application: Application) -> list[str]:
    """Return the command line, as Airflow's provider would build it."""
    namespace = {"spark.kubernetes.namespace": cluster.namespace} if cluster.namespace else {}
    conf = {**application.conf, **namespace}
    options = {
        "--properties-file": cluster.properties_file, "--jars": application.jars,
        "--keytab": str(application.keytab or ""), "--principal": cluster.principal,
        "--proxy-user": cluster.proxy_user, "--name": application.name, "--queue": cluster.queue,
    }  # fmt: skip
    return [
        cluster.binary, "--master", cluster.master,
        *(part for name, value in conf.items() for part in ("--conf", f"{name}={value}")),
        *(part for name, value in options.items() if value for part in (name, value)),
        str(DRIVER), *application.arguments,
    ]  # fmt: skip


def end(process: subprocess.Popen[str]) -> None:
    """End an application with all its processes: first asked, then made to."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(_GRACE_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        else:
            return


@dataclass(frozen=True, kw_only=True)
class Spark:
    """Where to submit, the jars of the Delta connector, and who starts spark-submit."""

    cluster: Cluster
    jars: tuple[Path, ...]
    start: Start = start

    def submit(self, name: str, zone: str, transforms: Sequence[Mapping[str, Any]]) -> Results:
        """Run the transforms in one application; return what happened to each, by name.

        Raises ConfigError without a Java or a Spark, RetryableError when the application ends
        badly, StorageError for a full disk. It ends with this process, whatever ends that.
        """
        if not has_java(os.environ):
            raise ConfigError(
                "Spark needs Java 17 or newer and found no `java`. Install it "
                "(Debian: sudo apt-get install openjdk-17-jre-headless), or set JAVA_HOME."
            )
        with tempfile.TemporaryDirectory(prefix="naviglio-spark-", ignore_cleanup_errors=True) as f:
            result = Path(f, "result.json")
            work = {"name": f"naviglio {name}", "time_zone": zone, "owner": os.getpid(),
                    "transforms": list(transforms), "result": str(result)}  # fmt: skip
            application = self._prepared(Path(f), work)
            if not shutil.which(self.cluster.binary, path=application.environ.get("PATH")):
                raise ConfigError(
                    f"`{self.cluster.binary}`, the Spark connection's spark-binary, is not on the "
                    "path. Add its folder to PATH, or take `spark-submit`, which pyspark brings."
                )
            self.start(self.cluster, application)
            if not result.exists():
                raise RetryableError("Spark ended without a result. Its last lines are above.")
            found: Results = json.loads(result.read_text(encoding="utf-8"))
            return found

    def _prepared(self, folder: Path, work: Mapping[str, Any]) -> Application:
        """Write what the driver reads into a folder that only this account may look into."""
        keytab = folder / "keytab" if self.cluster.keytab else None
        try:
            if keytab:
                keytab.write_bytes(self.cluster.keytab)
                keytab.chmod(0o400)
            (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"the work of Spark can't be written to {folder} ({error.strerror}). Free space "
                "there, or set TMPDIR to another folder."
            ) from error
        here = LOOPBACK if self.cluster.is_here else {}
        return Application(
            name=str(work["name"]), work=folder / "work.json", keytab=keytab,
            jars=",".join(str(jar) for jar in self.jars),
            conf={**CONF, **here, **self.cluster.conf},
            environ=environment(self.cluster, folder, os.environ),
        )  # fmt: skip


def environment(cluster: Cluster, folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of spark-submit: without connections, with the Spark to take."""
    kept = {name: v for name, v in environ.items() if not name.startswith(_NOT_FOR_SPARK)}
    kept |= {"PYSPARK_DRIVER_PYTHON": sys.executable}
    kept |= {"SPARK_LOCAL_DIRS": kept.get("SPARK_LOCAL_DIRS") or str(folder)}
    if cluster.binary == SUBMIT:  # that of pyspark, whatever `python3` the shell would find
        path = [str(_home() / "bin"), kept.get("PATH") or os.defpath]
        kept |= {"SPARK_HOME": str(_home()), "PATH": os.pathsep.join(path)}
    if cluster.is_here:
        kept |= {"PYSPARK_PYTHON": sys.executable}
        kept |= {"SPARK_LOCAL_IP": kept.get("SPARK_LOCAL_IP") or "127.0.0.1"}
    return {"PYSPARK_PYTHON": sys.executable} | kept


def has_java(environ: Mapping[str, str]) -> bool:
    """Whether a `java` is on the path or in JAVA_HOME, of whatever version."""
    home = environ.get("JAVA_HOME")
    return bool(shutil.which("java", path=environ.get("PATH"))) or bool(
        home and Path(home, "bin", "java").exists()
    )


def spark_at(cluster: Cluster, home: Path, environ: Mapping[str, str], by: Start = start) -> Spark:
    """Return the Spark of a cluster; fetches the jars at first."""
    found = jars.fetch(jars.folder_of(environ, home), environ)
    return Spark(cluster=cluster, jars=tuple(found), start=by)


def _home() -> Path:
    """Return where Spark is installed: beside pyspark."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("pyspark is not installed. Run `make setup`.")
    return Path(next(iter(spec.submodule_search_locations)))
