"""What spark-submit is told, and what it is not."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from naviglio.errors import ConfigError, RetryableError, StorageError
from naviglio.transform import spark as spark_room
from naviglio.transform.cluster import Cluster
from naviglio.transform.spark import Application, Spark, command, environment

WORK = [{"name": "t"}]


class Seen:
    """Stands for spark-submit: keeps what it was told."""

    def __init__(self, result: str = "{}") -> None:
        self.result = result
        self.files: dict[str, tuple[bytes, int]] = {}

    def __call__(self, cluster: Cluster, application: Application) -> None:
        """Start nothing."""
        self.cluster, self.application = cluster, application
        folder = application.work.parent
        for path in folder.iterdir():
            self.files[path.name] = (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        if self.result:
            (folder / "result.json").write_text(self.result)


def submitted(cluster: Cluster, seen: Seen) -> Any:
    """Submit some work to what stands for spark-submit."""
    return Spark(cluster=cluster, jars=(Path("/j/a.jar"),), start=seen).submit("p", "UTC", WORK)


def test_the_folder_of_a_run_goes_with_it() -> None:
    """Its work and keytab are for this account alone, and gone at the end."""
    seen = Seen('{"t": {"rows": 1}}')
    cluster = Cluster(master="yarn", principal="p", keytab=b"key")
    assert submitted(cluster, seen) == {"t": {"rows": 1}}
    assert seen.files["keytab"] == (b"key", 0o400)
    folder = seen.application.work.parent
    assert not folder.exists()
    words = command(cluster, seen.application)
    assert words[words.index("--keytab") + 1] == str(folder / "keytab")
    assert words[words.index("--principal") + 1] == "p"


def test_everything_of_a_connection_is_told() -> None:
    """By the options that Airflow's provider uses."""
    seen = Seen()
    cluster = Cluster(
        master="k8s://https://h", namespace="jobs", queue="q", proxy_user="ann",
        properties_file="/f", conf={"spark.executor.memory": "2g"},
    )  # fmt: skip
    submitted(cluster, seen)
    words = " ".join(command(cluster, seen.application))
    for told in (
        "spark-submit --master k8s://https://h ", "--conf spark.kubernetes.namespace=jobs ",
        "--conf spark.executor.memory=2g ", "--queue q ", "--proxy-user ann ",
        "--properties-file /f ", "--jars /j/a.jar ", "--name naviglio p ",
    ):  # fmt: skip
        assert told in words
    assert "127.0.0.1" not in words
    submitted(Cluster(), seen)
    assert "spark.driver.host=127.0.0.1" in " ".join(command(Cluster(), seen.application))


def test_no_connection_is_in_the_environment(tmp_path: Path) -> None:
    """Nor Airflow's keys; Spark is the one of this Python unless another binary is named."""
    environ = {
        "NAVIGLIO_CONN_X": "s", "AIRFLOW_CONN_X": "s", "AIRFLOW__CORE__FERNET_KEY": "s",
        "PATH": "/usr/bin", "SPARK_HOME": "/opt/spark", "PYSPARK_PYTHON": "/opt/python",
    }  # fmt: skip
    here = environment(Cluster(), tmp_path, environ)
    assert "s" not in here.values()
    assert here["PATH"] == f"{here['SPARK_HOME']}/bin:/usr/bin"
    assert here["SPARK_LOCAL_DIRS"] == str(tmp_path)
    assert here["PYSPARK_PYTHON"] == here["PYSPARK_DRIVER_PYTHON"]
    there = environment(Cluster(master="yarn", binary="spark3-submit"), tmp_path, environ)
    assert (there["SPARK_HOME"], there["PATH"]) == ("/opt/spark", "/usr/bin")
    assert there["PYSPARK_PYTHON"] == "/opt/python"


def test_a_spark_that_is_not_there_is_named() -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=r"`spark3-submit`.* is not on the path"):
        submitted(Cluster(binary="spark3-submit"), Seen())


def test_an_end_without_a_result_is_none() -> None:
    """Spark said that all is well and told nothing."""
    with pytest.raises(RetryableError, match="without a result"):
        submitted(Cluster(), Seen(""))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the disk acts."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError, match=r"No space left on device.*TMPDIR"):
        submitted(Cluster(), Seen())
    assert list(tmp_path.iterdir()) == []
    assert spark_room.has_java({"PATH": str(tmp_path)}) is False
