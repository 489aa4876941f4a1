"""Airflow's Spark provider submits transforms, to a connection that was checked."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from naviglio.errors import ConfigError
from naviglio.transform.cluster import HERE
from naviglio.transform.spark import DRIVER, Application, command
from naviglio_airflow.spark import Submitter, checked, connection_of, master_of
from naviglio_airflow.transforms import TransformOperator
from tests.dags.told import context, path_of
from tests.integration.lines import Line

HEAD = """fence_margin: 0s
transforms:
  days: {program: days.%s, key: [day], day: day, inputs: {t: day}}
"""
SQL = "SELECT to_date(at) AS day, count(*) AS n FROM t GROUP BY 1"
MOST_OF_SPARKS_OWN = 100  # until it has read that it shall be quiet
WAITING = "import time\ndef transform(inputs):\n    time.sleep(120)\n"


def declare(monkeypatch: pytest.MonkeyPatch, conn_id: str, **said: object) -> None:
    """Declare a connection of Airflow."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(said))


def test_only_the_default_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It then means this machine; the provider alone would go to YARN for any of them."""
    assert checked(connection_of("spark_default")).master == HERE
    with pytest.raises(ConfigError, match=r"no connection 'mine'.*Declare it"):
        connection_of("mine")
    declare(monkeypatch, "mine", conn_type="spark")
    with pytest.raises(ConfigError, match=r"'mine' names the master 'spark://'"):
        checked(connection_of("mine"))
    declare(monkeypatch, "mine", conn_type="postgres", host="db", password="hush")
    with pytest.raises(ConfigError, match="postgres://db") as caught:
        checked(connection_of("mine"))
    assert "hush" not in str(caught.value)
    declare(monkeypatch, "mine", conn_type="spark", host="k8s://https://h:443")
    with pytest.raises(ConfigError, match="apache-airflow-providers-cncf-kubernetes"):
        checked(connection_of("mine"))


@pytest.mark.parametrize(
    ("said", "master"),
    [
        ('{"conn_type": "spark", "host": "local[2]"}', "local[2]"),
        ('{"conn_type": "spark", "host": "yarn"}', "yarn"),
        ('{"conn_type": "spark", "host": "spark://m", "port": 7077}', "spark://m:7077"),
        ('{"conn_type": "spark", "host": "m", "port": 7077}', "spark://m:7077"),
        ("spark://m:7077", "spark://m:7077"),
        ("spark://local%5B%2A%5D", "local[*]"),
    ],
)
def test_the_master_is_the_providers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, master: str
) -> None:
    """Read from a form or a URI as the hook reads it."""
    monkeypatch.setenv("AIRFLOW_CONN_C", said)
    assert master_of(connection_of("c")) == master
    by = Submitter("c")
    assert by.cluster.master == master
    assert by.hook(by.cluster, _application(tmp_path))._connection["master"] == master


def _application(folder: Path, keytab: Path | None = None) -> Application:
    return Application(
        name="naviglio p", work=folder / "work.json", jars="/j/a.jar",
        conf={"spark.ui.enabled": "false"}, keytab=keytab, environ={},
    )  # fmt: skip


def test_the_hook_takes_all_of_the_connection_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the command line without Airflow does; the keytab stays in the run's own folder."""
    key = base64.b64encode(b"a keytab").decode()
    extra = {"queue": "etl", "deploy-mode": "client", "principal": "p@X", "keytab": key,
             "properties-file": "/etc/s.conf", "spark-binary": "spark3-submit"}  # fmt: skip
    before = set(Path(tempfile.gettempdir()).glob("*airflow_keytab*"))
    for more in ({}, {"proxy-user": "ann", "principal": "", "keytab": ""}):
        declare(monkeypatch, "c", conn_type="spark", host="yarn", extra=extra | more)
        by = Submitter("c")
        application = _application(tmp_path, None if more else tmp_path / "keytab")
        words = by.hook(by.cluster, application)._build_spark_submit_command(str(DRIVER))
        assert {*words} - {"--deploy-mode", "client"} == {*command(by.cluster, application)}
        assert words[words.index("--queue") + 1] == "etl"
        assert key not in " ".join(words)
    assert set(Path(tempfile.gettempdir()).glob("*airflow_keytab*")) == before


@pytest.fixture
def computing(line: Line, monkeypatch: pytest.MonkeyPatch, spark_jars: Path) -> Line:
    """A line whose table `t` is in the lake, and a transform of it."""
    monkeypatch.setenv("NAVIGLIO_SPARK_JARS", str(spark_jars))
    line.head = HEAD % "sql"
    _ = line.pipeline  # writes the file
    (line.home.pipelines / "days.sql").write_text(SQL)
    (line.home.pipelines / "days.py").write_text(WAITING)
    line.run()
    return line


@pytest.mark.timeout(600)
def test_a_task_submits_and_finds_nothing_to_do_afterwards(
    computing: Line, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log tells the stages; where nothing changed no Spark starts, wherever it would run."""
    declare(monkeypatch, "here", conn_type="spark", host="local[1]")
    operator = TransformOperator(
        task_id="t", pipeline=str(path_of(computing)), spark_conn_id="here"
    )
    assert TransformOperator.execute(operator, context()) == {"batches": 1, "upserts": 4}
    said = capfd.readouterr().out
    assert re.search(r"transform days: stage \d+: 1 of 1 tasks", said)
    assert said.count(" INFO ") < MOST_OF_SPARKS_OWN
    declare(monkeypatch, "here", conn_type="spark", host="yarn")
    assert TransformOperator.execute(operator, context()) == {"batches": 0, "upserts": 0}
    operator.spark_conn_id = "mistyped"
    with pytest.raises(AirflowFailException, match="no connection 'mistyped'"):
        TransformOperator.execute(operator, context())


@pytest.mark.timeout(600)
def test_a_task_that_is_ended_ends_its_application(
    computing: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All processes of it, at once; nothing has landed, and no file is left behind."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    computing.head = HEAD % "py"
    operator = TransformOperator(task_id="t", pipeline=str(path_of(computing)))
    raised: list[Exception] = []

    def execute() -> None:
        try:
            TransformOperator.execute(operator, context())
        except AirflowException as error:
            raised.append(error)

    task = threading.Thread(target=execute)
    task.start()
    me, deadline = psutil.Process(), time.monotonic() + 240
    while not (drivers := [c for c in me.children(recursive=True) if _is_driver(c)]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    group = os.getpgid(drivers[0].pid)
    operator.on_kill()
    task.join(60)
    assert [type(error) for error in raised] == [AirflowException]
    while any(_in_group(process, group) for process in psutil.process_iter()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert computing.batches("days") == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((computing.landing_of("days") / "data").iterdir()) == []


def _in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group
    except ProcessLookupError:
        return False


def _is_driver(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("python") and DRIVER.name in " ".join(process.cmdline())
    except psutil.Error:
        return False
