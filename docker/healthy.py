"""Say by the exit code whether a service is well: asks an address, and one part of its answer.

`healthy.py URL` wants an answer, `healthy.py URL PART` also `healthy` as that part's status.
"""

from __future__ import annotations

import json
import sys
import urllib.request

_TIMEOUT_S = 5


def well(address: str, part: str = "") -> bool:
    """Whether the address answers and, where a part is named, that part's status is healthy."""
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - ours
            said = json.load(answer) if part else {}
    except (OSError, ValueError):
        return False
    return not part or said.get(part, {}).get("status") == "healthy"


if __name__ == "__main__":
    sys.exit(not well(*sys.argv[1:]))
