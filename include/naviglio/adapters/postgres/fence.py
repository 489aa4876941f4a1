"""The bound below which no open transaction can still write a modification time.

PostgreSQL's `now()` is the start of the transaction, so the bound is the oldest start among the
open ones: with an xid or without one (it may take one later), whatever kind of backend runs it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg

from naviglio.adapters.postgres.session import SNAPSHOT_NAME
from naviglio.adapters.postgres.sql import literal
from naviglio.errors import ConfigError
from naviglio.model import Fence

_CLOCK = """
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS clock_us,
  pg_is_in_recovery() AS standby, current_user::text AS role,
  pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all"""
# Autovacuum writes no rows; our own snapshots read only. Several transactions in one query string
# all have its arrival as their `now()`, and between two of them no start shows: hence query_start.
_OLDEST = f"""
SELECT pid, application_name, state = 'disabled' AS unseen, (extract(epoch FROM
  CASE WHEN state = 'active' THEN least(xact_start, query_start) ELSE xact_start END
) * 1000000)::int8 AS start_us
FROM pg_stat_activity
WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (xact_start IS NOT NULL OR state IN ('active', 'disabled')) AND pid <> pg_backend_pid()
  AND backend_type IS DISTINCT FROM 'autovacuum worker'
  AND NOT (usename = current_user AND application_name = {literal(SNAPSHOT_NAME)})
ORDER BY unseen DESC NULLS LAST, start_us LIMIT 1"""
_PREPARED = """
SELECT gid, (extract(epoch FROM clock_timestamp() - prepared))::int8 AS age_s
FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 1"""


def read_fence(
    connection: psycopg.Connection[dict[str, Any]], margin_s: float, safety_lag_s: float | None
) -> Fence:
    """Read the fence over an autocommitting connection; ConfigError where it can't be known.

    The order matters: the clock before the activity, so that what starts between is newer than the
    bound, and prepared transactions last, so that none turns prepared unseen between the two.
    """
    clock = _one(connection, _CLOCK)
    oldest = connection.execute(_OLDEST.encode()).fetchone()
    prepared = connection.execute(_PREPARED.encode()).fetchone()
    unknown = _unknown(clock)
    if unknown and safety_lag_s is None:
        raise ConfigError(unknown)
    free = _bound(clock["clock_us"], None, margin_s, safety_lag_s)
    if oldest is not None and oldest["unseen"] and not unknown:
        held = f"pid {oldest['pid']}, which hides its transactions (track_activities = off)"
        return replace(free, point=None, held_by=held)
    if prepared is not None:
        held = f"prepared transaction {prepared['gid']!r}, {prepared['age_s']} s old"
        return replace(free, point=None, held_by=held)
    return _bound(clock["clock_us"], None if unknown else oldest, margin_s, safety_lag_s)


def _unknown(clock: dict[str, Any]) -> str:
    """Return why the open transactions can't be known, or nothing."""
    if clock["standby"]:
        return (
            "The source is a standby: it can't see the primary's open transactions. Connect to the "
            "primary, or declare `safety_lag` (longer than any transaction and the replay's delay)."
        )
    if not clock["sees_all"]:
        role = '"' + clock["role"].replace('"', '""') + '"'
        return (
            f"Role {clock['role']!r} can't see when others' transactions started. Run `GRANT "
            f"pg_read_all_stats TO {role};` as a superuser, or declare `safety_lag`."
        )
    return ""


def _bound(
    clock_us: int, oldest: dict[str, Any] | None, margin_s: float, safety_lag_s: float | None
) -> Fence:
    """Return the least of clock, oldest start (both less the margin) and clock less the lag."""
    margin_us = round(margin_s * 1_000_000)
    start_us = oldest["start_us"] if oldest is not None else clock_us
    latest_us = clock_us - margin_us
    if safety_lag_s is not None:
        latest_us = min(latest_us, clock_us - round(safety_lag_s * 1_000_000))
    bound_us = min(latest_us, start_us - margin_us)
    held_by = ""
    if oldest is not None and clock_us - start_us > margin_us:
        name = oldest["application_name"] or "without application_name"
        age_s = (clock_us - start_us) / 1_000_000
        held_by = f"transaction of pid {oldest['pid']} ({name}), open for {age_s:.1f} s"
    return Fence(
        point=bound_us * 1000, safety_lag_s=safety_lag_s, held_by=held_by, latest=latest_us * 1000
    )


def _one(connection: psycopg.Connection[dict[str, Any]], statement: str) -> dict[str, Any]:
    row = connection.execute(statement.encode()).fetchone()
    if row is None:
        raise AssertionError("A SELECT without FROM returns a row.")
    return row
