"""The DAG's own tasks, executed in order over real databases."""

from __future__ import annotations

from contextlib import suppress
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, cast

import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from naviglio.errors import ConfigError, LostRaceError
from naviglio.model import Group
from naviglio.points import listening
from naviglio_airflow.dags import dag_of
from naviglio_airflow.operators import (
    CaptureOperator,
    MaintainOperator,
    NaviglioOperator,
    ReconcileOperator,
    told_to_airflow,
)
from tests.dags.told import context, path_of
from tests.integration.lines import Line

STEPS = ("capture", "apply", "load")
PAGE = (Path(__file__).parents[2] / "docs" / "airflow.md").read_text("utf-8")
SHOWN = [part.partition("```")[0] for part in PAGE.split("```python\n")[1:]]


def run(line: Line, told: Context) -> dict[str, dict[str, int] | None]:
    """Execute every task of the pipeline's DAG, in order; return what each one counted.

    None stands for a task that was skipped.
    """
    tasks = dag_of(line.pipeline, path_of(line)).task_dict
    ordered = [f"{group.name}.{step}" for group in line.pipeline.groups for step in STEPS]
    assert set(tasks) == set(ordered)
    found: dict[str, dict[str, int] | None] = dict.fromkeys(ordered)
    for name in ordered:
        with suppress(AirflowSkipException):
            found[name] = NaviglioOperator.execute(cast("NaviglioOperator", tasks[name]), told)
    return found


def counts(found: dict[str, int] | None) -> dict[str, int]:
    """Return what a task counted that was not skipped."""
    assert found is not None
    return found


def test_a_run_drains_and_the_next_finds_nothing(line: Line) -> None:
    """A scheduled run carries all tables; XComs are counts; nothing new is nothing done."""
    found = run(line, context("scheduled", "2013-01-05"))
    assert found["t.capture"] == {"batches": 1, "upserts": 4, "deletes": 0}
    assert counts(found["t.load"])["inserted"] == 4
    assert counts(found["r.load"])["inserted"] == 1
    assert line.agrees("t")
    assert line.agrees("r")
    again = run(line, context("scheduled", "2013-01-06"))
    assert sum(sum(counts(one).values()) for one in again.values()) == 0


def test_a_backfill_reads_its_day_again_and_no_registry(line: Line) -> None:
    """Rows gone from the day are deletes; the registry table's change waits for a draining run."""
    run(line, context())
    before = line.batches("t")[-1].position.tables["t"].stream
    line.source(
        "DELETE FROM t WHERE id = 2", "UPDATE t SET x = 'quiet' WHERE id = 3",
        "UPDATE r SET x = 'b'",
    )  # fmt: skip
    found = run(line, context("backfill", "2013-01-07"))
    assert counts(found["t.capture"])["batches"] == 1
    assert {found[f"r.{step}"] for step in STEPS} == {None}
    assert line.batches("t")[-1].position.tables["t"].stream == before
    assert {row[0] for row in line.target_rows("t")} == {"1", "3", "4"}
    assert {row[3] for row in line.target_rows("t")} == {"v1", "v3", "v4"}
    assert line.target("SELECT x FROM r") == [("a",)]


def test_the_form_chooses_tables(line: Line) -> None:
    """Only the groups of the chosen tables run."""
    found = run(line, context(tables=["r"]))
    assert {found[f"t.{step}"] for step in STEPS} == {None}
    assert counts(found["r.capture"])["batches"] == 1


def test_the_form_reads_a_day_again(line: Line) -> None:
    """As a partition key does; two that differ, and words that the form doesn't have, fail."""
    run(line, context())
    line.source("UPDATE t SET x = 'quiet' WHERE id = 2")
    assert counts(run(line, context(day="2013-01-07"))["t.capture"])["upserts"] == 1
    assert line.agrees("t")
    with pytest.raises(AirflowFailException, match=r"2013-01-07.*2013-01-08"):
        run(line, context("manual", "2013-01-07", day="2013-01-08"))
    told = context()
    told["dag_run"].conf = {"tabels": ["t"]}
    with pytest.raises(AirflowFailException, match=r"'tabels'.* has day, tables, verify"):
        run(line, told)


def test_operators_work_by_hand(line: Line) -> None:
    """Reconcile names the key that differs; maintain leaves small tables alone."""
    run(line, context())
    prove = ReconcileOperator(task_id="prove", pipeline=str(path_of(line)))
    assert NaviglioOperator.execute(prove, context()) == {"comparisons": 4}
    line.target("UPDATE r SET x = 'wrong'")
    with pytest.raises(AirflowFailException, match=r"r against target: 1 changed \(.*1.*\)"):
        NaviglioOperator.execute(prove, context())
    keep = MaintainOperator(task_id="keep", pipeline=str(path_of(line)))
    assert NaviglioOperator.execute(keep, context()) == {"compacted": 0}


