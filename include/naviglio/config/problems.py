"""What is wrong in a file, and how it is told: where, what, the known values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from naviglio.errors import ConfigError

Place = tuple[str | int, ...]  # the keys and list indexes that lead to a value


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake; line 0 is the file as a whole."""

    text: str
    place: Place = ()
    line: int = 0


def config_error(path: Path, problems: Iterable[Problem]) -> ConfigError:
    """Return one error that tells all problems of a file, one on a line, from its top down."""
    told = (_tell(path, problem) for problem in sorted(problems, key=lambda one: one.line))
    return ConfigError("\n".join(dict.fromkeys(told)))


def _tell(path: Path, problem: Problem) -> str:
    where = f"{path}:{problem.line}" if problem.line else str(path)
    return f"{where}: {_dotted(problem.place)}{problem.text}"


def _dotted(place: Place) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{''.join(parts).removeprefix('.')}: " if place else ""
