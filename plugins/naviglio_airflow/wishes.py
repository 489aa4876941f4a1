"""What a DAG run asks of its tasks. The kind of run decides, not its key alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from naviglio.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context

    from naviglio.capture.table import Wish
    from naviglio.model import Group

TABLES, DAY, VERIFY = FORM = ("tables", "day", "verify")
_BY_HAND = frozenset({"manual", "operator_triggered"})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A partition to read again, or None to take what is new; of some tables, or of all."""

    partition: str | None = None
    tables: frozenset[str] = frozenset()
    verify: bool = False

    def takes(self, group: Group) -> bool:
        """Whether a group takes part: its tables are wanted, and can be read by partitions."""
        wanted = not self.tables or any(table.name in self.tables for table in group.tables)
        by_day = self.partition is None or any(table.has_partitions for table in group.tables)
        return wanted and by_day

    def wish(self, time_zone: str) -> Wish:
        """Return what a capture is asked for; ConfigError where the partition is no day."""
        from naviglio.capture.table import Wish
        from naviglio.partitions import window_of

        if self.partition is None:
            return Wish(verify=self.verify)
        return Wish(windows=(window_of(self.partition, ZoneInfo(time_zone)),))


def asked_of(context: Context, dag: DAG | None) -> Asked:
    """Return what a task's run asks for; ConfigError for words that its form doesn't have."""
    run, params = context["dag_run"], context["params"]
    if dag is not None and {*FORM} <= {*dag.params}:
        _refuse_unknown(run.conf or {}, dag.params)
    return Asked(
        partition=_partition(run.run_type, run.partition_key, params.get(DAY)),
        tables=frozenset(params.get(TABLES) or ()),
        verify=bool(params.get(VERIFY)),
    )


def _partition(run_type: str, key: str | None, day: str | None) -> str | None:
    """Return the partition that a run reads again; None where it drains.

    A backfill, and a run by hand with a key or a day, read that partition again. All others take
    what is new since the last run, whatever day their schedule calls theirs.
    """
    # A task gets an enumeration whose text is `DagRunType.BACKFILL`; its value is the kind.
    kind = getattr(run_type, "value", run_type)
    if kind == "backfill":
        return key
    if kind not in _BY_HAND:
        return None
    if key and day and key != day:
        raise ConfigError(f"The run's partition key is {key}, its form says day {day}.")
    return key or day


def _refuse_unknown(conf: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise ConfigError for a misspelt word, which Airflow takes: it would carry all tables."""
    unknown = sorted(conf.keys() - known.keys())
    if unknown:
        raise ConfigError(
            f"The run's configuration says {', '.join(map(repr, unknown))}; the form of this DAG "
            f"has {', '.join(sorted(known))}. Correct it and trigger again."
        )
