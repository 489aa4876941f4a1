"""What a DAG run asks of a capture. The kind of run decides, not its key alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from naviglio.capture.table import Wish

_BY_HAND = frozenset({"manual", "operator_triggered"})


def partition_asked_for(run_type: str, partition_key: str | None) -> str | None:
    """Return the partition that a run reads again; None where it drains.

    A backfill, and a run by hand with a key, read the windows of that partition again. All others
    take what is new since the last run, whatever day their schedule calls theirs.
    """
    # A task gets an enumeration whose text is `DagRunType.BACKFILL`; its value is the kind.
    kind = getattr(run_type, "value", run_type)
    asked = kind == "backfill" or (kind in _BY_HAND and partition_key)
    return partition_key if asked else None


def wish_of(
    run_type: str, partition_key: str | None, time_zone: str, params: Mapping[str, Any]
) -> Wish:
    """Return what a run asks for; ConfigError where its key names no day."""
    from naviglio.capture.table import Wish
    from naviglio.partitions import window_of

    key = partition_asked_for(run_type, partition_key)
    if key is not None:
        return Wish(windows=(window_of(key, ZoneInfo(time_zone)),))
    return Wish(verify=bool(params.get("verify")))
