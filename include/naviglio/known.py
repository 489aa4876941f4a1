"""The known values, where an unknown one is told of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def known(values: Iterable[str], wrong: str = "") -> str:
    """Return `known: a, b, c`, with the value that `wrong` may have meant."""
    names = list(values)
    close = difflib.get_close_matches(wrong, names, n=1) if wrong else []
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return f"known: {', '.join(names) or 'none'}{hint}"


def known_all(values: Iterable[str], wrong: str = "") -> str:
    """Return the same as the end of a sentence: with a full stop, unless it asks."""
    text = known(values, wrong)
    return text if text.endswith("?") else f"{text}."
