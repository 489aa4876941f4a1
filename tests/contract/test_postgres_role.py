"""PostgreSQL as a target whose merges another role does than the login: the same promises."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.adapters.postgres.sql import quote, table
from naviglio.adapters.postgres.target import PostgresTarget
from naviglio.model import TableName
from naviglio.ports import Target
from tests.contract.postgres_sessions import Sessions
from tests.contract.target import Row, TargetContract, ledger_row, load, person

MARK = uuid.uuid4().hex[:8]
ROLE, LOGIN = f"Ro le,{MARK}", f"login_{MARK}"


@pytest.fixture(scope="module")
def urls(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Return the URLs of a login that owns nothing of the target, and of who looks from outside."""
    admin = make_conninfo(cluster.urls()["admin"], dbname="warehouse")
    role = quote(ROLE)
    with psycopg.connect(admin, autocommit=True) as connection:
        for statement in (
            f"CREATE ROLE {role} NOLOGIN",
            f"CREATE ROLE {LOGIN} LOGIN NOINHERIT PASSWORD 'x'",
            f"GRANT {role} TO {LOGIN} WITH INHERIT FALSE, SET TRUE",
            f"GRANT CONNECT ON DATABASE warehouse TO {LOGIN}",
            f"GRANT CREATE, TEMPORARY ON DATABASE warehouse TO {role}",
            # The ledger that other tests share is theirs.
            f"GRANT naviglio_target TO {LOGIN} WITH INHERIT TRUE, SET FALSE",
            "CREATE SCHEMA IF NOT EXISTS made AUTHORIZATION naviglio_target",
            f"GRANT USAGE, CREATE ON SCHEMA made TO {role}",
        ):
            connection.execute(statement.encode())
        yield make_conninfo(cluster.urls()["warehouse"], user=LOGIN, password="x"), admin
        for name in (LOGIN, role):
            connection.execute(f"DROP OWNED BY {name} CASCADE".encode())
            connection.execute(f"DROP ROLE {name}".encode())


class TestPostgresTargetAsRole(Sessions, TargetContract):
    """The contract, as a role."""

    @pytest.fixture(autouse=True)
    def _connect(self, urls: tuple[str, str]) -> Iterator[None]:
        self.url, admin = urls
        with psycopg.connect(admin, autocommit=True, row_factory=dict_row) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            self.outside = connection
            yield

    def open(self) -> Target:
        """Open the target once more."""
        return PostgresTarget(self.url, run_as=ROLE)

    def stored(self, name: TableName) -> list[Row] | None:
        """Return the rows of a table, by its first column; None when it is absent."""
        found = self.outside.execute("SELECT to_regclass(%s) AS there", (table(name),)).fetchone()
        if found is None or found["there"] is None:
            return None
        return self.outside.execute(f"SELECT * FROM {table(name)} ORDER BY 1".encode()).fetchall()

    def make(self, name: TableName, *, amount: str, unique: bool) -> None:
        """Create a table for PEOPLE by hand, the role's."""
        for statement in (
            f"CREATE TABLE {table(name)} (id bigint {'UNIQUE' if unique else ''}, name text,"
            f" amount {amount}, seen timestamptz)",
            f"ALTER TABLE {table(name)} OWNER TO {quote(ROLE)}",
        ):
            self.outside.execute(statement.encode())

    def test_the_role_owns_what_it_made_and_the_ledger_says_so(
        self, target: Target, name: TableName
    ) -> None:
        """The login could not have made it, nor read it."""
        load(target, name, [person(1)])
        with target.begin() as transaction:
            transaction.lock(name)
            transaction.record(ledger_row(name))

        owner = "SELECT relowner::regrole::text AS owner FROM pg_class WHERE oid = %s::regclass"
        assert self.outside.execute(owner, (table(name),)).fetchone() == {"owner": quote(ROLE)}
        row = target.ledger()[str(name)]
        assert (row.login, row.principal) == (LOGIN, ROLE)
