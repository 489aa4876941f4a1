"""Sessions that write: as the connection's login, or as a role that it may take.

A session that impersonates does so from its start, by an option of its connection. So `RESET ROLE`
and `DISCARD ALL`, of a trigger or a pool, lead back to the role and never to the login. `SET ROLE
NONE` does lead there: whoever may put a trigger on a target can act as the login. PostgreSQL has no
bar against it; a load whose session isn't the role's at its end is rolled back.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TypeGuard

import psycopg
from psycopg.conninfo import conninfo_to_dict

from naviglio.adapters.postgres import ledger
from naviglio.adapters.postgres.session import parted
from naviglio.adapters.postgres.sql import quote
from naviglio.errors import ConfigError, TargetError

log = logging.getLogger("naviglio.load")
_CLIENT_GONE = "10s"  # a killed worker's statement ends, and its locks with it, after this
_SESSION = {  # in these forms, the same everywhere, text carries values
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "row_security": "off",  # a hidden row raises instead of looking absent
}
_KNOWS_SET = 160000  # from this version on a member may be kept from SET ROLE
_LEDGER_RIGHTS = ("SELECT", "INSERT", "UPDATE")


def connect(url: str, lock_wait_s: float | None, run_as: str = "") -> psycopg.Connection:
    """Open a session with its settings pinned, from its start as the role `run_as` if given.

    Without `lock_wait_s` it waits for a lock as long as the URL says.
    """
    plain, terms = parted(url)
    said = conninfo_to_dict(plain)
    options = f"{said.get('options') or ''} -c role={_escaped(run_as)}" if run_as else None
    connection = psycopg.connect(
        plain, autocommit=True, prepare_threshold=None, client_encoding="utf8",
        connect_timeout=said.get("connect_timeout") or terms.login_timeout_s,
        application_name=said.get("application_name") or "naviglio",
        options=options or said.get("options"),
    )  # fmt: skip
    try:
        if run_as:
            _refuse_other(connection, run_as)
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        for name, setting in _SESSION.items():
            _set(connection, name, setting)
        wait_s = terms.lock_timeout_s if lock_wait_s is None else lock_wait_s
        patience = f"{wait_s * 1000:.0f}ms"
        _set(connection, "lock_timeout", patience)
        # A frozen client keeps no lock for longer than others wait for it.
        _set(connection, "idle_in_transaction_session_timeout", patience)
        _set(connection, "statement_timeout", f"{terms.statement_timeout_s}s")
        with suppress(psycopg.errors.InvalidParameterValue):  # where the server can't tell
            _set(connection, "client_connection_check_interval", _CLIENT_GONE)
    except BaseException:
        connection.close()
        raise
    return connection


def is_alive(connection: psycopg.Connection | None) -> TypeGuard[psycopg.Connection]:
    """Tell whether a session that is between two transactions is still there."""
    if connection is None or connection.closed:
        return False
    try:
        connection.execute("SELECT")
    except psycopg.OperationalError:
        connection.close()
        return False
    return True


def _refuse_other(connection: psycopg.Connection, run_as: str) -> None:
    found = connection.execute("SELECT current_user").fetchone()
    if found != (run_as,):
        raise ConfigError(
            f"database {connection.info.dbname!r}: the session should be {run_as!r} and is not. "
            "Connect without a pooler that drops a session's options."
        )


def refuse_changed(connection: psycopg.Connection, run_as: str) -> None:
    """Raise TargetError where a transaction has made the session another's than the role's."""
    ((found,),) = connection.execute("SELECT current_user::text").fetchall()
    if found != run_as:
        raise TargetError(
            f"database {connection.info.dbname!r}: the load began as {run_as!r} and became "
            f"{found!r}: a trigger or a function of the target changed the role. Nothing was "
            "loaded. Have it removed."
        )


def refuse_stranger(connection: psycopg.Connection, run_as: str) -> None:
    """Raise TargetError where the login of `connection` may not become the role `run_as`."""
    way = "SET" if connection.info.server_version >= _KNOWS_SET else "MEMBER"
    found = connection.execute(
        "SELECT pg_has_role(session_user, oid, %s), pg_has_role(session_user, oid, 'USAGE')"
        " FROM pg_roles WHERE rolname = %s", (way, run_as)
    ).fetchone()  # fmt: skip
    if found is not None and found[0]:
        if found[1]:
            log.warning(
                "login %r has all rights of %r by itself: make it NOINHERIT, so that it can do no "
                "more than stage", connection.info.user, run_as,
            )  # fmt: skip
        return
    login, where = connection.info.user, f"database {connection.info.dbname!r}"
    if found is None:
        raise TargetError(f"{where}: there is no role {run_as!r} to run as. Create it.")
    raise TargetError(
        f"{where}: login {login!r} may not run as {run_as!r}. GRANT {quote(run_as)} TO "
        f"{quote(login)} WITH INHERIT FALSE, SET TRUE."
    )


def give_ledger(connection: psycopg.Connection, run_as: str) -> None:
    """Let a role read and write the ledger; nothing when it may already."""
    rights = ", ".join(_LEDGER_RIGHTS)
    lacking = connection.execute(
        "SELECT FROM unnest(%s::text[]) r WHERE NOT has_table_privilege(%s, %s, r)"
        " OR NOT has_schema_privilege(%s, %s, 'USAGE')",
        (list(_LEDGER_RIGHTS), run_as, ledger.LEDGER, run_as, ledger.SCHEMA),
    ).fetchone()
    if lacking is None:
        return
    with connection.transaction():
        ledger.lock_name(connection, "naviglio grants")  # two grants at once exclude each other
        connection.execute(f"GRANT USAGE ON SCHEMA {quote(ledger.SCHEMA)} TO {quote(run_as)}")
        connection.execute(f"GRANT {rights} ON {ledger.LEDGER} TO {quote(run_as)}")


def give_staging(connection: psycopg.Connection, staging: str, run_as: str) -> None:
    """Let a role read a staging table (`staging` is quoted)."""
    connection.execute(f"GRANT SELECT ON {staging} TO {quote(run_as)}")


def _set(connection: psycopg.Connection, name: str, setting: str) -> None:
    connection.execute("SELECT set_config(%s, %s, false)", (name, setting))


def _escaped(role: str) -> str:
    """Return a role as one word of a connection's options."""
    return "".join(f"\\{c}" if c.isspace() or c == "\\" else c for c in role)
