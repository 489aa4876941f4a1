"""Real spark-submits: frozen, killed, two at once, here and on a cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from naviglio.connections.connections import variable_of
from naviglio.flows.transform import Submit
from naviglio.transform import spark as spark_room
from naviglio.transform.cluster import Cluster
from tests.integration.lines import Line
from tests.integration.test_transforms import FULL, carried, flying

__all__ = ["flying"]
pytestmark = pytest.mark.timeout(600)  # several Sparks start, on a machine that may be busy
GATED = """
import os, time
from pathlib import Path

def transform(inputs):
    from pyspark.sql import functions as fn

    gate = Path({gate!r})
    (gate / str(os.getpid())).touch()
    while not (gate / "open").exists():
        time.sleep(0.1)
    flights = inputs["flights"].withColumn("day", fn.to_date("at"))
    made = flights.join(inputs["planes"].select("tail", "maker"), "tail", "left")
    return made.groupBy("day", "maker").agg(
        fn.count(fn.lit(1)).alias("flights"), fn.sum("miles").alias("miles")
    )
"""
SLEEPING = """
import time

def transform(inputs):
    from pyspark.sql import SparkSession
    context = SparkSession.getActiveSession().sparkContext
    print("transform: sleeps", flush=True)
    context.parallelize([0], 1).foreach(lambda _: time.sleep(120))
