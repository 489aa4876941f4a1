"""Readings that many browsers share, so that their number is no load on sources and targets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

MOST_AT_ONCE = 8  # threads: what hangs holds up its own reading and no more than that


@dataclass
class Shared:
    """Answers by key, each asked at most once at a time and kept for `keep_s` seconds.

    A question that hangs is awaited by all who ask it, each for as long as they want; it is not
    asked a second time meanwhile. Belongs to one event loop.
    """

    keep_s: float
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="naviglio")
    )
    _asked: dict[Hashable, tuple[asyncio.Future[Any], float]] = field(default_factory=dict)

    async def ask(self, key: Hashable, question: Callable[..., Any], *arguments: object) -> Any:
        """Return the answer; raises what the question raised."""
        answer, fresh_until = self._asked.get(key, (None, 0.0))
        if answer is None or (answer.done() and time.monotonic() > fresh_until):
            loop = asyncio.get_running_loop()
            answer = loop.run_in_executor(self._threads, question, *arguments)
            self._asked[key] = (answer, float("inf"))
            answer.add_done_callback(lambda done: self._came(key, done))
        return await asyncio.shield(answer)

    def forget(self, key: Hashable) -> None:
        """Ask anew next time."""
        self._asked.pop(key, None)

    def _came(self, key: Hashable, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled():
            answer.exception()  # seen, though perhaps by nobody else
        if self._asked.get(key, (None, 0.0))[0] is answer:
            self._asked[key] = (answer, time.monotonic() + self.keep_s)
