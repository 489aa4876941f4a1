"""Workers that stop at every named point until a test lets one of them go on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from naviglio.points import listening


class Ended(BaseException):
    """Ends a frozen worker's thread when its test is over."""


class Worker:
    """A call that runs in a thread of its own, from one named point to the next."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.at = "start"
        self.done = False
        self.error: BaseException | None = None
        self._call = call
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._end = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def thread(self) -> int | None:
        """The id of its thread."""
        return self._thread.ident

    def step(self) -> None:
        """Let it run to its next point, or to its end."""
        if self.done:
            return
        self._go.release()
        if not self._stopped.acquire(timeout=60):
            raise TimeoutError(f"the worker hangs after {self.at!r}")

    def finish(self) -> None:
        """Let it run to its end."""
        while not self.done:
            self.step()

    def end(self) -> None:
        """End it where it stands, without letting it do anything more."""
        self._end = True
        while not self.done:
            self.step()
        self._thread.join(timeout=60)

    def _reach(self, point: str) -> None:
        if self._end:
            raise Ended
        self.at = point
        self._stopped.release()
        self._go.acquire()
        if self._end:
            raise Ended

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._end:
                with listening(self._reach):
                    self._call()
        except BaseException as error:  # noqa: BLE001 - what ended it is the test's to judge
            self.error = error
        self.done = True
        self._stopped.release()
