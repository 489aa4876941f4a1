"""Values of every type through SQL Server and back, on the server that NAVIGLIO_TEST_MSSQL names.

The same data as docs/types.md is made from; the database must allow SNAPSHOT isolation.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import mssql_python
import psycopg
import pytest

from naviglio.adapters.mssql import ledger
from naviglio.adapters.mssql.session import connect
from naviglio.adapters.mssql.source import MssqlSource
from naviglio.adapters.mssql.sql import literal, table
from naviglio.adapters.mssql.target import MssqlTarget
from naviglio.adapters.postgres.embedded import Cluster
from naviglio.adapters.postgres.source import PostgresSource
from naviglio.adapters.postgres.target import PostgresTarget
from naviglio.model import TableName
from tests.contract.test_mssql_target import URL, VARIABLE
from tests.sides import Side, delivered, meanings, there_and_back, without_offsets
from tests.values import MSSQL, NOT_IN_SQL_SERVER, POSTGRES

pytestmark = pytest.mark.skipif(
    not URL, reason=f"{VARIABLE} is not set: it is the mssql:// URL of a server to test against"
)
MARK = f"v{uuid.uuid4().hex[:8]}"
OWN = ("mood", "positive")  # types that only the page's own schema has


@pytest.fixture(scope="module")
def server() -> Iterator[mssql_python.Connection]:
    """A session beside; it drops what the tests made."""
    outside = connect(URL)
    with contextlib.suppress(mssql_python.Error):
        outside.execute(ledger.create_schema("made"))
    yield outside
    made = (
        "SELECT name FROM sys.tables WHERE schema_id = SCHEMA_ID(N'made')"
        f" AND name LIKE {literal(MARK + '%')}"
    )
    with outside.execute(made) as cursor:
        names = [name for (name,) in cursor.fetchall()]
    for name in names:
        outside.execute(f"DROP TABLE {table(TableName(schema='made', table=name))}").close()
    outside.close()


@pytest.fixture
def there(server: mssql_python.Connection) -> Iterator[Side]:
    """SQL Server."""
    del server
    side = Side(MssqlTarget(URL), MssqlSource(URL), "made")
    yield side
    side.close()


@pytest.fixture
def here(cluster: Cluster) -> Iterator[Side]:
    """PostgreSQL."""
    url = cluster.urls()["warehouse"]
    side = Side(PostgresTarget(url), PostgresSource(url), MARK)
    yield side
    side.close()


@pytest.mark.parametrize("kind", MSSQL)
def test_from_sql_server_and_back(
    server: mssql_python.Connection, there: Side, here: Side, kind: str
) -> None:
    """What is read means what T-SQL wrote, and is what the tests without a server take for it.

    It goes to another table of the server, and to PostgreSQL and back; an offset stays at home.
    """
    sent = MSSQL[kind]
    name = f"{MARK} {kind}"
    where = table(TableName(schema="made", table=name))
    server.execute(f"CREATE TABLE {where} ([id] int PRIMARY KEY, [v] {kind} NULL)").close()
    for n, one in enumerate(sent):
        columns, values = ("[id], [v]", f"{n}, {one.sql}") if one.sql else ("[id]", str(n))
        server.execute(f"INSERT INTO {where} ({columns}) VALUES ({values})").close()
    if sent[0].sql:
        server.execute(f"INSERT INTO {where} VALUES ({len(sent)}, NULL)").close()

    schema, found = there.read(name)
    column = schema.column("v")
    expected_schema, expected = delivered(kind, sent)
    assert column.kind == expected_schema.column("v").kind
    assert column.carrier == expected_schema.column("v").carrier
    meaning = meanings(column, found)
    if sent[0].sql:
        assert meaning == meanings(column, expected)
    there_and_back(there, there, f"{name} again", schema, found, meaning)
    moments = meanings(column, without_offsets(found))
    there_and_back(here, there, f"{name} by PostgreSQL", schema, found, moments)


@pytest.mark.parametrize("kind", [kind for kind in POSTGRES if kind not in OWN])
def test_from_postgresql_and_back(cluster: Cluster, there: Side, here: Side, kind: str) -> None:
    """Each value means the same, read from there too; refused is only what is listed."""
    values = POSTGRES[kind]
    name = f"{MARK} {kind}"
    quoted = '"' + name.replace('"', '""') + '"'
    with psycopg.connect(cluster.urls()["warehouse"], autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {MARK}".encode())
        connection.execute(f"CREATE TABLE {MARK}.{quoted} (id int PRIMARY KEY, v {kind})".encode())
        for n, value in enumerate([*values, None]):
            statement = f"INSERT INTO {MARK}.{quoted} VALUES (%s, %s::{kind})"
            connection.execute(statement.encode(), (n, value))
    schema, found = here.read(name)
    meaning = meanings(schema.column("v"), found)
    arrived = there_and_back(there, here, name, schema, found, meaning)
    assert {values[n] for n in arrived.refused} == set(NOT_IN_SQL_SERVER.get(kind, ()))
