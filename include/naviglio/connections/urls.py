"""Connection URLs: their scheme, and how they are shown without what is secret."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

HIDDEN = "***"
_SHOWN = frozenset({"host", "port", "dbname", "user", "sslmode", "application_name"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOSTS = re.compile(r"((\[[^\]]*\]|[^:,\[\]]*)(:[0-9]*)?(,|$))+")


def scheme_of(url: str) -> str:
    """Return the scheme, in small letters; empty where there is none."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def misread_port(url: str) -> bool:
    """Whether the port is no number: most likely the password's beginning, cut at its own `/`."""
    try:
        hosts = urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return False
    return bool(scheme_of(url)) and bool(hosts) and _HOSTS.fullmatch(hosts) is None


def doubled_at(url: str) -> bool:
    """Whether two `@` stand before the path: a driver may take the password's end for the host."""
    try:
        return urlsplit(url).netloc.count("@") > 1
    except ValueError:
        return False


def safe(url: str) -> str:
    """Return the URL for display: no password, and no parameter that could be one.

    A URL that can't be taken apart without doubt shows its scheme only.
    """
    scheme = scheme_of(url)
    unclear = f"{scheme}://{HIDDEN}" if scheme else HIDDEN
    try:
        parts = urlsplit(url)
    except ValueError:
        return unclear
    # A password with an unescaped `/`, `?` or `#` puts its rest, and the `@`, behind the host.
    if not scheme or parts.fragment or "@" in parts.path + parts.query or misread_port(url):
        return unclear
    account, at, host = parts.netloc.rpartition("@")
    user, colon, _ = account.partition(":")
    secret = f":{HIDDEN}" if colon else ""
    query = "&".join(
        f"{name}={value if name in _SHOWN else HIDDEN}" for name, value in parse_qsl(parts.query)
    )
    return f"{scheme}://{user}{secret}{at}{host}{parts.path}{'?' if query else ''}{query}"
