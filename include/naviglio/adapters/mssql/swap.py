"""A table filled beside its target, which then gives it all its rows at once.

The rows are copied into the ordinary staging table, and from there, checked and cast as a merge
does, into a table like the target, with its indexes: outside of the transaction. In it the target
is emptied and the rows are switched in, which changes the catalogue only. The target stays the
table that it was, with all that belongs to it; the staging stays until the commit, so that it can
be merged where the target has changed meanwhile, readers hold it, or the server refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import mssql_python
from mssql_python import Connection

from naviglio.adapters.mssql import merge as sql
from naviglio.adapters.mssql import staging as stagings
from naviglio.adapters.mssql.belongings import (
    Belongings,
    belongings,
    create_clustered,
    create_like,
    create_others,
)
from naviglio.adapters.mssql.errors import is_lost, said
from naviglio.adapters.mssql.fit import Found, find, made
from naviglio.adapters.mssql.fit import rows as fetch
from naviglio.adapters.mssql.flaws import refuse_flaws
from naviglio.adapters.mssql.ledger import SCHEMA
from naviglio.adapters.mssql.sql import DEFAULT_SCHEMA, table
from naviglio.model import TableName, TableSchema
from naviglio.ports import Staging

log = logging.getLogger("naviglio.load")
ABSENT = Belongings(id=0, columns=(), indexes=(), checks=(), lost=())  # of a table that isn't there
READERS_WAIT_S = 2  # at most, for a lock that waits for other readers
ROWS = """
SELECT SUM(p.rows)
FROM sys.tables AS t
JOIN sys.schemas AS n ON n.schema_id = t.schema_id
JOIN sys.partitions AS p ON p.object_id = t.object_id AND p.index_id IN (0, 1)
WHERE n.name = ? AND t.name = ?
"""


def rows(connection: Connection, target: TableName) -> int | None:
    """Return a table's rows as the server estimates them; None when there is no table."""
    ((found,),) = fetch(connection, ROWS, target.schema or DEFAULT_SCHEMA, target.table)
    return None if found is None else int(found)


def keeps(connection: Connection, target: TableName, schema: TableSchema) -> tuple[str, ...]:
    """Return what a swap would lose, or why there can be none; empty when nothing."""
    found = find(connection, target)
    if found is None:
        return ()
    alone = [column for column in found.columns if column.name not in _loaded(found, schema)]
    told = [
        f"column {column.name!r}, which the server computes"
        if column.computed
        else f"the values of column {column.name!r}, which the lake does not have"
        for column in alone
    ]
    if "ALTER" in found.lacking_rights:
        told.append("the right to empty it (ALTER on it)")
    return (*told, *belongings(connection, found).lost)


def fill(
    connection: Connection, target: TableName, schema: TableSchema, staging: Staging
) -> Belongings | None:
    """Fill the table beside from the staging; return what the target was meanwhile.

    None where the server refuses: a merge of the staging goes on, or tells which row is wrong.
    Raises DataError for a row that the target's columns can't take.
    """
    beside = beside_of(staging.attempt)
    try:
        return _fill(connection, target, beside, schema, staging)
    except mssql_python.Error as error:
        if is_lost(error):
            raise
        log.info("target %s is merged, not swapped: %s", target, said(error))
        _run(connection, stagings.drop_staging(table(beside)))
        return None


def _fill(
    connection: Connection,
    target: TableName,
    beside: TableName,
    schema: TableSchema,
    staging: Staging,
) -> Belongings:
    found, name = find(connection, target), table(beside)
    like = belongings(connection, found) if found else ABSENT
    _run(connection, stagings.drop_staging(name))
    if found is None:
        _run(connection, sql.create_target(beside, schema))
    else:
        _run(connection, create_like(name, like))
        if lacking := found.lacks(schema):
            _run(connection, sql.add_columns(beside, lacking))
        for statement in create_clustered(name, like):
            _run(connection, statement)
    job = sql.job(target, schema, staging, made(connection, beside))
    refuse_flaws(connection, job)
    _run(connection, sql.insert(job, into=beside))
    for statement in create_others(name, like):
        _run(connection, statement)
    return like


def into_place(
    connection: Connection,
    target: TableName,
    schema: TableSchema,
    staging: Staging,
    *,
    made_for: Belongings,
    wait_s: float,
) -> int | None:
    """Give the target the rows beside; return how many it had, None where it must be merged.

    It has something by now that would be lost, or that the table beside was made without.
    """
    gone = 0
    if made_for.id:
        ((gone,),) = fetch(connection, count_and_lock(target))  # readers go on
        found = made(connection, target)
        if belongings(connection, found) != made_for or keeps(connection, target, schema):
            return None
        with impatient(connection, wait_s):
            _run(connection, empty(target))
        if lacking := found.lacks(schema):
            _run(connection, sql.add_columns(target, lacking))
    beside = beside_of(staging.attempt)
    _run(connection, switch(beside, target))
    _run(connection, stagings.drop_staging(table(beside)))
    return int(gone)


def beside_of(attempt: str) -> TableName:
    """Return the table that an attempt fills beside its target."""
    return TableName(schema=SCHEMA, table=f"{stagings.BESIDE}{attempt}")


def count_and_lock(target: TableName) -> str:
    """Return the query that counts a table's rows, and lets nobody write until the end."""
    return f"SELECT COUNT_BIG(*) FROM {table(target)} WITH (TABLOCK, HOLDLOCK)"


def empty(target: TableName) -> str:
    """Return the statement that takes all rows of a table, and locks it against all."""
    return f"TRUNCATE TABLE {table(target)}"


def switch(beside: TableName, target: TableName) -> str:
    """Return the statement that gives all rows of a table to one like it, which is empty."""
    return f"ALTER TABLE {table(beside)} SWITCH TO {table(target)}"


def renew_statistics(connection: Connection, target: TableName) -> None:
    """Let readers plan by the new rows: those of the old are still there. It may fail."""
    with suppress(mssql_python.Error):
        _run(connection, f"UPDATE STATISTICS {table(target)}")


@contextmanager
def impatient(connection: Connection, wait_s: float) -> Iterator[None]:
    """Wait for locks only a moment: new readers would wait behind this."""
    _run(connection, set_lock_timeout(min(READERS_WAIT_S, wait_s or READERS_WAIT_S)))
    try:
        yield
    finally:
        with suppress(mssql_python.Error):
            _run(connection, set_lock_timeout(wait_s))


def set_lock_timeout(wait_s: float) -> str:
    """Return the statement that bounds the wait for a lock; 0 is without end."""
    return f"SET LOCK_TIMEOUT {round(wait_s * 1000) or -1}"


def _loaded(found: Found, schema: TableSchema) -> set[str]:
    return {has.name for name in schema.names if (has := found.column(name)) is not None}


def _run(connection: Connection, statement: str) -> None:
    connection.execute(statement).close()
