"""The test's hold on a victim: start it, see it struck, wake it, hear what became of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.chaos.victim import Errand, as_json

_ROOT = Path(__file__).parents[2]
_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class End:
    """How a process ended."""

    signal: int  # that killed it, 0 where it ended by itself
    struck: bool
    runs: tuple[tuple[str, ...], ...]  # of each run: the classes of its error and its text

    @property
    def well(self) -> bool:
        """Whether each of its runs ended well or may be tried again."""
        return all(run[0] == "NoneType" or "RetryableError" in run for run in self.runs)


class Victim:
    """One process; it never outlives its context."""

    def __init__(self, errand: Errand, urls: Mapping[str, str]) -> None:
        self.errand = errand
        self._log = Path(errand.folder, "victim.log")
        errand.told.unlink(missing_ok=True)
        paths = [str(_ROOT / "include"), str(_ROOT)]
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths),
                   "TMPDIR": errand.folder, "HOME": errand.folder}  # fmt: skip
        environ |= {f"NAVIGLIO_CONN_{conn_id.upper()}": url for conn_id, url in urls.items()}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.victim", as_json(errand)],
                cwd=_ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._status: int | None = None  # as `waitpid` tells it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.over:
            self._process.kill()
            self._process.wait()

    @property
    def over(self) -> bool:
        """Whether the process is no more."""
        return self._process.returncode is not None

    def struck(self, meanwhile: Callable[[], object] = lambda: time.sleep(0.002)) -> bool:
        """Wait until it is dead or frozen; True, or an error with what it said when unharmed."""
        status = self._waited(os.WUNTRACED, meanwhile)
        hit = os.WIFSTOPPED(status) or os.WIFSIGNALED(status)
        assert hit, f"it ended without being struck:\n{self._log.read_text()[-4000:]}"
        return hit

    def kill(self) -> None:
        """Kill it from outside."""
        self._process.send_signal(signal.SIGKILL)
        self._waited(0, lambda: time.sleep(0.002))

    def freeze(self) -> None:
        """Freeze it from outside."""
        self._process.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(self._waited(os.WUNTRACED, lambda: time.sleep(0.002)))

    def wake(self) -> None:
        """Let a frozen one go on."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> End:
        """Wait for its end."""
        if not self.over:
            self._waited(0, lambda: time.sleep(0.002))
        code = self._process.returncode
        assert code <= 0, f"the process failed:\n{self._log.read_text()[-4000:]}"
        if code < 0:
            return End(signal=-code, struck=True, runs=())
        told: dict[str, Any] = json.loads(self.errand.told.read_text())
        runs = tuple(tuple(run) for run in told["runs"])
        return End(signal=0, struck=told["struck"], runs=runs)

    def _waited(self, options: int, meanwhile: Callable[[], object]) -> int:
        until = time.monotonic() + _LIMIT_S
        while time.monotonic() < until:
            pid, status = os.waitpid(self._process.pid, options | os.WNOHANG)
            if pid:
                if not os.WIFSTOPPED(status):
                    self._process.returncode = os.waitstatus_to_exitcode(status)
                return status
            meanwhile()
        raise TimeoutError(f"the process hangs:\n{self._log.read_text()[-4000:]}")
