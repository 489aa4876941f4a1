"""The databases, roles and rights of the embedded cluster: each role gets what its work needs."""

from __future__ import annotations

import hashlib

import psycopg
from psycopg import sql

ADMIN = "naviglio_admin"
LOGINS = {  # connection id -> role, database
    "operations": ("naviglio_source", "operations"),
    "operations_app": ("operations_app", "operations"),
    "warehouse": ("naviglio_target", "warehouse"),
    "airflow_db": ("airflow", "airflow"),
    "admin": (ADMIN, "postgres"),
}
_RIGHTS = {  # database -> statements, each of which may be repeated
    "postgres": (
        "REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC",
        # without it the transactions of others look as if they had no start: no fence
        "GRANT pg_read_all_stats TO naviglio_source",
    ),
    "operations": (
        "REVOKE ALL ON DATABASE operations FROM PUBLIC",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        "GRANT CONNECT, TEMPORARY, CREATE ON DATABASE operations TO operations_app",
        "GRANT USAGE, CREATE ON SCHEMA public TO operations_app",
        "GRANT CONNECT ON DATABASE operations TO naviglio_source",
        "GRANT USAGE ON SCHEMA public TO naviglio_source",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO naviglio_source",
        "ALTER DEFAULT PRIVILEGES FOR ROLE operations_app IN SCHEMA public"
        " GRANT SELECT ON TABLES TO naviglio_source",
    ),
    "warehouse": (
        "REVOKE ALL ON DATABASE warehouse FROM PUBLIC",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        "GRANT CONNECT, TEMPORARY, CREATE ON DATABASE warehouse TO naviglio_target",
        "GRANT USAGE, CREATE ON SCHEMA public TO naviglio_target",
        "CREATE SCHEMA IF NOT EXISTS naviglio AUTHORIZATION naviglio_target",
    ),
    "airflow": (
        "REVOKE ALL ON DATABASE airflow FROM PUBLIC",
        "ALTER DATABASE airflow OWNER TO airflow",
    ),
}
STATE = hashlib.sha256(repr((LOGINS, _RIGHTS)).encode()).hexdigest()


def set_up(admin_url: str, passwords: dict[str, str]) -> set[str]:
    """Bring roles, databases and rights to this version's state; every step may be repeated.

    Returns the databases that are new.
    """
    with psycopg.connect(admin_url, autocommit=True) as connection:
        _make_roles(connection, passwords)
        made = _make_databases(connection)
    for database, statements in _RIGHTS.items():
        with psycopg.connect(admin_url, dbname=database) as connection:
            for statement in statements:
                connection.execute(statement.encode())
    return made


def _make_roles(connection: psycopg.Connection, passwords: dict[str, str]) -> None:
    there = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
    for role, password in passwords.items():
        if role not in there:
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        # Only what proves the password reaches the server, so none can reach its log.
        proof = connection.pgconn.encrypt_password(
            password.encode(), role.encode(), b"scram-sha-256"
        ).decode()
        connection.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), proof)
        )


def _make_databases(connection: psycopg.Connection) -> set[str]:
    there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
    made = set(_RIGHTS) - there
    for database in sorted(made):
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    return made
