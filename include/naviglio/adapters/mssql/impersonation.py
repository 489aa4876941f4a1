"""Work as another database user, and come back: EXECUTE AS and REVERT, each a batch of its own.

Within a parameterised statement the server would revert at that statement's end. Only who holds the
cookie can revert, so nothing that runs as the user (a trigger, a function) can get out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mssql_python
from mssql_python import Connection

from naviglio.adapters.mssql.errors import number_of
from naviglio.adapters.mssql.fit import Found
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.ledger import LEDGER
from naviglio.adapters.mssql.sql import literal, quote, table
from naviglio.errors import TargetError
from naviglio.model import TableName

_NOT_ALLOWED = 15517  # no such user, or no right to be it
WHO = "SELECT USER_NAME()"
GRANTED = (
    "SELECT COUNT(*) FROM sys.database_permissions WHERE class = 1 AND state IN (N'G', N'W')"
    " AND major_id = OBJECT_ID(?) AND grantee_principal_id = USER_ID(?)"
    " AND permission_name IN (N'SELECT', N'INSERT', N'UPDATE')"
)
_LEDGER_RIGHTS = 3


@dataclass(frozen=True)
class Taken:
    """What leads back: the cookie, and who the session was before."""

    cookie: bytes = field(repr=False)
    before: str


def execute_as(user: str) -> str:
    """Return the batch that makes the session the user, and gives the cookie that leads back."""
    return (
        "SET NOCOUNT ON; DECLARE @cookie varbinary(8000);"
        f" EXECUTE AS USER = {literal(user)} WITH COOKIE INTO @cookie; SELECT @cookie;"
    )


def revert(cookie: bytes) -> str:
    """Return the batch that makes the session its login's user again, and tells who it is."""
    return (
        f"SET NOCOUNT ON; DECLARE @cookie varbinary(8000) = {literal(cookie)};"
        f" REVERT WITH COOKIE = @cookie; {WHO};"
    )


def take(connection: Connection, user: str) -> Taken:
    """Make the session the user; TargetError where its login may not."""
    before = str(fetch(connection, WHO)[0][0])
    try:
        cookie = fetch(connection, execute_as(user))[0][0]
    except mssql_python.Error as error:
        if number_of(error) != _NOT_ALLOWED:
            raise
        raise TargetError(
            f"user {before!r} may not run as {user!r} (error {_NOT_ALLOWED}). Create the user; "
            f"GRANT IMPERSONATE ON USER::{quote(user)} TO {quote(before)}."
        ) from None
    return Taken(bytes(cookie), before)


def give_back(connection: Connection, taken: Taken) -> bool:
    """Make the session what it was; False where the server doesn't confirm it: then close it."""
    try:
        return fetch(connection, revert(taken.cookie)) == [(taken.before,)]
    except mssql_python.Error:
        return False


def grant_ledger(user: str) -> str:
    """Return the statement that lets a user read and write the ledger."""
    return f"GRANT SELECT, INSERT, UPDATE ON OBJECT::{LEDGER} TO {quote(user)}"


def grant_staging(staging: str, user: str) -> str:
    """Return the statement that lets a user read a staging table (`staging` is quoted)."""
    return f"GRANT SELECT ON OBJECT::{staging} TO {quote(user)}"


def give_ledger(connection: Connection, user: str) -> None:
    """Let a user read and write the ledger; nothing where it may: a grant waits for others."""
    if fetch(connection, GRANTED, LEDGER, user) != [(_LEDGER_RIGHTS,)]:
        connection.execute(grant_ledger(user)).close()


def unseen(target: TableName, run_as: str) -> TargetError:
    """Return the error of a table that is gone, or that a user without any right can't see."""
    return TargetError(
        f"target {str(target)!r} is in the ledger, and {run_as!r} sees no such table: it is gone, "
        f"or {run_as!r} has no right on it. GRANT SELECT, INSERT, UPDATE, DELETE ON "
        f"{table(target)} TO {quote(run_as)}."
    )


def refuse_powerless(target: TableName, found: Found, run_as: str) -> None:
    """Refuse a user that the configuration names rightly, and the target's owner has not let in."""
    rights = ", ".join(right for right in found.lacking_rights if right != "ALTER")
    if run_as and rights:
        raise TargetError(
            f"target {str(target)!r}: user {run_as!r} lacks {rights} on it; nothing was loaded. "
            f"GRANT {rights} ON {table(target)} TO {quote(run_as)}."
        )
