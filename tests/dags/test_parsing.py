"""Airflow's own parser over dags/: what it finds, imports and writes down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FLIGHTS = ROOT / "include" / "pipelines" / "flights.yaml"
_PARSE = """
import collections, json, sys, time
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import LazyDeserializedDAG
opened, connected = collections.Counter(), []
def hear(event, told):
    if event == "open" and str(told[0]).endswith((".yaml", ".yml")):
        opened[str(told[0])] += 1
    elif event == "socket.connect":
        connected.append(str(told[1]))
import naviglio_airflow.dags  # once a process; what follows is done at each parse
sys.addaudithook(hear)
begun = time.process_time()
bag = DagBag(sys.argv[1])
seconds = time.process_time() - begun
opened, connected = dict(opened), list(connected)
heavy = [name for name in sys.argv[2].split(",") if name in sys.modules]
written = {name: LazyDeserializedDAG.from_dag(dag) for name, dag in bag.dags.items()}
print("FOUND" + json.dumps({
    "dags": {name: sorted(dag.task_ids) for name, dag in bag.dags.items()},
    "errors": bag.import_errors, "heavy": heavy, "seconds": seconds,
    "opened": opened, "connected": connected,
    "written": {n: lazy.hash for n, lazy in written.items()},
    "after": {n: sorted(task.upstream_task_ids)
              for dag in bag.dags.values() for n, task in dag.task_dict.items()},
    "how": {n: [task.pool, task.max_active_tis_per_dag, str(task.weight_rule), task.retries]
            for dag in bag.dags.values() for n, task in dag.task_dict.items()},
    "runs": {n: [json.dumps(written[n].data["dag"]["timetable"]), d.max_active_runs,
                 sorted(d.tags), d.owner] for n, d in bag.dags.items()},
}))
"""
FILE = """source: a
target: b
target_schema: s{0}
schedule: {{cron: '0 6 * * *'}}
tables:
  t1: {{capture: diff}}
  t2: {{capture: {{where: m}}, deletes: sweep, event_time: at}}
  t3: {{capture: diff}}
groups: {{g: [t1, t3]}}
"""
_HEAVY = "pandas,pyspark,deltalake,duckdb,pyarrow,psycopg,adbc_driver_manager,mssql_python,pgpq"


def parse(home: Path, dags: Path = ROOT / "dags", **environ: str) -> dict[str, Any]:
    """Parse a folder of DAGs in a process of its own, with the pipelines of `home`."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PARSE, str(dags), _HEAVY],
        env={
            **os.environ, "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "NAVIGLIO_PIPELINES": str(home),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "include"), str(ROOT / "plugins")]),
            **environ,
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.partition("FOUND")[2])
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with the demo's pipeline."""
    shutil.copy(FLIGHTS, tmp_path / "flights.yaml")
    return tmp_path


def test_a_pipeline_is_a_dag_of_its_groups_and_imports_nothing_heavy(home: Path) -> None:
    """Each group is captured, applied and loaded; parsing loads no driver and no engine."""
    found = parse(home)
    steps = ("apply", "capture", "load")
    groups = ("flights", "registry", "weather")
    assert found["errors"] == {}
    transforms = [f"transforms.{s}" for s in ("apply", "load", "transform")]
    steps_of = [f"{g}.{s}" for g in groups for s in steps]
    assert found["dags"] == {
        "naviglio_flights": sorted([*steps_of, *transforms]), "naviglio_flights.watch": ["start"],
    }  # fmt: skip
    assert found["heavy"] == []
    # Of a step one task at a time; begun work goes first; one Spark on the machine.
    spark = found["how"].pop("transforms.transform")
    start = found["how"].pop("start")
    assert (spark[0], spark[1], start[3]) == ("naviglio_spark", 1, 3)
    assert {tuple(how) for how in found["how"].values()} == {("default_pool", 1, "upstream", 5)}
    # A failed transform fails the run, though what others landed is applied nonetheless.
    assert found["after"]["transforms.load"] == ["transforms.apply", "transforms.transform"]


