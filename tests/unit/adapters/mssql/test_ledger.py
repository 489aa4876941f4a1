"""The ledger's statements, and the locks by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import pytest
from mssql_python import Connection

from naviglio.adapters.mssql import ledger
from naviglio.errors import ContentionError
from naviglio.model import TableName
from tests.contract.target import ledger_row
from tests.unit.adapters.mssql.recorder import Recorder
from tests.unit.adapters.mssql.tsql import parsed

NAME = TableName(schema="made", table="people")


def connection(recorder: Recorder) -> Connection:
    """Return a recorder as what it stands in for."""
    return cast("Connection", recorder)


def test_every_statement_is_tsql() -> None:
    """The lock too, as the batch that it is."""
    lock = ledger.lock_statement("Session", 60000)
    for statement in (
        ledger.create_ledger(), ledger.create_schema("a]b"), ledger.SELECT, ledger.SELECT_ONE,
        ledger.UPDATE, ledger.INSERT, ledger.EXISTS, ledger.SCHEMA_EXISTS, lock, ledger.RELEASE,
    ):  # fmt: skip
        parsed(statement)
    assert ledger.create_schema("a]b") == "CREATE SCHEMA [a]]b]"
    assert "[target] nvarchar(257) COLLATE Latin1_General_100_BIN2 NOT NULL" in (
        ledger.create_ledger()
    )


def test_a_target_is_locked_by_its_name() -> None:
    """With or without a row, until the end of the transaction, for a bounded time."""
    recorder = Recorder(lambda text: [(1,)] if "sp_getapplock" in text else ())
    assert ledger.lock(connection(recorder), str(NAME), 60) is None
    assert recorder.calls == [
        "SET NOCOUNT ON; DECLARE @got int; SELECT @got = COUNT(*) FROM sys.schemas;"
        " EXEC @got = sys.sp_getapplock @Resource = ?,"
        " @LockMode = N'Exclusive', @LockOwner = N'Transaction', @LockTimeout = 60000;"
        " SELECT @got;",
        ledger.SELECT_ONE,
    ]
    assert recorder.bound == [(ledger.resource("target made.people"),), ("made.people",)]


def test_a_wait_without_end_is_one() -> None:
    """A bound of 0 has no end, as the session's own; a look whether a lock is free ends at once."""
    recorder = Recorder(lambda text: [(0,)] if "sp_getapplock" in text else ())
    ledger.lock(connection(recorder), str(NAME), 0)
    assert ledger.try_hold(connection(recorder), "x")
    waits = [call.split("@LockTimeout = ")[1] for call in recorder.calls if "LockTimeout" in call]
    assert waits == ["-1; SELECT @got;", "0; SELECT @got;"]
    assert "FROM sys.schemas" not in recorder.calls[-1]  # in autocommit


@pytest.mark.parametrize("code", [-1, -3])
def test_a_lock_that_others_keep(code: int) -> None:
    """The load may be tried again with the same staging."""
    with pytest.raises(ContentionError, match=r"target made\.people: no lock within 5 s"):
        ledger.lock(connection(Recorder(lambda _: [(code,)])), str(NAME), 5)


def test_names_of_locks_are_short_and_tell_apart() -> None:
    """The server compares the first 255 characters only."""
    long = ["target " + "x" * 300 + end for end in "ab"]
    assert ledger.resource(long[0]) != ledger.resource(long[1])
    assert max(len(ledger.resource(name)) for name in long) < 255


@pytest.mark.parametrize("there", [True, False])
def test_a_row_is_updated_or_inserted(*, there: bool) -> None:
    """Under the lock there is no race between the two; times are stored as UTC."""
    recorder = Recorder()
    recorder.rowcount = int(there)
    ledger.record(connection(recorder), ledger_row(NAME))
    assert recorder.calls == ([ledger.UPDATE] if there else [ledger.UPDATE, ledger.INSERT])
    for bound in recorder.bound:
        assert len(bound) == ledger.INSERT.count("?")
        assert datetime(2013, 1, 7, 12) in bound  # noqa: DTZ001 - as it is stored


def test_rows_come_back_as_they_went() -> None:
    """The column's type has no zone; the row's time has."""
    recorder = Recorder()
    recorder.rowcount = 0
    ledger.record(connection(recorder), ledger_row(NAME))
    stored = recorder.bound[-1]
    answers = Recorder(lambda text: [stored] if text == ledger.SELECT else [(5,)])
    rows = ledger.rows(connection(answers))
    assert rows == {str(NAME): ledger_row(NAME)}
    assert rows[str(NAME)].loaded_at_utc.tzinfo is UTC


def test_no_ledger_has_no_rows() -> None:
    """A database that was never loaded."""
    assert ledger.rows(connection(Recorder(lambda _: [(None,)]))) == {}
