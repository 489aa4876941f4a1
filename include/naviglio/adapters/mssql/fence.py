"""The bounds below which no open transaction can still write: of times, and of row versions.

A `DEFAULT SYSUTCDATETIME()` or a trigger reads the clock in the statement that writes, so never
before its transaction began: the bound of times is the oldest begin among the open transactions of
the database.

The server tells begins in its own local time, which has one hour twice a year. Where b is the begin
as told, U(x) is the moment that AT TIME ZONE takes local time x for, and h is an hour, a begin is
taken for the lesser of U(b) and U(b - h) + h:

- away from changes both are the begin;
- within the hour that exists twice, b is either of two moments an hour apart. U(b) may be the later
  one (Microsoft documents the earlier, by the offset before the change), but b - h is an hour that
  exists once and has the offset before the change, so U(b - h) + h is the earlier of the two;
- in the hour after it, U(b) is the begin, and U(b - h) + h at most an hour earlier: that waits
  longer, and loses nothing;
- in the hour after the gap of spring, b - h is no local time; it is taken an hour ahead, with the
  offset after the change, so U(b - h) + h is an hour late, and the lesser is U(b), the begin;
- within the gap itself no transaction begins; a begin just before it that was rounded up into it is
  moved ahead to the same moment.

No zone of Windows sets its clocks back by more than an hour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mssql_python import Connection

from naviglio.adapters.mssql.errors import translated
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.sql import quote
from naviglio.errors import ConfigError, SourceError
from naviglio.model import Fence

SNAPSHOT_MARK = b"naviglio reads"  # what CONTEXT_INFO of our own snapshots begins with
WRITABLE = "READ_WRITE"
VERSION = "SELECT CAST(MIN_ACTIVE_ROWVERSION() AS bigint)"
# Ticks of `datetime`, in which begins are told, and the steps of the clocks behind GETDATE.
_STEP_S = 0.02
_CLOUD = (5, 12)  # engine editions whose rights are the database's: Azure SQL, Fabric
_INSTANCE = 8  # Azure SQL Managed Instance
_SINCE = 16  # major version of SQL Server 2022, the first with CURRENT_TIMEZONE_ID
DECLARED = "safety_lag"  # holds a fence where nothing is known
_EPOCH = "CAST('1970-01-01' AS datetime2(7))"

CLOCK = f"""
SELECT DATEDIFF_BIG(nanosecond, {_EPOCH}, SYSUTCDATETIME()),
       CAST(DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS nvarchar(60)),
       CAST(SERVERPROPERTY('EngineEdition') AS int),
       CAST(SERVERPROPERTY('ProductMajorVersion') AS int), ORIGINAL_LOGIN(), USER_NAME()
"""
# Of sessions in this database, and of others that came into it; system transactions write no rows.
# A prepared or orphaned distributed transaction has no begin that says anything of its rows.
OLDEST = f"""
WITH [open] AS (
  SELECT CASE WHEN a.transaction_state = 5 OR d.database_transaction_state = 5
                OR (a.transaction_type = 4 AND s.session_id IS NULL)
              THEN 1 ELSE 0 END AS [prepared],
         CAST(a.transaction_begin_time AS datetime2(7)) AS [begun],
         s.session_id AS [session], e.program_name AS [program]
  FROM sys.dm_tran_active_transactions AS a
  LEFT JOIN sys.dm_tran_database_transactions AS d
    ON d.transaction_id = a.transaction_id AND d.database_id = DB_ID()
  LEFT JOIN sys.dm_tran_session_transactions AS s ON s.transaction_id = a.transaction_id
  LEFT JOIN sys.dm_exec_sessions AS e ON e.session_id = s.session_id
  WHERE (d.transaction_id IS NOT NULL OR e.database_id = DB_ID())
    AND a.transaction_type <> 3 AND a.transaction_id <> CURRENT_TRANSACTION_ID()
    AND CASE WHEN s.session_id = @@SPID THEN 1 ELSE 0 END = 0
    AND CASE WHEN e.original_login_name = ORIGINAL_LOGIN()
              AND SUBSTRING(e.context_info, 1, {len(SNAPSHOT_MARK)}) = 0x{SNAPSHOT_MARK.hex()}
             THEN 1 ELSE 0 END = 0
), [told] AS (
  SELECT [prepared], [session], [program],
         CAST([begun] AT TIME ZONE CURRENT_TIMEZONE_ID() AT TIME ZONE 'UTC' AS datetime2(7))
           AS [one],
         DATEADD(hour, 1, CAST(DATEADD(hour, -1, [begun]) AT TIME ZONE CURRENT_TIMEZONE_ID()
           AT TIME ZONE 'UTC' AS datetime2(7))) AS [other]
  FROM [open]
)
SELECT TOP (1) [prepared], [session], COALESCE([program], N''),
       DATEDIFF_BIG(nanosecond, {_EPOCH}, CASE WHEN [other] < [one] THEN [other] ELSE [one] END)
