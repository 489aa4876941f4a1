"""Loads that another principal than the login does, on the real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from naviglio.adapters.postgres import ledger
from naviglio.adapters.postgres.embedded import Cluster
from naviglio.adapters.postgres.sql import literal, quote
from naviglio.adapters.postgres.target import PostgresTarget
from naviglio.errors import ConfigError, DataError, RetryableError, TargetError
from naviglio.flows.site import open_site
from naviglio.flows.validate import validate
from naviglio.model import TableName
from tests.contract.target import PEOPLE, batches, ledger_row, load, person
from tests.integration.lines import DIFF, Line, error_of

PEOPLE_T = TableName(schema="made", table="people")
TABLE = "CREATE TABLE t (id int PRIMARY KEY, a text)"


class Roles:
    """A line whose login may become the role `role`, and has no right of its own on the target."""

    def __init__(self, line: Line, cluster: Cluster) -> None:
        self.line, self.admin = line, cluster.urls()["admin"]
        mark = uuid.uuid4().hex[:8]
        self.role, self.login, self.other = f"role {mark}\\x", f"login_{mark}", f"other_{mark}"
        self.role_q, self.login_q = quote(self.role), quote(self.login)
        self.as_admin(
            f"CREATE ROLE {self.role_q} NOLOGIN",
            f"CREATE ROLE {self.other} NOLOGIN",
            f"CREATE ROLE {self.login_q} LOGIN NOINHERIT PASSWORD 'x'",
            f"GRANT {self.role_q} TO {self.login_q} WITH INHERIT FALSE, SET TRUE",
            f"GRANT CONNECT ON DATABASE warehouse TO {self.login_q}",
            f"GRANT TEMPORARY ON DATABASE warehouse TO {self.role_q}",
            f"GRANT naviglio_target TO {self.login_q} WITH INHERIT TRUE, SET FALSE",
            f"CREATE SCHEMA IF NOT EXISTS {line.name} AUTHORIZATION {self.role_q}",
        )
        info = conninfo_to_dict(cluster.urls()["warehouse"]) | {
            "user": self.login, "password": "x",
        }  # fmt: skip
        self.url = psycopg.conninfo.make_conninfo("", **info)
        line.urls["warehouse"] = (
            f"postgresql://{self.login}:x@{info['host']}:{info.get('port', 5432)}/warehouse"
            if not str(info["host"]).startswith("/")
            else f"postgresql:///warehouse?host={info['host']}&port={info.get('port', 5432)}"
            f"&user={self.login}&password=x"
        )

    def as_admin(self, *statements: str) -> list[tuple[Any, ...]]:
        """Ask the warehouse as its administrator."""
        with psycopg.connect(self.admin, dbname="warehouse", autocommit=True) as connection:
            for statement in statements:
                found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    def allow(self, *principals: str) -> None:
        """List principals, as the deployment does."""
        file = self.line.home.run_as_file
        file.parent.mkdir(parents=True, exist_ok=True)
        listed = ", ".join(f"'{one}'" for one in principals)
        file.write_text(f"{self.line.name}: {{warehouse: [{listed}]}}\n")

    def drop(self) -> None:
        """Leave no role behind."""
        self.as_admin(f"DROP SCHEMA IF EXISTS {self.line.name} CASCADE")
        for role in (self.login_q, self.role_q, self.other):
            self.as_admin(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.fixture
def roles(line: Line, cluster: Cluster) -> Iterator[Roles]:
    """A line with roles of its own."""
    url = line.urls["warehouse"]
    made = Roles(line, cluster)
    yield made
    made.drop()
    line.urls["warehouse"] = url


def target_name(roles: Roles) -> TableName:
    """Return a target in the role's schema."""
    return TableName(schema=roles.line.name, table="people")


def who(connection: psycopg.Connection | None) -> tuple[Any, ...] | None:
    """Ask the server who a session is."""
    assert connection is not None
    return connection.execute("SELECT session_user::text, current_user::text").fetchone()


