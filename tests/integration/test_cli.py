"""The command line on the embedded server: the demo's whole story, then each command after it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from naviglio.cli import app
from naviglio.connections.connections import Connections

ROOT = Path(__file__).parents[2]
MAIN = "import sys; sys.argv[0] = 'naviglio'; from naviglio.cli import main; main()"


class Shell:
    """Runs commands as a user would."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.story: Any = None  # what the first demo told
        self.environ = {
            "NAVIGLIO_HOME": str(home),
            "NAVIGLIO_PIPELINES": str(ROOT / "include" / "pipelines"),
        }

    def run(self, line: str, code: int = 0) -> Result:
        """Run one line and expect its exit code."""
        ran = CliRunner(env=self.environ).invoke(app, line.split())
        assert ran.exit_code == code, f"{line}: {ran.exit_code}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def json(self, line: str, code: int = 0) -> Any:
        """Run one line with `--json` and return its document."""
        return json.loads(self.run(f"{line} --json", code).stdout)

    def url(self, conn_id: str) -> str:
        """Return one of the connections that `start` wrote."""
        return Connections({}, self.home / "connections.yaml").url(conn_id)

    def source(self, statement: str) -> None:
        """Change the source as its application would."""
        with psycopg.connect(self.url("operations_app"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def target(self, query: str) -> Any:
        """Ask the target."""
        with psycopg.connect(self.url("warehouse")) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A home in which the demo has been run."""
    made = Shell(tmp_path_factory.mktemp("cli") / "home")
    try:
        made.story = made.json("demo run")
        yield made
    finally:
        made.run("stop")


def test_the_demo_carries_every_row(shell: Shell) -> None:
    """What is found is landed and loaded, run by run; all agrees at the end."""
    told = shell.story
    assert (told["ok"], told["errors"]) == (True, [])
    steps = {step["step"].split(":")[0]: step for step in told["steps"]}
    first = next(s for s in told["steps"] if s["step"] == "run: first capture")
    assert first["captured"] == first["landed"] == first["inserted"] > 10_000
    assert len([step for step in told["steps"] if step["step"].startswith("run: changes")]) == 3
    assert steps["backfill 2013-01-01 to 2013-01-07"]["captured"] > 6_000
    assert {v["against"] for v in told["verdicts"]} == {"lake", "target"}
    assert sum(step["seconds"] for step in told["steps"]) < 120


def test_the_demo_may_be_repeated_and_ends_with_a_table(shell: Shell) -> None:
    """Each time afresh, with rows and seconds by step; no password in the address that it shows."""
    ran = shell.run("demo run")
    out = ran.stdout
    assert [line for line in ran.stderr.splitlines() if line.startswith("run: first capture: ")]
    assert "bin/psql" in out
    for step in shell.story["steps"]:
        if step["step"].startswith("play"):
            assert step["step"] in out
    assert "captured  landed  inserted  updated  deleted  seconds" in out
    assert "naviglio status flights" in out
    password = shell.url("warehouse").split(":")[2].split("@")[0]
    assert password not in out


def test_status_shows_every_side_at_the_same_batch(shell: Shell) -> None:
    """After a run nothing lags, nothing asks, no attempt is left."""
    (told,) = shell.json("status flights")["pipelines"]
    assert (told["questions"], told["attempts"], told["away"]) == ([], [], {})
    captured = [table for table in told["tables"] if table["way"] != "transform"]
    assert len(captured) == 5
    for table in captured:
        assert table["batch"] == table["lake_batch"] == table["target_batch"] > 0
        assert table["lake_version"] == table["target_version"]
        assert table["behind_s"] > 0
    assert "flights" in shell.run("status").stdout


def test_plan_changes_nothing_and_foretells_the_run(shell: Shell) -> None:
    """The rows that it counts are those that the next run captures."""
    shell.run("demo advance --days 1")
    before = sorted(str(path) for path in shell.home.rglob("*") if "postgres" not in str(path))
    shell.source("select pg_sleep(1.2)")
    planned = {t["table"]: t for t in shell.json("plan flights")["tables"]}
    after = sorted(str(path) for path in shell.home.rglob("*") if "postgres" not in str(path))
    assert before == after
    assert planned["flights"]["action"] == "changes"
    assert planned["planes"]["action"] == "compare"
    ran = {t["table"]: t for t in shell.json("run flights")["tables"]}
    assert ran["weather"]["captured"] == planned["weather"]["rows"] > 0
    assert ran["flights"]["captured"] == planned["flights"]["rows"] > 0


def test_plan_tells_how_targets_would_be_loaded(shell: Shell) -> None:
    """What is loaded needs nothing; a target whose ledger row is gone would be compared whole."""
    loads = {t["table"]: t for t in shell.json("plan flights --load")["loads"]}
    assert {t["way"] for t in loads.values()} == {"nothing"}
    assert "daily_delays" in loads
    forget = "delete from naviglio.ledger where target = 'flights.airlines'"
    with psycopg.connect(shell.url("warehouse"), autocommit=True) as connection:
        connection.execute(forget)
    try:
        loads = {t["table"]: t for t in shell.json("plan flights --load --table airlines")["loads"]}
    finally:
        shell.run("run flights --table airlines")
    assert (loads["airlines"]["way"], loads["airlines"]["lake_rows"]) == ("merge", 16)
    assert "first load" in loads["airlines"]["why"]
    assert "airlines" in shell.run("plan flights --load").stdout


def test_a_run_with_nothing_to_do_says_so(shell: Shell) -> None:
    """The second run lands nothing and loads nothing."""
    shell.source("select pg_sleep(1.2)")
    shell.run("run flights")
    ran = shell.run("run flights")
    assert "Nothing to do" in ran.stdout
    assert ran.stderr == ""


def test_partitions_run_one_batch_a_day_in_order(shell: Shell) -> None:
    """Only tables with an event time take part."""
    told = shell.json("run flights --from 2013-01-02 --to 2013-01-03")["tables"]
    # The transforms come after all partitions.
    assert [(t["table"], t["partition"], t["kind"]) for t in told if t["partition"]] == [
        (table, day, "window")
        for table in ("flights", "weather")
        for day in ("2013-01-02", "2013-01-03")
    ]
    planned = shell.json("plan flights --partition 2013-01-02 --table weather")["tables"]
    assert [(t["action"], t["windows"]) for t in planned] == [("windows", ["2013-01-02"])]


def test_history_names_batches_and_versions(shell: Shell) -> None:
    """Newest first, as many as asked for; each version names its batch."""
    told = shell.json("history flights flights --limit 3")
    numbers = [batch["number"] for batch in told["batches"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == len(told["versions"]) == 3
    assert told["versions"][0]["batch"] >= numbers[0]


def test_validate_connects_to_both_sides(shell: Shell, tmp_path: Path) -> None:
    """Keys come from the source; a column that isn't there is named, with the known ones."""
    (told,) = shell.json("validate flights --connect")["pipelines"]
    assert {t["table"]: t["key"] for t in told["tables"]}["airports"] == ["faa"]
    assert [t["problems"] for t in told["tables"]] == [[]] * 7
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        "source: operations\ntarget: warehouse\ntables:\n"
        "  planes: {capture: {where: changed}, deletes: none, target: other.planes}\n"
        "  nothing: {capture: diff}\n"
    )
    (bad,) = shell.json(f"validate {wrong} --connect", code=2)["pipelines"]
    planes, nothing = bad["tables"]
    assert "no column 'changed'" in planes["problems"][0]
    assert "tailnum" in planes["problems"][0]
    assert "nothing" in nothing["problems"][0]


def test_reconcile_names_the_keys_that_differ(shell: Shell) -> None:
    """A row changed behind the pipeline's back in the target fails it with 1."""
    with psycopg.connect(shell.url("warehouse"), autocommit=True) as connection:
        connection.execute("update flights.airlines set name = 'x' where carrier = 'AA'")
    try:
        told = shell.json("reconcile flights --table airlines", code=1)
        changed = {v["against"]: v["changed"] for v in told["verdicts"]}
        assert changed["target"] == {"count": 1, "keys": ["AA"]}
        assert "airlines, target: changed: AA" in shell.run("reconcile flights", code=1).stdout
    finally:
        shell.run("rebuild flights airlines")
    assert "Everything agrees" in shell.run("reconcile flights --table airlines").stdout


def test_a_mass_delete_waits_for_accept(shell: Shell) -> None:
    """The run ends with 7 and goes on with the other groups; accepted, the deletes land."""
    shell.source("create table kept as table airlines; delete from airlines")
    assert "naviglio accept flights --table airlines" in shell.run("run flights", code=7).stderr
    (question,) = shell.json("accept flights --list")["questions"]
    assert (question["table"], question["kind"]) == ("airlines", "mass delete")
    assert "question, airlines" in shell.run("status flights").stdout
    assert "wait for an answer" in shell.run("plan flights").stdout
    shell.run("accept flights --table airlines", code=2)  # nobody is there to confirm
    assert shell.json("accept flights --table airlines --yes")["accepted"] is True
    ran = {t["table"]: t for t in shell.json("run flights")["tables"]}
    assert ran["airlines"]["deleted"] == 16
    shell.source("insert into airlines table kept; drop table kept")
    shell.run("run flights")
    assert shell.target("select count(*) from flights.airlines") == [(16,)]


def test_maintain_tells_what_it_left_alone(shell: Shell) -> None:
    """Tables with few files stay as they are, and the answer says so, to people and as JSON."""
    assert "it has few files" in shell.run("maintain flights --table planes").stdout
    found = json.loads(shell.run("maintain flights --table planes --json").stdout)
    assert found["tables"] == [
        {"table": "planes", "lake_version": None, "files_before": None, "files_after": None}
    ]


def test_rebuild_and_resnapshot_end_at_the_same_rows(shell: Shell) -> None:
    """Neither changes a row of the target; those captured together come along."""
    (rebuilt,) = shell.json("rebuild flights weather")["tables"]
    assert (rebuilt["kind"], rebuilt["inserted"], rebuilt["deleted"]) == ("rebuild", 0, 0)
    ran = shell.run("resnapshot flights planes")
    assert "captured together: airports, airlines as well" in ran.stdout
    assert "asked by resnapshot" in ran.stdout
    shell.run("reconcile flights")


def test_progress_is_for_terminals(shell: Shell) -> None:
    """On a terminal rows and rates are shown while it works, on stderr, and cleared."""
    environ = {**os.environ, **shell.environ, "TERM": "xterm"}
    terminal, end = pty.openpty()
    try:
        ran = subprocess.run(
            [sys.executable, "-c", MAIN, "resnapshot", "flights", "flights"],
            stdout=subprocess.PIPE, stderr=end, env=environ,
            cwd=ROOT / "include", check=True,
        )  # fmt: skip
        shown = os.read(terminal, 1_000_000).decode()
    finally:
        os.close(end)
        os.close(terminal)
    assert "capture flights" in shown
    assert "rows" in shown
    assert "\x1b" not in ran.stdout.decode()


def test_a_server_that_is_away_is_told_on_every_command(shell: Shell) -> None:
    """Status shows what it knows; work ends with the code of what to do; start mends it."""
    shell.run("stop")
    try:
        found = shell.run("status flights").stdout
        assert "source gives no answer" in found
        (told,) = shell.json("status flights")["pipelines"]
        assert told["tables"][0]["lake_batch"] == told["tables"][0]["batch"]
        assert "Run `naviglio start`" in shell.run("run flights", code=75).output
        told = shell.run("validate flights --connect", code=75).stderr
        assert told.startswith("RetryableError: pipeline 'flights': ")
        assert ".." not in told
        shell.run("plan flights", code=75)
    finally:
        shell.run("start")
    shell.run("run flights")
