"""From a URL to what libpq reads of it, and how long to wait."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from naviglio.adapters.postgres.session import conninfo, parted, place_of
from naviglio.errors import ConfigError
from naviglio.pool import Terms


def test_what_is_not_ours_is_libpqs_as_it_was_written() -> None:
    """Letter by letter: a `+` is no blank to libpq."""
    url = "postgresql://u:p%2Fw@h:5/d?options=-c%20a=b&pool=none&passfile=a+b&lock_timeout=5"
    plain, terms = parted(url)
    assert plain == "postgresql://u:p%2Fw@h:5/d?options=-c%20a=b&passfile=a+b"
    assert terms == Terms(pool="none", lock_timeout_s=5)
    assert parted("postgresql:///d?host=/run/my+pg")[0] == "postgresql:///d?host=/run/my+pg"
    assert parted("postgresql://h/d?pool=shared") == ("postgresql://h/d", Terms(pool="shared"))
    assert parted("host=h dbname='a?pool=none'") == ("host=h dbname='a?pool=none'", Terms())


def test_a_login_ends_as_either_of_two_says() -> None:
    """The name that libpq has goes first; TLS and all else is libpq's to read."""
    for url, seconds in (("postgresql://h/d", "15"), ("postgresql://h/d?login_timeout=3", "3"),
                         ("postgresql://h/d?login_timeout=3&connect_timeout=4", "4")):  # fmt: skip
        assert conninfo_to_dict(conninfo(url, "x"))["connect_timeout"] == seconds
    said = conninfo_to_dict(conninfo("postgresql://h/d?sslmode=verify-full&sslrootcert=/ca", "x"))
    assert (said["sslmode"], said["sslrootcert"]) == ("verify-full", "/ca")
    assert place_of("postgresql://u:secret@h/d?pool=none") == "source d at h:5432"


@pytest.mark.parametrize("wrong", ["pool=x", "pool_size=0", "lock_timeout=", "statement_timeout=a"])
def test_what_is_not_understood_is_told_without_the_url(wrong: str) -> None:
    """The parameter, and how a URL is written."""
    with pytest.raises(ConfigError, match=wrong.partition("=")[0]) as caught:
        parted(f"postgresql://u:secret@h/d?{wrong}")
    assert "secret" not in str(caught.value)
