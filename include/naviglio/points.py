"""Named points between two effects, where a test may stop, kill or reorder a worker.

In production nobody listens and `reach` costs one look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

NAMES = (
    "capture: after head",
    "capture: after fence",
    "capture: after snapshot",
    "capture: after files",
    "capture: before manifest",
    "capture: after manifest",
    "apply: before commit",
    "apply: after commit",
    "compact: before commit",
    "load: after staging",
    "load: before commit",
    "load: between ranges",
    "load: after commit",
)

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


def reach(name: str) -> None:
    """Tell the listener of this context, if any, that `name` (one of `NAMES`) is reached."""
    listener = _listener.get()
    if listener is not None:
        listener(name)


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Have `listener` called at every point that this context reaches."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
