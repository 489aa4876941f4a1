"""Rows and rates of what is being done, on stderr and only where somebody looks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from naviglio.cli.answers import complain, console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Watch:
    """Hears of rows by stage and table; shows nothing unless it was given a display.

    With `lines` what is done is told on stderr, a line each, where there is no display.
    """

    def __init__(self, display: Progress | None = None, *, lines: bool = False) -> None:
        self._display = display
        self._lines = lines and display is None
        self._tasks: dict[str, TaskID] = {}
        self._current = ""

    def tell(self, stage: str, table: str, rows: int) -> None:
        """Count rows of one stage of one table."""
        self.step(f"{stage} {table}", rows)

    def step(self, name: str, rows: int = 0) -> None:
        """Show that something is being done; what was shown before is over."""
        if self._display is None:
            return
        if name != self._current:
            if self._current:
                self._display.stop_task(self._tasks[self._current])
            self._display.reset(self._task(name), start=True)
            self._current = name
        self._display.advance(self._task(name), rows)

    def done(self, what: str) -> None:
        """Tell of something that is done."""
        if self._lines:
            complain(what)

    def _task(self, name: str) -> TaskID:
        assert self._display is not None  # noqa: S101 - `step` asked
        if name not in self._tasks:
            self._tasks[name] = self._display.add_task(name, total=None)
        return self._tasks[name]


@contextmanager
def watching(*, lines: bool = False) -> Iterator[Watch]:
    """Show progress until the end, then clear it.

    In pipes, and where lines are logged, it is silent but for `lines` of what is done.
    """
    if not sys.stderr.isatty() or logging.getLogger("naviglio").isEnabledFor(logging.INFO):
        yield Watch(lines=lines)
        return
    from rich.progress import Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn

    class _Rate(TextColumn):
        def render(self, task: Task) -> str:  # type: ignore[override]  # rich renders a str as well
            rate = task.finished_speed or task.speed
            return f"{rate:,.0f} rows/s" if rate else ""

    columns = (
        SpinnerColumn(), TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f} rows", justify="right"), _Rate(""), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console(stderr=True), transient=True) as display:
        yield Watch(display)
