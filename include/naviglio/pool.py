"""How long a connection waits, and which of its sessions are kept: as its URL says, for any vendor.

Only sessions that read are ever kept. One that writes holds locks that name its attempts, and may
act as somebody else: it is its client's alone, and ends with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, cast, get_args

from naviglio.errors import RetryableError

Keeping = Literal["none", "own", "shared"]
KEEPING: tuple[str, ...] = get_args(Keeping)
POOL_SIZE = 5
_LEAST = 2  # a client may ask the catalogue while it reads
_OLDEST_S = 1800  # a kept session is made anew after this


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a URL says of waiting and keeping; seconds, 0 waits without end.

    `none` opens a session for each use and ends it; `own` keeps those of one client, who can't be
    starved by another; `shared` keeps at most `pool_size` in a process, for all its clients.
    """

    login_timeout_s: int = 15
    lock_timeout_s: int = 60
    statement_timeout_s: int = 0
    pool: Keeping = "own"
    pool_size: int = POOL_SIZE


NAMES = tuple(name.removesuffix("_s") for name in Terms.__dataclass_fields__)


def taken(options: MutableMapping[str, str]) -> Terms:
    """Take the parameters of this module out of a URL's; ValueError says what is wrong of one."""
    said = {name: options.pop(name) for name in NAMES if name in options}
    pool = said.pop("pool", Terms.pool)
    if pool not in KEEPING:
        raise ValueError(f"pool is one of {', '.join(KEEPING)}")
    if wrong := [name for name, text in said.items() if not text.isdecimal()]:
        unit = "sessions" if wrong[0] == "pool_size" else "whole seconds"
        raise ValueError(f"{wrong[0]} is a number of {unit}")
    if int(said.get("pool_size", POOL_SIZE)) < _LEAST:
        raise ValueError(f"pool_size is {_LEAST} or more")
    return Terms(
        pool=cast("Keeping", pool),
        pool_size=int(said.pop("pool_size", POOL_SIZE)),
        **{f"{name}_s": int(text) for name, text in said.items()},
    )


class Session(Protocol):
    """An open session of any driver."""

    def close(self) -> None:
        """End it."""
        ...


S = TypeVar("S", bound=Session)


@dataclass(frozen=True, kw_only=True)
class Way(Generic[S]):
    """How one vendor's sessions are made, and made fit for the next who uses them."""

    open: Callable[[], S]
    wake: Callable[[S], bool]  # asks the server; False: it is gone
    rest: Callable[[S], bool]  # leaves no transaction, setting or lock; False: it could not


class Pool(Generic[S]):
    """Sessions of one login at one database, lent one at a time; safe for threads."""

    def __init__(self, way: Way[S], terms: Terms, where: str) -> None:
        from sqlalchemy import event  # late: a quarter of a second that not every command needs
        from sqlalchemy.exc import DisconnectionError
        from sqlalchemy.pool import NullPool, QueuePool

        def look(session: S, *_: object) -> None:
            if not way.wake(session):
                raise DisconnectionError  # the pool forgets it and opens another

        self._way, self._terms, self._where = way, terms, where
        make = cast("Callable[[], Any]", way.open)
        self._sessions = (
            NullPool(make, reset_on_return=None)
            if terms.pool == "none"
            else QueuePool(
                make, pool_size=terms.pool_size, max_overflow=0, recycle=_OLDEST_S, use_lifo=True,
                timeout=terms.login_timeout_s or threading.TIMEOUT_MAX, reset_on_return=None,
            )
        )  # fmt: skip
        event.listen(self._sessions, "checkout", look)

    @contextmanager
    def session(self) -> Iterator[S]:
        """Lend a session; after any error it is ended, never lent again."""
        from sqlalchemy.exc import InvalidRequestError
        from sqlalchemy.exc import TimeoutError as NoneFreeError

        try:
            lent = self._sessions.connect()
        except NoneFreeError:
            raise RetryableError(
                f"{self._where}: all {self._terms.pool_size} sessions of the pool are in use, for "
                f"{self._terms.login_timeout_s} s by now. Trying again is enough; or raise "
                "`pool_size`, or give each client its own by `pool=own`."
            ) from None
        except InvalidRequestError:
            raise RetryableError(
                f"{self._where}: sessions end as soon as they are opened. Trying again is enough "
                "once the server is back."
            ) from None
        rested = False
        try:
            session = cast("S", lent.dbapi_connection)
            yield session
            rested = self._way.rest(session)
        finally:
            if not rested:
                lent.invalidate()
            lent.close()

    def close(self) -> None:
        """End the sessions that nobody uses; those of a shared pool stay for others."""
        if self._terms.pool != "shared":
            self._sessions.dispose()


_shared: dict[tuple[int, str, str], Pool[Session]] = {}
_one_by_one = threading.Lock()


def pool_of(kind: str, url: str, way: Way[S], terms: Terms, where: str) -> Pool[S]:
    """Return a pool for a new client: its own, or the process's for this kind and URL."""
    if terms.pool != "shared":
        return Pool(way, terms, where)
    key = (os.getpid(), kind, url)  # a session does not outlive a fork
    with _one_by_one:
        if key not in _shared:
            _shared[key] = cast("Pool[Session]", Pool(way, terms, where))
        return cast("Pool[S]", _shared[key])
