"""Work ahead of a consumer: a thread decodes while the batch before is written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
DEPTH = 2  # finished items that wait; one more is in the making


class _End:
    """What the thread puts last: why it ended, None when all was made."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Iterable[T], cancel: Callable[[], None]) -> Generator[T, None, None]:
    """Yield `items` from a thread that is at most `DEPTH` + 1 of them ahead.

    Errors of the thread are raised here. When the consumer stops early, `cancel` is called (from
    the consumer's thread) unless all was made already, and the thread has ended on return.
    """
    ready: queue.Queue[T | _End] = queue.Queue(DEPTH)
    stopped = threading.Event()
    thread = threading.Thread(
        target=_make, args=(items, ready, stopped), name="naviglio-read-ahead", daemon=True
    )
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        if not _ended(thread, ready):
            cancel()
        _drain(thread, ready)


def _make(items: Iterable[T], ready: queue.Queue[T | _End], stopped: threading.Event) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            ready.put(item)
            if stopped.is_set():
                break
    except BaseException as raised:  # noqa: BLE001 - raised again by the consumer
        error = raised
    ready.put(_End(error))


def _ended(thread: threading.Thread, ready: queue.Queue[T | _End]) -> bool:
    """Tell whether the thread has made all; its end may still wait behind other items."""
    with ready.mutex:
        has_end = bool(ready.queue) and isinstance(ready.queue[-1], _End)
    return has_end or not thread.is_alive()


def _drain(thread: threading.Thread, ready: queue.Queue[T | _End]) -> None:
    """Take what the thread still puts until it has ended."""
    while thread.is_alive():
        try:
            ready.get(timeout=0.02)
        except queue.Empty:
            continue
    thread.join()
