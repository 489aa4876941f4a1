"""What is left of a statement without its names and literals, by the rules of its server."""

from __future__ import annotations

import re

_QUOTED = re.compile(
    r"""
    (?P<name>"(?:[^"]|"")*")
    | (?P<escaped>\bE'(?:[^'\\]|''|\\.)*')
    | (?P<text>'(?:[^']|'')*')
    | (?P<comment>--[^\n]*|/\*.*?\*/)
    | (?P<stray>["'])
    """,
    re.VERBOSE | re.DOTALL,
)


def skeleton(statement: str) -> str:
    """Return a statement with every name and literal made alike; one that isn't closed shows."""

    def alike(match: re.Match[str]) -> str:
        return {"name": '"n"', "escaped": "'t'", "text": "'t'"}.get(match.lastgroup or "", "!!")

    return _QUOTED.sub(alike, statement)


def names(statement: str) -> set[str]:
    """Return the quoted names of a statement, as their server reads them."""
    found = (match["name"] for match in _QUOTED.finditer(statement) if match["name"])
    return {name[1:-1].replace('""', '"') for name in found}
