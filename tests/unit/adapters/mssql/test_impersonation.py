"""Working as another user: the batches' exact text, and in which order they are sent.

sqlglot reads neither EXECUTE AS nor REVERT with a cookie; a server is asked who it is in
tests/contract/test_mssql_target.py.
"""

from __future__ import annotations

from datetime import datetime
from typing import cast

import mssql_python
import pytest
from mssql_python import Connection

from naviglio import refusals
from naviglio.adapters.mssql import impersonation, ledger
from naviglio.adapters.mssql import target as module
from naviglio.adapters.mssql.target import MssqlTarget
from naviglio.errors import ContentionError, RetryableError, TargetError
from tests.contract.target import PEOPLE
from tests.unit.adapters.mssql.recorder import Answer, Recorder
from tests.unit.adapters.mssql.test_target import COLUMNS, DEADLOCK, NAME, load, server
from tests.unit.adapters.mssql.tsql import parsed

_AT = datetime(2013, 1, 7)  # noqa: DTZ001 - as it is stored
MAY_NOT = mssql_python.ProgrammingError(
    "Syntax error or access violation",
    'Cannot execute as the database principal because the principal "o\'x" does not exist, this'
    " type of principal cannot be impersonated, or you do not have permission.",
)


def opened(monkeypatch: pytest.MonkeyPatch, **told: Answer) -> tuple[MssqlTarget, Recorder]:
    """Return a target that merges as a user, over a recorder."""
    recorder = Recorder(server(**told))
    monkeypatch.setattr(module, "connect", lambda *_, **__: cast("Connection", recorder))
    target = MssqlTarget("mssql://u:p@h/d", run_as="o'x")
    with target._session():
        target._standing.alive.add("a1")
    return target, recorder


def order(recorder: Recorder) -> list[str]:
    """Return what was sent around the transaction."""
    be, back = impersonation.execute_as("o'x"), impersonation.revert(b"\1\xff")
    words = ("GRANT", be, "AUTOCOMMIT OFF", ledger.UPDATE, "COMMIT", "ROLLBACK", "AUTOCOMMIT ON",
             back, "DROP TABLE")  # fmt: skip
    return list(recorder.said(*words))


def test_the_batches() -> None:
    """Values are literals: a parameter would make the server revert at the statement's end."""
    assert impersonation.execute_as("o'x") == (
        "SET NOCOUNT ON; DECLARE @cookie varbinary(8000); EXECUTE AS USER = N'o''x' WITH COOKIE"
        " INTO @cookie; SELECT @cookie;"
    )
    assert impersonation.revert(b"\1\xff") == (
        "SET NOCOUNT ON; DECLARE @cookie varbinary(8000) = 0x01ff; REVERT WITH COOKIE = @cookie;"
        " SELECT USER_NAME();"
    )
    assert impersonation.grant_ledger("a]b") == (
        "GRANT SELECT, INSERT, UPDATE ON OBJECT::[naviglio].[ledger] TO [a]]b]"
    )
    assert impersonation.grant_staging("[naviglio].[s_1]", "a]b") == (
        "GRANT SELECT ON OBJECT::[naviglio].[s_1] TO [a]]b]"
    )
    for statement in (impersonation.WHO, impersonation.GRANTED, ledger.IS_LATER,
                      ledger.add_columns(), ledger.SELECT_EARLIER):  # fmt: skip
        parsed(statement)


def test_only_the_transaction_runs_as_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The staging table goes after it, by its owner, the login."""
    target, recorder = opened(monkeypatch, granted=[(0,)])
    load(target)
    assert order(recorder) == [
        "GRANT", impersonation.execute_as("o'x"), "AUTOCOMMIT OFF", ledger.UPDATE, "COMMIT",
        "AUTOCOMMIT ON", impersonation.revert(b"\1\xff"), "DROP TABLE",
    ]  # fmt: skip
    batches = [
        bound
        for call, bound in zip(
            [c for c in recorder.calls if not c.startswith(("AUTO", "COMMIT"))],
            recorder.bound,
            strict=True,
        )
        if "COOKIE" in call
    ]
    assert batches == [(), ()]


def test_the_session_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rolled back first, then the login's again."""
    target, recorder = opened(monkeypatch, merge=DEADLOCK)
    with pytest.raises(ContentionError):
        load(target)
    assert order(recorder)[-3:] == [
        "ROLLBACK", "AUTOCOMMIT ON", impersonation.revert(b"\1\xff"),
    ]  # fmt: skip
    recorder._answer = server()
    assert load(target).inserted == 1


@pytest.mark.parametrize("answer", [[("o'x",)], DEADLOCK])
def test_a_session_that_does_not_come_back_is_closed(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """What was committed stays; nobody meets the session again."""
    target, recorder = opened(monkeypatch)
    told = server()
    recorder._answer = lambda text: answer if "REVERT" in text else told(text)
    assert load(target).inserted == 1
    assert target._open is None
    with pytest.raises(RetryableError, match="stage again"):
        load(target)


def test_who_may_not_be_the_user_is_told_what_to_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was begun."""
    target, recorder = opened(monkeypatch, cookie=MAY_NOT)
    with pytest.raises(TargetError, match=r"'owner' may not run as \"o'x\".*IMPERSONATE ON USER"):
        load(target)
    assert "AUTOCOMMIT OFF" not in recorder.calls


def test_a_user_without_rights_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The missing rights are named; a table that it can't even see as well."""
    without: Answer = [(5, "U", refusals.MADE_BY, 1, 1, 0, 1, 0, 0)]
    target, recorder = opened(monkeypatch, table=without, columns=COLUMNS)
    with pytest.raises(TargetError, match="lacks INSERT, DELETE on it; nothing was loaded"):
        target.check(NAME, PEOPLE, adopt=False)
    with pytest.raises(TargetError, match="lacks INSERT, DELETE"):
        load(target)
    assert not [call for call in recorder.calls if "MERGE" in call]

    known = [("made.people", *["x"] * 4, 1, 1, "a", _AT, "", 0, 0, 0, 0, "", "")]
    blind, _ = opened(monkeypatch, table=(), rows=known)
    with pytest.raises(TargetError, match=r"sees no such table.*GRANT SELECT"):
        blind.check(NAME, PEOPLE, adopt=False)


def test_a_ledger_of_an_earlier_version_is_upgraded() -> None:
    """Its rows are read as they are before it is."""
    recorder = Recorder(
        lambda text: [(None, None)] if "COL_LENGTH" in text else [(0,)]
    )  # fmt: skip
    ledger.ensure(cast("Connection", recorder), 1)
    assert ledger.add_columns() in recorder.calls

    row = ("made.people", "p", "t", "l", "d", 1, 1, "a", _AT, "", 0, 0, 0, 0)

    def answer(text: str) -> Answer:
        if "COL_LENGTH" in text:
            return [(None, None)]
        return [row] if text == ledger.SELECT_EARLIER else [(1,)]

    earlier = Recorder(answer)
    assert ledger.rows(cast("Connection", earlier))["made.people"].login == ""