def test_parsing_twice_writes_the_same(home: Path) -> None:
    """Two processes serialise every DAG to the same hash: no version is made by parsing."""
    (home / "daily.yaml").write_text(
        "source: a\ntarget: b\nschedule: {cron: '0 6 * * *'}\ntags: [z, a]\nowner: ann\n"
        "max_active_runs: 3\ntime_zone: Europe/Rome\ntables: {t: {capture: diff}}\n"
    )
    one, other = parse(home, PYTHONHASHSEED="0"), parse(home, PYTHONHASHSEED="7")
    assert one["written"] == other["written"]
    assert len(one["written"]) == 3
    summary, most, tags, owner = one["runs"]["naviglio_daily"]
    assert (most, tags, owner) == (3, ["a", "naviglio", "z"], "ann")
    assert "0 6 * * *" in summary


def test_a_broken_file_takes_no_other_down(home: Path) -> None:
    """Its mistakes are an import error that names file, line and key; the others stay."""
    (home / "broken.yaml").write_text("source: a\ntarget: b\ntables: {t: {capture: dif}}\n")
    found = parse(home)
    assert sorted(found["dags"]) == ["naviglio_flights", "naviglio_flights.watch"]
    ((file, told),) = found["errors"].items()
    assert file.endswith("pipeline_errors.py")
    assert "broken.yaml:3: tables.t.capture" in told
    assert "Did you mean 'diff'?" in told


def test_a_task_parses_its_own_pipeline_only(home: Path) -> None:
    """Where Airflow says which DAG it wants, no other is built, and no broken file matters."""
    (home / "other.yaml").write_text("source: a\ntarget: b\ntables: {t: {capture: diff}}\n")
    (home / "renamed.yaml").write_text(
        "pipeline: odd\nsource: a\ntarget: b\ntables: {u: {capture: diff}}\n"
    )
    names = ("naviglio_other", "naviglio_odd", "naviglio_flights", "naviglio_flights.watch")
    for name in names:
        found = parse(home, _AIRFLOW_PARSING_CONTEXT_DAG_ID=name)
        assert (list(found["dags"]), found["errors"]) == ([name], {})


def test_a_pipeline_follows_the_partitions_of_tables(home: Path) -> None:
    """Scheduled on assets it runs for a day once all of them published it; it stays one DAG."""
    (home / "mart.yaml").write_text(
        "source: a\ntarget: b\ntables: {t: {capture: diff}}\n"
        "schedule: {assets: [warehouse/flights.flights, lake/flights/planes]}\n"
    )
    found = parse(home)
    assert found["errors"] == {}
    summary = found["runs"]["naviglio_mart"][0]
    assert "PartitionedAssetTimetable" in summary
    assert "naviglio://warehouse/flights.flights" in summary
    assert "naviglio://lake/flights/planes" in summary


def test_many_groups_become_lanes(home: Path) -> None:
    """Beyond twenty groups a step is a task for each lane, not for each group."""
    tables = ", ".join(f"t{n}: {{capture: diff}}" for n in range(50))
    (home / "many.yaml").write_text(f"source: a\ntarget: b\nlanes: 3\ntables: {{{tables}}}\n")
    tasks = parse(home)["dags"]["naviglio_many"]
    assert len(tasks) == 9
    assert {task.partition(".")[0] for task in tasks} == {"lane_1", "lane_2", "lane_3"}


def test_two_hundred_pipelines_cost_little_each(home: Path) -> None:
    """Each file is read once by each of the two DAG files; nothing connects, no driver is loaded.

    The bound in seconds of CPU is generous, five times the 5 ms that `python -m benchmarks.parse`
    shows: what it would catch is work that grows with the number of the others.
    """
    for number in range(200):
        (home / f"p{number}.yaml").write_text(FILE.format(number))
    (home / "flights.yaml").unlink()
    found = parse(home)
    assert (found["errors"], len(found["dags"])) == ({}, 200)
    ours = {name: n for name, n in found["opened"].items() if name.startswith(str(home))}
    assert (len(ours), set(ours.values())) == (200, {2})
    assert (found["connected"], found["heavy"]) == ([], [])
    assert found["seconds"] < 200 * 0.025


def test_the_documented_dags_parse(home: Path) -> None:
    """What docs/airflow.md shows are DAGs."""
    text = (ROOT / "docs" / "airflow.md").read_text()
    (home / "dags").mkdir()
    for number, part in enumerate(text.split("```python\n")[1:]):
        (home / "dags" / f"shown_{number}.py").write_text(part.partition("```")[0])
    found = parse(home, dags=home / "dags")
    assert found["errors"] == {}
    assert found["dags"] == {
        "flights_nightly": ["apply", "capture", "keep", "load", "prove"],
        "report_delays": ["report"],
    }