def declared(roles: Roles, run_as: str = "") -> Line:
    """Return the line with one table that is loaded as the role, and two rows."""
    line = roles.line
    line.declare(f"fence_margin: 0s\nrun_as: '{run_as or roles.role}'", t=DIFF)
    line.source(TABLE, "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    return line


def test_the_role_merges_and_the_login_stages(roles: Roles) -> None:
    """The login can't even read the target: the server says that the role wrote it."""
    line = declared(roles)
    roles.allow(roles.role)
    noted = (
        f"ALTER TABLE {line.name}.t ADD COLUMN who text DEFAULT current_user || '/' || session_user"
    )
    line.run()
    roles.as_admin(noted, f"UPDATE {line.name}.t SET who = ''")
    line.source("INSERT INTO t VALUES (3, 'c')", "DELETE FROM t WHERE id = 1")
    line.run()

    assert roles.as_admin(f"SELECT id, a, who FROM {line.name}.t ORDER BY id") == [
        (2, "b", ""), (3, "c", f"{roles.role}/{roles.login}"),
    ]  # fmt: skip
    with psycopg.connect(roles.url) as login, pytest.raises(psycopg.errors.InsufficientPrivilege):
        login.execute(f"SELECT FROM {line.name}.t".encode())


def test_the_ledger_keeps_login_and_principal(roles: Roles) -> None:
    """Who loaded, and as whom, as the server says; no staging table stays."""
    line = declared(roles)
    roles.allow(roles.role)
    line.run()

    [(login, principal)] = roles.as_admin(
        f"SELECT login, principal FROM naviglio.ledger WHERE target = '{line.name}.t'"
    )
    assert (login, principal) == (roles.login, roles.role)
    left = (
        f"SELECT FROM pg_class WHERE relname LIKE 's\\_%' AND relowner = '{roles.login}'::regrole"
    )
    assert roles.as_admin(left) == []


def test_who_is_not_listed_never_starts(roles: Roles) -> None:
    """Nothing is captured; `validate` says the same."""
    line = declared(roles)
    roles.allow(roles.other)

    error = error_of(line.try_run())

    assert isinstance(error, ConfigError)
    assert f"`run_as: {roles.role}` is not allowed on connection 'warehouse'" in str(error)
    assert f"known: {roles.other}" in str(error)
    assert line.batches() == []
    with pytest.raises(ConfigError, match="is not allowed"):
        validate(line.site())


def test_a_role_that_is_no_members_is_refused(roles: Roles) -> None:
    """Listed, but the server doesn't let the login become it: what to grant is told."""
    line = declared(roles, run_as=roles.other)
    roles.allow(roles.other, "nobody at all")

    error = error_of(line.try_run())

    assert isinstance(error, TargetError)
    assert f"may not run as {roles.other!r}. GRANT" in str(error)
    line.declare("run_as: nobody at all", t=DIFF)
    assert "there is no role 'nobody at all'" in str(error_of(line.try_run()))


def test_a_role_without_rights_loads_nothing(roles: Roles) -> None:
    """The missing right is named, with what to grant; `validate` finds it beforehand."""
    line = declared(roles)
    roles.allow(roles.role)
    line.run()
    target = f"{line.name}.t"
    roles.as_admin(
        f"ALTER TABLE {target} OWNER TO naviglio_admin",
        f"GRANT SELECT, UPDATE ON {target} TO {roles.role_q}",
    )
    line.source("INSERT INTO t VALUES (3, 'c')")

    error = error_of(line.try_run())

    assert isinstance(error, TargetError)
    assert f"role {roles.role!r} lacks INSERT, DELETE on it; nothing was loaded. G" in str(error)
    assert roles.as_admin(f"SELECT count(*) FROM {target}") == [(2,)]
    site = line.site()
    with open_site(site.pipeline, site.home, site.connections) as opened:
        [check] = validate(opened)
    assert "lacks INSERT, DELETE" in check.problems[0]


def test_a_role_that_may_create_nothing(roles: Roles) -> None:
    """The schema is named where a target has to be made."""
    line = declared(roles)
    roles.allow(roles.role)
    roles.as_admin(f"ALTER SCHEMA {line.name} OWNER TO naviglio_admin")

    error = error_of(line.try_run())

    assert isinstance(error, TargetError)
    assert f"role {roles.role!r} may not create tables in schema {line.name!r}" in str(error)


def test_no_session_comes_back_as_another(roles: Roles) -> None:
    """Also after an error: the login's session is the login, the role's stays the role."""
    target = PostgresTarget(roles.url, run_as=roles.role)
    name = target_name(roles)
    load(target, name, [person(1)], whole=True)

    with pytest.raises(DataError, match="id=4"):
        load(target, name, [person(2), person(4, "far too long")])
    with pytest.raises(TargetError), target.begin() as transaction:
        transaction.lock(name)
        target._role.execute("SELECT no_such_function()")  # type: ignore[union-attr]  # it's open

    assert who(target._open) == (roles.login, roles.login)
    assert who(target._role) == (roles.login, roles.role)
    for reset in ("RESET ROLE", "DISCARD ALL"):
        target._role.execute(reset.encode())  # type: ignore[union-attr]  # it's open
        assert who(target._role) == (roles.login, roles.role)
    target.close()
    alive = f"SELECT count(*) FROM pg_stat_activity WHERE usename = {literal(roles.login)}"
    for _ in range(100):
        if roles.as_admin(alive, "SELECT pg_sleep(0.02)") and roles.as_admin(alive) == [(0,)]:
            break
    assert roles.as_admin(alive) == [(0,)]


LEAVING = (
    "SET ROLE {role}",
    "CREATE FUNCTION {schema}.leave() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN {how}; RETURN NEW; END$$",
    "CREATE TRIGGER leave BEFORE INSERT ON {schema}.t EXECUTE FUNCTION {schema}.leave()",
)


@pytest.mark.parametrize("how", ["SET ROLE NONE", "SET ROLE {other}", "RESET ROLE"])
def test_a_target_whose_trigger_leaves_the_role(roles: Roles, how: str) -> None:
    """What the role can't bar, its load doesn't keep; `RESET ROLE` leads nowhere else."""
    line = declared(roles)
    roles.allow(roles.role)
    line.run()
    roles.as_admin(f"GRANT {roles.other} TO {roles.login_q} WITH INHERIT FALSE, SET TRUE")
    said = {"role": roles.role_q, "schema": line.name, "how": how.format(other=roles.other)}
    roles.as_admin(*(statement.format(**said) for statement in LEAVING))
    before = line.ledger()
    line.source("INSERT INTO t VALUES (3, 'c')")

    error = line.try_run()["t"].error

    count = roles.as_admin(f"SELECT count(*) FROM {line.name}.t")
    if how == "RESET ROLE":
        assert (error, count) == (None, [(3,)])
        return
    assert (count, line.ledger()) == ([(2,)], before)
    if how == "SET ROLE NONE":
        assert isinstance(error, TargetError)
        assert f"the load began as {roles.role!r} and became {roles.login!r}" in str(error)
    else:  # which has no right on the ledger
        assert isinstance(error, ConfigError)


def test_a_login_that_inherits_the_role_is_told(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    """It loads; but nothing keeps the login from writing the target without being the role."""
    line = declared(roles)
    roles.allow(roles.role)
    with caplog.at_level("WARNING", "naviglio.load"):
        line.run()
        assert caplog.messages == []
        roles.as_admin(f"GRANT {roles.role_q} TO {roles.login_q} WITH INHERIT TRUE")
        line.source("INSERT INTO t VALUES (3, 'c')")
        line.run()
    (told,) = caplog.messages
    assert f"login {roles.login!r} has all rights of {roles.role!r} by itself" in told


def test_a_staging_that_its_session_lost_is_staged_again(roles: Roles) -> None:
    """Somebody may drop it once the login's session is gone: trying again is enough."""
    target = PostgresTarget(roles.url, run_as=roles.role)
    rows = batches(PEOPLE, [person(1)], whole=True)
    staging = target.stage(uuid.uuid4().hex[:16], PEOPLE, rows, whole=True)
    with pytest.raises(RetryableError, match="stage again"), target.begin() as transaction:
        roles.as_admin(f"DROP TABLE {staging.name}")
        transaction.merge(target_name(roles), PEOPLE, staging)
    target.close()


def test_a_ledger_of_an_earlier_version_is_kept(cluster: Cluster) -> None:
    """Its rows stay as they were, and are read before it is upgraded and after."""
    database = f"old_{uuid.uuid4().hex[:8]}"
    url = psycopg.conninfo.make_conninfo(cluster.urls()["warehouse"], dbname=database)
    old = ledger.create_ledger().replace(', "login" text NOT NULL, "principal" text NOT NULL', "")
    row = ledger_row(PEOPLE_T)
    with psycopg.connect(cluster.urls()["admin"], autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database} OWNER naviglio_target".encode())
        try:
            with psycopg.connect(url) as before:
                before.execute("CREATE SCHEMA naviglio")
                before.execute(old.encode())
                names = [n for n in vars(row) if n not in ("login", "principal")]
                values = ", ".join(f"%({name})s" for name in names)
                before.execute(f"INSERT INTO naviglio.ledger VALUES ({values})".encode(), vars(row))
            target = PostgresTarget(url)
            assert target.ledger() == {row.target: row}
            with target.begin() as transaction:
                assert transaction.lock(PEOPLE_T) == row
                transaction.record(row)
            assert target.ledger()[row.target].login == "naviglio_target"
            target.close()
        finally:
            admin.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())