FROM [told]
ORDER BY [prepared] DESC, CASE WHEN [other] < [one] THEN [other] ELSE [one] END
"""


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """What the server says of itself; times are nanoseconds since 1970 UTC."""

    now: int
    writable: bool
    edition: int
    version: int
    login: str
    user: str

    @property
    def tells_its_zone(self) -> bool:
        return self.edition in (*_CLOUD, _INSTANCE) or self.version >= _SINCE

    @property
    def grant(self) -> str:
        if self.edition in _CLOUD:
            return f"GRANT VIEW DATABASE STATE TO {quote(self.user)}"
        return f"USE master; GRANT VIEW SERVER STATE TO {quote(self.login)}"


def read_fence(
    connection: Connection, where: str, margin_s: float, safety_lag_s: float | None
) -> Fence:
    """Read the bound of times over an autocommitting connection; ConfigError where none is known.

    The clock is read before the transactions, so that what begins between is newer than the bound.
    """
    with translated(where, SourceError):
        clock = _clock(fetch(connection, CLOCK)[0])
    oldest, unknown = _oldest(connection, where, clock)
    if unknown and safety_lag_s is None:
        raise ConfigError(f"{where}: {unknown}")
    margin_ns = round(max(margin_s, _STEP_S) * 1e9)
    latest = clock.now - max(margin_ns, round((safety_lag_s or 0) * 1e9))
    free = Fence(point=latest, safety_lag_s=safety_lag_s, latest=latest)
    if unknown:
        return replace(free, held_by=DECLARED)
    if oldest is None:
        return free
    prepared, session, program, begun = oldest
    if prepared:
        return replace(free, point=None, held_by="a prepared or orphaned distributed transaction")
    if clock.now - begun <= margin_ns:
        return replace(free, point=min(latest, begun - margin_ns))
    name, age_s = program or "without program name", (clock.now - begun) / 1e9
    held_by = f"transaction of session {session} ({name}), open for {age_s:.1f} s"
    return replace(free, point=min(latest, begun - margin_ns), held_by=held_by)


def read_version(connection: Connection, where: str) -> int:
    """Read the least row version that an open transaction wrote, or that is written next."""
    with translated(where, SourceError):
        clock = _clock(fetch(connection, CLOCK)[0])
        if not clock.writable:
            raise ConfigError(f"{where}: {_STANDBY} primary.")
        ((version,),) = fetch(connection, VERSION)
    return int(version)


_STANDBY = "it is read-only here, so the transactions that write are open elsewhere. Connect to the"


def _clock(row: tuple[Any, ...]) -> _Clock:
    now, updateability, edition, version, login, user = row
    return _Clock(
        now=int(now), writable=updateability == WRITABLE, edition=int(edition),
        version=int(version or 0), login=str(login), user=str(user),
    )  # fmt: skip


def _oldest(
    connection: Connection, where: str, clock: _Clock
) -> tuple[tuple[Any, ...] | None, str]:
    """Return the oldest open transaction, or why it can't be known."""
    if not clock.writable:
        return None, (
            f"{_STANDBY} primary, or declare `safety_lag` (longer than any transaction and the "
            "delay behind it)."
        )
    if not clock.tells_its_zone:
        return None, (
            "SQL Server before 2022 tells when open transactions began in local time, and not in "
            "which zone. Declare `safety_lag`, longer than any transaction, or capture by a "
            "rowversion column."
        )
    try:
        with translated(where, SourceError):
            found = fetch(connection, OLDEST)
    except ConfigError as error:
        return None, (
            f"{clock.login!r} can't see when others' transactions began. Run `{clock.grant}` as an "
            f"administrator, or declare `safety_lag`. (It said: {error})"
        )
    return (found[0] if found else None), ""
