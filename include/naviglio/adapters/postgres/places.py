"""Where a snapshot stands in the history of its cluster, and whether it follows an earlier one."""

from __future__ import annotations

import re
from typing import Any

from naviglio.adapters.postgres.sql import literal
from naviglio.errors import IdentityError, RetryableError
from naviglio.model import Place

# How far the server is in its log: all that is visible there was written before.
REACHED = """(CASE WHEN pg_is_in_recovery()
    THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END - '0/0'::pg_lsn)::int8"""
# The position in the log is read by the statement that takes the snapshot. It is the flushed one: a
# crash loses what lies beyond, and must not look like a source set back. A timeline is read from
# the log on a primary (the control file lags behind a promotion).
HERE = f"""
SELECT {REACHED} AS reached, (SELECT system_identifier FROM pg_control_system())::text AS system,
  (SELECT oid FROM pg_database WHERE datname = current_database())::int8 AS database,
  CASE WHEN pg_is_in_recovery()
    THEN (SELECT lpad(to_hex(timeline_id), 8, '0') FROM pg_control_checkpoint())
    ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END AS timeline,
  (CASE WHEN pg_is_in_recovery()
    THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END
    - '0/0'::pg_lsn)::int8 AS position,
  CASE WHEN current_setting('track_commit_timestamp') = 'on'
    THEN (SELECT xid || ' ' || timestamp::text FROM pg_last_committed_xact()) END AS witness"""
_WITNESS = re.compile(r"(\d{1,10}) (.+)\Z")


def check_reached(fenced_at: int, reached: int, where: str) -> None:
    """Raise RetryableError for a snapshot of a server that lacks what was there at the fence."""
    if reached < fenced_at:
        raise RetryableError(
            f"{where}: the snapshot stands at log position {reached}, before {fenced_at}, where "
            "the fence was read: the address leads to several servers, and this one lags behind. "
            "Trying again is enough; an address of the primary alone needs no second try."
        )


def place_from(row: dict[str, Any]) -> Place:
    """Return the place that a row of `HERE` names."""
    incarnation = f"{row['system']}/{row['database']}/{int(row['timeline'], 16)}"
    return Place(incarnation=incarnation, order=row["position"], witness=row["witness"] or "")


def witness_now(since: Place) -> str | None:
    """Return the statement that finds the commit time of an earlier witness, where there is one."""
    if (parts := _WITNESS.match(since.witness)) is None:
        return None
    return (
        "SELECT CASE WHEN current_setting('track_commit_timestamp') = 'on' "
        f"THEN pg_xact_commit_timestamp({literal(parts[1])}::xid)::text END AS committed_at"
    )


def check_follows(since: Place, now: Place, committed_at: str | None, where: str) -> None:
    """Raise IdentityError unless `now` follows `since`.

    `committed_at` is the witness's commit time as found now; None when the server forgot it.
    """
    if now.incarnation != since.incarnation:
        difference = (
            f"it is {now.incarnation} (system/database/timeline), and the last batch was captured "
            f"from {since.incarnation}"
        )
    elif now.order < since.order:
        difference = (
            f"it stands at log position {now.order}, before {since.order} of the last batch: it "
            "lags behind, or was set back"
        )
    elif (
        committed_at is not None and f" {committed_at}" != since.witness[since.witness.index(" ") :]
    ):
        difference = (
            f"its transaction {since.witness.partition(' ')[0]} committed at {committed_at}, and "
            f"at {since.witness.partition(' ')[2]} when the last batch was captured"
        )
    else:
        return
    raise IdentityError(
        f"{where} is not the one that was captured before: {difference}. If it is meant to be, "
        "`naviglio resnapshot` takes the source as it is now."
    )
