"""URLs for display."""

from __future__ import annotations

import pytest

from naviglio.connections.urls import safe, scheme_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:s3cret@db:5432/shop", "postgresql://ann:***@db:5432/shop"),
        ("postgresql://ann@db/shop", "postgresql://ann@db/shop"),
        ("postgresql://db/shop", "postgresql://db/shop"),
        ("postgresql://[::1]:5432/shop", "postgresql://[::1]:5432/shop"),
        ("postgresql://a:1,b:2/shop", "postgresql://a:1,b:2/shop"),
        ("postgresql://ann:s3@cret@db/shop", "postgresql://ann:***@db/shop"),
        ("postgresql://ann:s3:cret@db/shop", "postgresql://ann:***@db/shop"),
        (
            "postgresql://ann:s3cret@/shop?host=/run/sock&password=s3cret&port=1",
            "postgresql://ann:***@/shop?host=/run/sock&password=***&port=1",
        ),
        ("POSTGRESQL://ann:s3cret@db/shop", "postgresql://ann:***@db/shop"),
    ],
)
def test_what_is_not_secret_is_shown(url: str, shown: str) -> None:
    """User, host, database and harmless parameters help to see which connection it is."""
    assert safe(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:x/s3cret@db/shop",
        "postgresql://ann:x?s3cret@db/shop",
        "postgresql://ann:x#s3cret@db/shop",
        "postgresql://ann:[s3cret@db/shop",
        "postgresql://ann:s3cret/x",
        "postgresql://ann@db:s3cret/shop",
        "host=db password=s3cret",
        "//ann:s3cret@db/shop",
        "s3cret",
        "",
    ],
)
def test_what_is_in_doubt_is_hidden(url: str) -> None:
    """A URL whose password isn't escaped, or no URL at all, never shows a part of it."""
    assert safe(url) in {"postgresql://***", "***"}


def test_a_scheme_is_read_in_any_case() -> None:
    """Schemes are compared in small letters; what has none gives an empty one."""
    assert (scheme_of("PostgreSQL://x"), scheme_of("host=x")) == ("postgresql", "")
