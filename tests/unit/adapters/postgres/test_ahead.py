"""A thread that works ahead of its consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from naviglio.adapters.postgres.ahead import DEPTH, ahead


class Maker:
    """Makes numbers and remembers how many, until it is cancelled."""

    def __init__(self, count: int, fail_at: int = -1) -> None:
        self.count, self.fail_at = count, fail_at
        self.made = 0
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            if number == self.fail_at or self.cancelled.is_set():
                raise OSError("stopped")
            self.made += 1
            yield number

    def cancel(self) -> None:
        """Make the next number fail, as a cancelled statement does."""
        self.cancelled.set()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_all_items_come_in_order() -> None:
    """And nothing is cancelled."""
    maker = Maker(100)
    assert list(ahead(maker, maker.cancel)) == list(range(100))
    assert not maker.cancelled.is_set()


def test_an_error_comes_after_what_was_made() -> None:
    """Items made before an error are delivered, then it is raised."""
    maker = Maker(10, fail_at=3)
    found = []
    with pytest.raises(OSError, match="stopped"):
        for item in ahead(maker, maker.cancel):
            found.append(item)  # noqa: PERF402 - what came before the error counts
    assert found == [0, 1, 2]
    assert not maker.cancelled.is_set()


def test_memory_is_bounded() -> None:
    """A slow consumer holds the thread back."""
    maker = Maker(1000)
    items = ahead(maker, maker.cancel)
    next(items)
    time.sleep(0.05)
    assert maker.made <= DEPTH + 2
    items.close()


def test_a_consumer_that_stops_cancels() -> None:
    """The thread ends without making the rest."""
    maker = Maker(10**9)
    items = ahead(maker, maker.cancel)
    assert next(items) == 0
    items.close()
    assert maker.cancelled.is_set()


def test_a_consumer_that_stops_at_the_end_cancels_nothing() -> None:
    """What was made whole already needs no cancelling."""
    maker = Maker(2)
    items = ahead(maker, maker.cancel)
    next(items)
    time.sleep(0.05)
    items.close()
    assert not maker.cancelled.is_set()