def test_the_documented_dag_runs(line: Line) -> None:
    """The hand-written DAG of docs/airflow.md carries, proves and keeps a pipeline's tables."""
    [shown] = [part for part in SHOWN if "flights_nightly" in part]
    path = "/srv/naviglio/include/pipelines/flights.yaml"
    assert path in shown
    made: dict[str, Any] = {}
    exec(shown.replace(path, str(path_of(line))), made)  # noqa: S102 - it is our own page
    tasks = cast("DAG", made["keep"].dag).task_dict
    order = TopologicalSorter({name: task.upstream_task_ids for name, task in tasks.items()})
    found = {
        name: NaviglioOperator.execute(cast("NaviglioOperator", tasks[name]), context("scheduled"))
        for name in order.static_order()
    }
    assert list(found) == ["capture", "apply", "load", "prove", "keep"]
    assert (found["capture"]["upserts"], found["prove"]) == (5, {"comparisons": 4})
    assert line.agrees("t")
    assert line.agrees("r")


def test_an_unknown_group_is_named(line: Line) -> None:
    """With the known ones; a single name may stand without a list."""
    path = str(path_of(line))
    task = CaptureOperator(task_id="c", pipeline=path, groups=["t", "orders"])
    with pytest.raises(AirflowFailException, match="no group 'orders'; it has t, r"):
        NaviglioOperator.execute(task, context())
    one = CaptureOperator(task_id="c", pipeline=path, groups="r")
    assert NaviglioOperator.execute(one, context())["upserts"] == 1


def test_a_lane_goes_on_after_a_group_that_fails(line: Line) -> None:
    """The other groups of the task are done, and it fails with what the one said."""
    line.source("DROP TABLE t")
    lane = CaptureOperator(task_id="lane", pipeline=str(path_of(line)))
    with pytest.raises(AirflowFailException, match=r"\.t"):
        NaviglioOperator.execute(lane, context())
    assert len(line.batches("r")) == 1


def test_only_what_trying_again_may_mend_is_retried() -> None:
    """A lost race is retried; a mistake in the configuration fails at once; both say why."""
    with pytest.raises(AirflowException, match="lost") as lost, told_to_airflow():
        raise LostRaceError("lost")
    assert not isinstance(lost.value, AirflowFailException)
    with pytest.raises(AirflowFailException, match="wrong"), told_to_airflow():
        raise ConfigError("wrong")


def test_a_task_that_is_ended_takes_back_what_it_had_begun(line: Line) -> None:
    """Ended in the middle of a step it leaves no attempt's files and no staging table."""
    tasks = dag_of(line.pipeline, path_of(line)).task_dict
    attempts = line.home.landing / line.name / "t" / "data"
    for step, point in (("capture", "capture: before manifest"), ("load", "load: before commit")):
        task = cast("NaviglioOperator", tasks[f"t.{step}"])
        ended = [point]

        def end(name: str, task: NaviglioOperator = task, ended: list[str] = ended) -> None:
            if name in ended:
                ended.remove(name)
                task.on_kill()  # as Airflow does by a signal, at any instruction

        with listening(end), pytest.raises(SystemExit, match="was ended"):
            NaviglioOperator.execute(task, context())
        task.on_kill()  # nothing is at work any more
        if step == "capture":
            assert list(attempts.glob("*")) == []
            run_steps(tasks, "t.capture", "t.apply")
    assert line.target("SELECT FROM pg_tables WHERE schemaname = 'naviglio' AND tablename ~ '^s_'"
                       ) == []  # fmt: skip
    run(line, context())
    assert line.agrees("t")


def test_a_lane_that_is_ended_begins_no_other_group(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a library made an error of the end, and the group failed by that."""
    lane = CaptureOperator(task_id="lane", pipeline=str(path_of(line)))
    begun = []

    def step(_: object, group: Group, __: object) -> dict[str, int]:
        begun.append(group.name)
        with suppress(SystemExit):
            lane.on_kill()
        raise LostRaceError("made of it")

    monkeypatch.setattr(lane, "step", step)
    with pytest.raises(SystemExit, match="was ended"):
        NaviglioOperator.execute(lane, context())
    assert len(begun) == 1


def run_steps(tasks: dict[str, Any], *names: str) -> None:
    """Execute some tasks in order."""
    for name in names:
        NaviglioOperator.execute(cast("NaviglioOperator", tasks[name]), context())
