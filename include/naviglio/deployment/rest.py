"""Airflow's REST API, as far as the demo and the tests use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from naviglio.deployment.settings import ADMIN, Place
from naviglio.deployment.users import password
from naviglio.errors import RetryableError, TargetError

_PAUSE_S = 0.5
_CALL_S = 30.0
_PAGE = 100
_FINAL = ("success", "failed")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that ended: its state, its tasks' states, and what they counted, summed by name."""

    id: str
    state: str
    tasks: dict[str, str]
    counts: dict[str, int]


@dataclass(frozen=True)
class Airflow:
    """An embedded Airflow, spoken to as its admin; `limit_s` bounds every wait."""

    place: Place
    limit_s: float = 300.0
    _client: list[httpx.Client] = field(default_factory=list)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer's JSON; TargetError with what Airflow says, RetryableError without."""
        try:
            answer = self._open().request(method, f"/api/v2/{path}", json=body)
        except httpx.TransportError as error:
            raise RetryableError(
                f"Airflow at {self.place.url} doesn't answer ({type(error).__name__}). Run "
                "`naviglio airflow start` again."
            ) from error
        if answer.is_error:
            raise TargetError(f"Airflow refused {method} {path}: {answer.text}")
        return answer.json() if answer.content else None

    def ready(self, dag: str) -> None:
        """Wait until a DAG is parsed; then let its runs begin."""
        self.until(lambda: dag in self.dags(), f"DAG {dag} is not there")
        self.call("PATCH", f"dags/{dag}", {"is_paused": False})

    def pause(self, dag: str) -> None:
        """Let no run of a DAG begin by itself, once it is parsed."""
        self.until(lambda: dag in self.dags(), f"DAG {dag} is not there")
        self.call("PATCH", f"dags/{dag}", {"is_paused": True})

    def next_run(self, dag: str, known: set[str]) -> str:
        """Wait until a run begins that is not one of `known`; return its id."""
        self.until(lambda: bool(self.runs(dag) - known), f"no run of {dag} began")
        return min(self.runs(dag) - known)

    def running(self, dag: str, run: str, task: str) -> int:
        """Wait until a task of a run is at work; return its process id."""
        path = f"dags/{dag}/dagRuns/{run}/taskInstances/{task}"
        found: dict[str, Any] = {}

        def is_running() -> bool:
            found.update(self.call("GET", path))
            return found["state"] == "running" and bool(found["pid"])

        self.until(is_running, f"task {task} of run {run} did not begin")
        return int(found["pid"])

    def fail(self, dag: str, run: str, task: str) -> None:
        """Mark a task as failed, as a person does by Airflow's button; one at work is ended."""
        path = f"dags/{dag}/dagRuns/{run}/taskInstances/{task}"
        self.call("PATCH", path, {"new_state": "failed"})

    def every(self, path: str, what: str) -> list[dict[str, Any]]:
        """Return all of a listing, page by page: Airflow gives no more than 100 at once."""
        found: list[dict[str, Any]] = []
        mark = "&" if "?" in path else "?"
        while True:
            page = self.call("GET", f"{path}{mark}limit={_PAGE}&offset={len(found)}")[what]
            found += page
            if len(page) < _PAGE:
                return found

    def keys(self, dag: str) -> set[str]:
        """Return the partition keys of the successful runs of a DAG."""
        return {run["partition_key"] for run in self._runs(dag, "&state=success")}

    def runs(self, dag: str) -> set[str]:
        """Return the ids of the runs of a DAG."""
        return {run["dag_run_id"] for run in self._runs(dag)}

    def _runs(self, dag: str, which: str = "") -> list[dict[str, Any]]:
        return self.every(f"dags/{dag}/dagRuns?order_by=-run_after{which}", "dag_runs")

    def dags(self) -> set[str]:
        """Return the ids of the DAGs that are parsed."""
        return {one["dag_id"] for one in self.every("dags", "dags")}

    def trigger(self, dag: str, partition_key: str | None = None, **form: Any) -> str:
        """Start a run by hand, with what its form says; return its id."""
        body = {"logical_date": None, "partition_key": partition_key, "conf": form}
        return str(self.call("POST", f"dags/{dag}/dagRuns", body)["dag_run_id"])

    def backfill(self, dag: str, first: str, last: str, *, at_once: int = 2) -> int:
        """Start a backfill of days, completed ones again; return its id."""
        body = {
            "dag_id": dag, "from_date": f"{first}T00:00:00Z", "to_date": f"{last}T23:59:00Z",
            "reprocess_behavior": "completed", "max_active_runs": at_once,
        }  # fmt: skip
        return int(self.call("POST", "backfills", body)["id"])

    def newest_backfill(self, dag: str) -> int:
        """Return the id of the backfill of a DAG that was started last."""
        return max(int(one["id"]) for one in self.every(f"backfills?dag_id={dag}", "backfills"))

    def runs_of(self, backfill: int, dag: str) -> list[str]:
        """Wait until a backfill is complete; return the ids of the DAG's backfill runs."""
        self.until(
            lambda: self.call("GET", f"backfills/{backfill}")["completed_at"] is not None,
            f"backfill {backfill} goes on",
        )
        return [run["dag_run_id"] for run in self._runs(dag, "&run_type=backfill")]

    def ended(self, dag: str, run: str) -> Run:
        """Wait until a run has ended; return what it did."""
        path = f"dags/{dag}/dagRuns/{run}"
        self.until(lambda: self.call("GET", path)["state"] in _FINAL, f"run {run} goes on")
        state = self.call("GET", path)["state"]
        tasks = self.every(f"{path}/taskInstances", "task_instances")
        counts: dict[str, int] = {}
        for task in tasks:
            for name, value in self._counts(path, task).items():
                counts[name] = counts.get(name, 0) + value
        states = {task["task_id"]: str(task["state"]) for task in tasks}
        return Run(id=run, state=state, tasks=states, counts=counts)

    def _counts(self, path: str, task: Mapping[str, Any]) -> dict[str, int]:
        if task["state"] != "success":
            return {}
        where = f"{path}/taskInstances/{task['task_id']}/xcomEntries?limit=10"
        if not any(x["key"] == "return_value" for x in self.call("GET", where)["xcom_entries"]):
            return {}
        entry = f"{path}/taskInstances/{task['task_id']}/xcomEntries/return_value"
        found = self.call("GET", entry)["value"]
        return {k: v for k, v in found.items() if isinstance(v, int)} if found else {}

    def until(self, done: Callable[[], bool], otherwise: str) -> None:
        """Wait until something is so; RetryableError, with what is otherwise, at the limit."""
        end = time.monotonic() + self.limit_s
        while not done():
            if time.monotonic() > end:
                raise RetryableError(
                    f"{otherwise} after {self.limit_s:.0f} s. Look at {self.place.url}, or at the "
                    f"logs in {self.place.folder}."
                )
            time.sleep(_PAUSE_S)

    def _open(self) -> httpx.Client:
        if not self._client:
            client = httpx.Client(base_url=self.place.url, timeout=_CALL_S)
            said = {"username": ADMIN, "password": password(self.place)}
            answer = client.post("/auth/token", json=said)
            answer.raise_for_status()
            client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            self._client.append(client)
        return self._client[0]

    def close(self) -> None:
        """Give back the connection."""
        while self._client:
            self._client.pop().close()