"""
WORKER = """
import json, logging, sys
from pathlib import Path
from naviglio.transform.cluster import Cluster
from naviglio.transform.spark import spark_at
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
told = json.loads(sys.argv[1])
jars = {"NAVIGLIO_SPARK_JARS": told["jars"]}
spark = spark_at(Cluster(**told["cluster"]), Path(told["home"]), jars)
spark.submit("killed", "UTC", [told["work"]])
"""


def until(found: Callable[[], Any], what: str, within_s: float = 240) -> Any:
    """Wait for something that isn't nothing."""
    end = time.monotonic() + within_s
    while not (it := found()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return it


@contextmanager
def started(line: Line, folder: Path, jars: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start `naviglio transform` as its user does; its Spark, even a frozen one, ends with this."""
    folder.mkdir()
    environ = os.environ | {variable_of(name): url for name, url in line.urls.items()}
    environ |= {
        "NAVIGLIO_HOME": str(line.home.root), "NAVIGLIO_SPARK_JARS": str(jars),
        "NAVIGLIO_PIPELINES": str(line.home.pipelines), "TMPDIR": str(folder),
    }  # fmt: skip
    words = [str(Path(sys.executable).with_name("naviglio")), "transform", line.name, "--json"]
    with (
        (folder / "said.log").open("wb") as log,
        subprocess.Popen(
            words, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()


def test_a_frozen_driver_wakes_and_changes_nothing(
    flying: Line, here: Submit, spark_jars: Path, tmp_path: Path
) -> None:
    """Two commands compute the same days at once; one's Spark is frozen, the other one lands.

    A late row and a changed plane are computed meanwhile. The one that wakes finds its number
    taken: landing, lake, ledger and target stay as they are, what a full recomputation says.
    """
    gate = tmp_path / "gate"
    gate.mkdir()
    flying.head = flying.head[: flying.head.index("  with_maker")].replace(".sql", ".py")
    _ = flying.pipeline  # writes the file
    (flying.home.pipelines / "by_maker.py").write_text(GATED.format(gate=str(gate)))
    flying.run()
    with (
        started(flying, tmp_path / "one", spark_jars) as frozen,
        started(flying, tmp_path / "other", spark_jars) as other,
    ):
        drivers = until(lambda: len(list(gate.iterdir())) == 2 and list(gate.iterdir()), "no Spark")
        mine = [c.pid for c in psutil.Process(frozen.pid).children(recursive=True)]
        (driver,) = [int(path.name) for path in drivers if int(path.name) in mine]
        group = os.getpgid(driver)
        os.killpg(group, signal.SIGSTOP)
        (gate / "open").touch()
        assert other.wait(240) == 0, (tmp_path / "other" / "said.log").read_text()
        assert [batch.number for batch in flying.batches("by_maker")] == [1]
        flying.source(
            "INSERT INTO flights (id, at, tail, miles) VALUES (99, '2013-01-02 04:30Z', 'b', 5)",
            "UPDATE planes SET maker = 'Cessna' WHERE tail = 'c'",
        )
        (report,) = carried(flying, here)
        assert report.error is None
        before = flying.traces()
        os.killpg(group, signal.SIGCONT)
        assert frozen.wait(240) == 0, (tmp_path / "one" / "said.log").read_text()
    assert flying.traces() == before
    query = f"SELECT day, maker, flights, miles FROM {flying.name}.by_maker ORDER BY 1, 2"
    assert flying.target(query) == flying.target(FULL.format(flying.name))
    said = (tmp_path / "one" / "said.log").read_text()
    assert "by_maker" in said
    for name in ("one", "other"):
        assert [path.name for path in (tmp_path / name).iterdir()] == ["said.log"]


@contextmanager
def standalone(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start a Spark cluster of one worker on loopback; return its address and the worker."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    master = f"spark://127.0.0.1:{port}"
    environ = spark_room.environment(Cluster(), folder, os.environ)
    spark_class = str(Path(environ["SPARK_HOME"], "bin", "spark-class"))
    begun = []
    for words in (
        ["master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"],
        ["worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "512m",
         "--webui-port", "0", "--work-dir", str(folder), master],
    ):  # fmt: skip
        with (folder / f"{words[0]}.log").open("wb") as log:
            daemon = [spark_class, f"org.apache.spark.deploy.{words[0]}", *words[1:]]
            begun.append(
                subprocess.Popen(
                    daemon, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            )
    try:
        yield master, psutil.Process(begun[1].pid)
    finally:
        for process in reversed(begun):
            process.kill()
            process.wait()


@pytest.mark.parametrize("where", ["local[1]", "spark://"])
def test_a_killed_worker_takes_its_spark_along(
    spark_jars: Path, tmp_path: Path, where: str
) -> None:
    """After a kill -9 of who asked for it, the application ends by itself, on a cluster as well.

    Nobody would commit. What it had written for itself is gone too.
    """
    if where == "local[1]":
        killed(Cluster(master=where), spark_jars, tmp_path)
        return
    conf = {**spark_room.LOOPBACK, "spark.executor.memory": "512m"}
    with standalone(tmp_path) as (master, worker):
        killed(Cluster(master=master, conf=conf), spark_jars, tmp_path)
        until(lambda: not alive(worker), "the executor lives on")


def alive(worker: psutil.Process) -> list[psutil.Process]:
    """Return what a worker runs; spark-class leaves it a dead subshell to bury at times."""
    found = []
    for child in worker.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found += [child] if child.status() != psutil.STATUS_ZOMBIE else []
    return found


def killed(cluster: Cluster, jars: Path, folder: Path) -> None:
    """Kill who submitted an application that is at work; wait until nothing of it is left."""
    (folder / "tmp").mkdir()
    work: dict[str, Any] = {
        "name": "slow", "program": "slow.py", "source": SLEEPING, "day": "day", "days": None,
        "folder": str(folder / "out"), "inputs": [],
    }  # fmt: skip
    told = {"cluster": {"master": cluster.master, "conf": dict(cluster.conf)}, "work": work,
            "home": str(folder), "jars": str(jars)}  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, json.dumps(told)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(folder / "tmp")},
    ) as worker:  # fmt: skip
        assert worker.stdout is not None
        assert any("stage 0: 0 of 1 tasks" in line for line in worker.stdout)
        spark = psutil.Process(worker.pid).children(recursive=True)
        assert spark
        worker.kill()
    gone, alive = psutil.wait_procs(spark, timeout=30)
    assert (len(gone), alive) == (len(spark), [])
    assert list((folder / "tmp").iterdir()) == []
