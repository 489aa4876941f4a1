"""The mass-delete guard: a table that suddenly loses many rows is a question, not a change."""

from __future__ import annotations

from naviglio.capture.reading import Captured
from naviglio.model import Guard


def suspicious(captured: Captured, guard: Guard) -> bool:
    """Whether so many deletes should wait for a person.

    They do when the table turned empty, or when they exceed both the guard's number of rows and
    its share of the rows known before (in the windows that were read again).
    """
    deletes, of = captured.deletes, captured.of
    if not deletes or captured.part is None:
        return False
    if deletes >= of and captured.part.kind != "window":
        return True
    return deletes > guard.rows and deletes > guard.fraction * of
