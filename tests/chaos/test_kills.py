"""Real processes, killed or frozen before, during and after each of the three commits.

After each: what anybody can see was never half done, and the next runs heal. A frozen process that
is woken, when others have long gone on, changes nothing that they did.

Each case is named by where it is struck, the way of capture, how, and what runs beside it. The
whole matrix runs with NAVIGLIO_CHAOS_FULL=1 (`make chaos`).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pytest

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.errors import NaviglioError
from tests.chaos.process import Victim
from tests.chaos.scene import Scene, State, may_retry
from tests.chaos.victim import AFTER_LINK, BEFORE_LINK, IN_MERGE, How, Way

FULL = bool(os.environ.get("NAVIGLIO_CHAOS_FULL"))
Beside = Literal["alone", "beside"]
PLACES = (
    "capture: after head", "capture: after snapshot", "capture: after files",
    "capture: before manifest", BEFORE_LINK, AFTER_LINK, "capture: after manifest",
    "apply: before commit", IN_MERGE, "apply: after commit",
    "load: after staging", "load: before commit", "load: after commit",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    where: str
    way: Way
    how: How
    beside: Beside

    def __str__(self) -> str:
        where = self.where.replace(": ", "-").replace(" ", "-")
        return f"{where}-{self.way}-{self.how}-{self.beside}"


MATRIX = [
    Case(where, way, how, beside)
    for where in PLACES
    for way in get_args(Way)
    for how in ("kill", "stop")
    for beside in get_args(Beside)
]
SAMPLE = [
    Case("capture: before manifest", "stream", "stop", "alone"),
    Case(BEFORE_LINK, "diff", "kill", "beside"),
    Case(AFTER_LINK, "verify", "kill", "alone"),
    Case("apply: before commit", "partition", "stop", "beside"),
    Case(IN_MERGE, "diff", "stop", "alone"),
    Case("apply: after commit", "snapshot", "kill", "beside"),
    Case("load: after staging", "verify", "stop", "alone"),
    Case("load: before commit", "diff", "stop", "alone"),
]


@contextmanager
def begun(cluster: Cluster, folder: Path, way: Way) -> Iterator[Scene]:
    """Make a table whose first run is done, with changes that no run has seen yet."""
    scene = Scene(cluster.urls(), folder, way)
    try:
        assert scene.run() is None
        scene.live()
        yield scene
    finally:
        scene.close()


@pytest.mark.parametrize("case", MATRIX if FULL else SAMPLE, ids=str)
def test_struck_at(case: Case, cluster: Cluster, tmp_path: Path) -> None:
    """Whatever is struck, wherever: nothing is lost or doubled, the next runs heal."""
    with begun(cluster, tmp_path, case.way) as scene:
        if case.beside == "beside":
            _beside(scene, case)
        else:
            _alone(scene, case)
        scene.heal()


def _alone(scene: Scene, case: Case) -> None:
    """Strike the only run; a long transaction of the source commits after the blow."""
    with scene.long_transaction() as late:
        scene.live()
        with scene.victim(case.where, case.how, lock_wait_s=2) as victim:
            assert victim.struck()
            scene.live()
            late.commit()
            if case.how == "kill":
                assert victim.end().signal == signal.SIGKILL
                assert may_retry(scene.run())
                return
            _wake_late(scene, case, victim)


def _wake_late(scene: Scene, case: Case, victim: Victim) -> None:
    """Let another run complete, then wake the frozen one: all stays as the other has left it."""
    error = scene.run()
    assert error is None, error
    before, rows = scene.state(), scene.rows_of_source()
    victim.wake()
    end = victim.end()
    assert end.struck
    assert end.well, end
    _unchanged(scene, case, before)
    assert scene.rows_of_lake() == scene.rows_of_target() == rows


def _unchanged(scene: Scene, case: Case, before: State) -> None:
    """A woken run that lost its race captures again, as it was asked to: rows asked for whole."""
    if case.way not in ("partition", "snapshot"):
        assert scene.state() == before


def _beside(scene: Scene, case: Case) -> None:
    """Strike one of two workers that both run all the time, while the source goes on."""
    with _Neighbour(scene) as neighbour, scene.long_transaction() as late:
        with scene.victim(case.where, case.how, runs=500, lock_wait_s=2) as victim:
            assert victim.struck(meanwhile=scene.live)
            late.commit()
            neighbour.wait_for(2, meanwhile=scene.live)
            if case.how == "stop":
                victim.wake()
            end = victim.end()
            assert end.well, end
        neighbour.wait_for(1, meanwhile=scene.live)


class _Neighbour:
    """Runs the scene's pipeline again and again, in a thread."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._done, self._stop = threading.Semaphore(0), threading.Event()
        self._failed: list[NaviglioError | BaseException] = []
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> _Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
        assert not self._failed, self._failed

    def wait_for(self, runs: int, meanwhile: Callable[[], object]) -> None:
        """Wait until so many runs have begun and ended from now on."""
        for _ in range(runs + 1):
            while not self._done.acquire(timeout=0.01):
                assert self._thread.is_alive(), self._failed
                meanwhile()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                error = self._scene.run(lock_wait_s=3)
            except BaseException as unexpected:  # noqa: BLE001 - the test's own thread raises it
                self._failed.append(unexpected)
                return
            if error is not None and not may_retry(error):
                self._failed.append(error)
            self._done.release()
