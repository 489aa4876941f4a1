"""Measuring: each step in a process of its own, contenders in turn, ratios within a round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one step took: seconds without imports, the peak RSS of its whole process."""

    seconds: float
    rss_mb: float
    told: dict[str, Any] = field(default_factory=dict)  # what the step says of its work


def take(step: str, environ: dict[str, str], **said: Any) -> Taken:
    """Run a step of `benchmarks.steps` in a fresh process."""
    return take_by([sys.executable, "-m", "benchmarks.steps", step], environ, **said)


def take_by(command: Sequence[str], environ: dict[str, str], **said: Any) -> Taken:
    """Run a program that reads what is said (URLs too) from stdin and ends with what it took."""
    paths = [str(ROOT), str(ROOT / "include"), os.environ.get("PYTHONPATH", "")]
    environ = {**os.environ, **environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody compiles all code at each start
    ran = subprocess.run(
        command, input=json.dumps(said), capture_output=True, text=True, check=False, cwd=ROOT,
        env=environ,
    )  # fmt: skip
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{ran.stderr[-4000:]}")
    return Taken(**json.loads(ran.stdout.splitlines()[-1]))


def peak_rss_mb() -> float:
    """Return this process's peak RSS; VmHWM, unlike ru_maxrss, starts anew with the program."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def timed(work: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """Do the work and return what it took, as `Taken` reads it."""
    begun = time.perf_counter()
    told = work() or {}
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "rss_mb": peak_rss_mb(), "told": told}


class Race:
    """Contenders that run in turn, each round in the other direction."""

    def __init__(self, **contenders: Callable[[int], Taken]) -> None:
        self._contenders = contenders
        self.taken: dict[str, list[Taken]] = {name: [] for name in contenders}

    def run(self, rounds: int) -> Race:
        """Run all rounds; show each result as it comes."""
        for number in range(rounds):
            names = list(self._contenders)
            for name in names if number % 2 == 0 else reversed(names):
                taken = self._contenders[name](number)
                self.taken[name].append(taken)
                show(f"  {number + 1} {name}: {taken.seconds:.2f} s, {taken.rss_mb:.0f} MB")
        return self

    def seconds(self, name: str) -> float:
        """Return a contender's median seconds."""
        return statistics.median(taken.seconds for taken in self.taken[name])

    def rss_mb(self, name: str) -> float:
        """Return a contender's highest peak RSS."""
        return max(taken.rss_mb for taken in self.taken[name])

    def ratio(self, name: str, to: str) -> list[float]:
        """Return seconds relative to another contender's of the same round."""
        pairs = zip(self.taken[name], self.taken[to], strict=True)
        return [one.seconds / other.seconds for one, other in pairs]

    def note(self, one: str, other: str) -> str:
        """Return the seconds and peak RSS of two contenders, for a result."""
        return " : ".join(f"{self.seconds(n):.2f} s, {self.rss_mb(n):.0f} MB" for n in (one, other))


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table; `values` hold one number a round, `bar` the most they may be."""

    what: str
    values: Sequence[float]
    bar: float | None  # None: shown, not bound
    unit: str = "x"
    note: str = ""

    def line(self) -> str:
        """Return it as a row of a Markdown table."""
        middle, low, high = statistics.median(self.values), min(self.values), max(self.values)
        spread = f" [{low:.2f}-{high:.2f}]" if len(self.values) > 1 else ""
        if self.bar is None:
            bar, reached = "", ""
        else:
            bar, reached = f"{self.bar:g}", "yes" if middle <= self.bar else "**no**"
        shown = f"{middle:.2f}{spread} {self.unit}"
        return f"| {self.what} | {shown} | {bar} | {reached} | {self.note} |"


HEADER = "| what | median [min-max] | bar | reached | seconds, peak RSS |\n|---|---|---|---|---|"


def show(text: str) -> None:
    """Print at once."""
    print(text, flush=True)
