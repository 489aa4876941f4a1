"""Which sessions a pool keeps, and which it never lends again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from naviglio.errors import RetryableError
from naviglio.pool import Pool, Terms, Way, pool_of, taken


@dataclass(eq=False)
class Session:
    """A session that can be lost, or be left in a state that can't be mended."""

    alive: bool = True
    fit: bool = True
    closed: bool = False

    def close(self) -> None:
        """End it."""
        self.closed = True


@dataclass
class Server:
    """Opens sessions and keeps them in view."""

    opened: list[Session] = field(default_factory=list)
    dead: bool = False

    def open(self) -> Session:
        """Open a session; of a server that dies, one that is gone at once."""
        self.opened.append(Session(alive=not self.dead))
        return self.opened[-1]

    def pool(self, **said: str) -> Pool[Session]:
        """Return a pool for a new client."""
        way = Way(open=self.open, wake=lambda s: s.alive, rest=lambda s: s.fit)
        return pool_of("test", f"test://{id(self)}", way, taken(dict(said)), "server s")


def test_a_session_is_lent_again_and_ends_with_its_client() -> None:
    """One by one, the last that came back first."""
    server = Server()
    pool = server.pool()
    with pool.session() as first:
        pass
    with pool.session() as again, pool.session() as other:
        assert again is first
        assert other is not first
    pool.close()
    assert [session.closed for session in server.opened] == [True, True]


def test_none_is_kept_where_none_shall_be() -> None:
    """Each ends with its use."""
    server = Server()
    pool = server.pool(pool="none")
    with pool.session() as first:
        pass
    assert first.closed
    with pool.session() as second:
        assert second is not first


def test_all_clients_share_where_they_shall() -> None:
    """A client's end leaves the others' sessions open."""
    server = Server()
    one, two = (server.pool(pool="shared") for _ in range(2))
    with one.session() as first:
        pass
    one.close()
    with two.session() as again:
        assert again is first
    assert not first.closed


@pytest.mark.parametrize("how", ["error", "unfit", "lost"])
def test_a_session_in_doubt_is_never_lent_again(how: str) -> None:
    """After an error; where it can't be mended; where the server has ended it meanwhile."""
    server = Server()
    pool = server.pool()

    def use() -> Session:
        with pool.session() as session:
            session.fit = how != "unfit"
            if how == "error":
                raise KeyError(how)
        return session

    if how == "error":
        with pytest.raises(KeyError):
            use()
    else:
        use()
    (first,) = server.opened
    first.alive = how != "lost"
    with pool.session() as second:
        assert second is not first
    assert first.closed


def test_a_server_that_ends_all_sessions_is_to_be_tried_again() -> None:
    """No endless opening."""
    server = Server(dead=True)
    with (
        pytest.raises(RetryableError, match="server s: sessions end as soon"),
        server.pool().session(),
    ):
        pass
    assert all(session.closed for session in server.opened)


def test_waiting_for_a_free_session_ends() -> None:
    """And tells what could be done."""
    pool = Server().pool(pool_size="2", login_timeout="1")
    with (
        pool.session(), pool.session(), pytest.raises(RetryableError, match="all 2 sess"),
        pool.session(),
    ):  # fmt: skip
        pass


def test_what_a_url_says() -> None:
    """Only its own parameters are taken; the rest is the driver's."""
    options = {"pool": "none", "lock_timeout": "0", "sslmode": "require"}
    assert taken(options) == Terms(pool="none", lock_timeout_s=0)
    assert options == {"sslmode": "require"}
    assert taken({}) == Terms()
    for wrong in ({"pool": "x"}, {"pool_size": "1"}, {"lock_timeout": "-1"}, {"login_timeout": ""}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            taken(dict(wrong))
