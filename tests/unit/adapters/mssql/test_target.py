"""In which order the target asks its server, and what it does with the answers.

What a server makes of it is shown by tests/contract/test_mssql_target.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any, cast

import mssql_python
import pytest
from mssql_python import Connection

from naviglio import refusals
from naviglio.adapters.mssql import (
    belongings,
    fit,
    indexes,
    ledger,
    open_source,
    open_target,
    staging,
    swap,
)
from naviglio.adapters.mssql import merge as sql
from naviglio.adapters.mssql import target as module
from naviglio.adapters.mssql.source import MssqlSource
from naviglio.adapters.mssql.target import MssqlTarget
from naviglio.errors import ConfigError, ContentionError, DataError, RetryableError
from naviglio.model import LoadCounts, TableName
from naviglio.ports import Staging
from tests.contract.target import PEOPLE, ledger_row
from tests.unit.adapters.mssql.recorder import Answer, Recorder

NAME = TableName(schema="made", table="people")
STAGED = Staging(name="[naviglio].[s_a1]", attempt="a1", rows=3, whole=False, has_beyond=False)
DEADLOCK = mssql_python.OperationalError(
    "Serialization failure", "Transaction was deadlocked on lock and chosen as the deadlock victim"
)
COLUMNS = [
    ("id", "bigint", 8, 19, 0, None, False, 0, 0),
    ("name", "nvarchar", 36, 0, 0, "Latin1_General_CI_AS", True, 0, 0),
    ("amount", "decimal", 5, 9, 2, None, True, 0, 0),
    ("seen", "datetimeoffset", 10, 33, 6, None, True, 0, 0),
]
# The index of a primary key, as the catalogue has it.
KEY = (1, "pk", 1, True, True, False, False, 0, "", "NONE")


def server(**told: Answer) -> Callable[[str], Answer]:
    """Return the answers of a server that has the target, with a row; `told` are others."""
    answers: dict[str, tuple[str, Answer]] = {
        "lock": ("EXEC @got", [(0,)]),
        "folds": ("SELECT CASE WHEN N'a'", ()),
        "figures": ("SELECT COUNT_BIG(*), COUNT_BIG(s.[c1])", ()),
        "stagings": (staging.STAGINGS, ()),
        "size": (swap.ROWS, [(900,)]),
        "kept": (belongings.INDEXES, [KEY]),
        "keyed": (belongings.INDEX_COLUMNS, [(1, "id", False, False)]),
        "checks": (belongings.CHECKS, [("([amount]<(100))",)]),
        "lost": (belongings.LOST, ()),
        "free": (indexes.FREE, ()),
        "held": ("WITH (TABLOCK, HOLDLOCK)", [(5,)]),
        "table": ("FROM sys.objects AS o\nJOIN", [(5, "U", refusals.MADE_BY, 1, 1, 1, 1, 1, 1)]),
        "columns": ("FROM sys.columns", COLUMNS),
        "unique": ("FROM sys.indexes", [(1, "id")]),
        "merge": ("MERGE", [("INSERT", 1), ("DELETE", 1)]),
        "survey": ("SELECT COUNT_BIG(*), COUNT_BIG(CASE", [(2, 0, 0, 0)]),
        "keys": ("SELECT ISNULL(MAX(k.[living])", [(1, 1)]),
        "twins": ("SELECT TOP (2)", ()),
        "flawed": ("SELECT TOP (1) CAST", [("4",)]),
        "empty": ("SELECT TOP (1) 1", [(1,)]),
        "ledger": ("SELECT OBJECT_ID", [(7,)]),
        "later": ("SELECT COL_LENGTH", [(-1, -1)]),
        "who": ("SELECT USER_NAME()", [("owner",)]),
        "count": ("SELECT COUNT_BIG(*) FROM (", [(2,)]),
        "cut": ("ROW_NUMBER() OVER (ORDER BY", ()),
        "cookie": ("EXECUTE AS USER", [(b"\x01\xff",)]),
        "granted": ("FROM sys.database_permissions", [(3,)]),
        "rows": (ledger.SELECT, ()),
        "right": ("N'CREATE TABLE'", [(1, 1)]),
    }  # fmt: skip

    def answer(text: str) -> Answer:
        return next((told.get(n, a) for n, (part, a) in answers.items() if part in text), ())

    return answer


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[MssqlTarget, Recorder]]:
    """Open a target over a recorder that answers like `server`."""

    def open_(**told: Answer) -> tuple[MssqlTarget, Recorder]:
        recorder = Recorder(server(**told))
        monkeypatch.setattr(module, "connect", lambda *_, **__: cast("Connection", recorder))
        target = MssqlTarget("mssql://u:p@h/d")
        with target._session():
            target._standing.alive.add("a1")
        return target, recorder

    return open_


Opened = Callable[..., tuple[MssqlTarget, Recorder]]


def load(target: MssqlTarget, staged: Staging = STAGED) -> LoadCounts:
    """Lock, merge and record."""
    with target.begin() as transaction:
        transaction.lock(NAME)
        counts = transaction.merge(NAME, PEOPLE, staged)
        transaction.record(ledger_row(NAME))
    return counts


def test_nothing_connects_before_the_first_question() -> None:
    """A URL alone makes source and target."""
    assert isinstance(open_source("mssql://u:secret@h/d"), MssqlSource)
    assert isinstance(open_target("mssql://u:secret@h/d"), MssqlTarget)


def test_one_transaction(opened: Opened) -> None:
    """Lock, checks, MERGE, ledger, the staging's end; then all of it becomes visible."""
    target, recorder = opened()
    assert load(target) == LoadCounts(inserted=1, deleted=1, unchanged=1)
    words = ("AUTOCOMMIT OFF", "SET NOCOUNT ON; DECLARE @got", "SELECT COUNT_BIG",
             "SELECT ISNULL(MAX", "SET NOCOUNT ON;\nDECLARE", ledger.UPDATE, "DROP TABLE",
             "COMMIT", "ROLLBACK", "AUTOCOMMIT ON")  # fmt: skip
    assert list(recorder.said(*words)) == [w for w in words if w != "ROLLBACK"]


def test_a_range_keeps_the_staging_until_the_last(opened: Opened) -> None:
    """Its rows are counted by itself; the target is merged, also where it is empty."""
    target, recorder = opened(count=[(2,)], empty=(), cut=[("5",), ("9",)])
    assert target.cuts(NAME, PEOPLE, STAGED, 3) == ("5", "9")
    for low, high in ((None, "5"), ("5", None)):
        with target.begin() as transaction:
            transaction.lock(NAME)
            counts = transaction.merge_range(NAME, PEOPLE, STAGED, low, high)
        assert counts == LoadCounts(inserted=1, deleted=1, unchanged=1)
        dropped = [call for call in recorder.calls if call.startswith("DROP TABLE")]
        assert len(dropped) == (0 if high else 1)
    surveys = [c for c in recorder.calls if c.startswith("SELECT COUNT_BIG(*), COUNT_BIG(CASE")]
    assert len(surveys) == 1  # the rows are the same for each range


@pytest.mark.parametrize(("most", "folded"), [(1, False), (2, True)])
def test_only_keys_that_are_staged_twice_are_folded(
    opened: Opened, *, most: int, folded: bool
) -> None:
    """A delete and an upsert of one key; else the rows need no order."""
    target, recorder = opened(keys=[(1, most)])
    load(target)
    [merged] = [call for call in recorder.calls if "MERGE [made]" in call]
    assert ("ROW_NUMBER" in merged) is folded


def test_an_empty_target_is_filled_without_a_merge(opened: Opened) -> None:
    """There is nothing to compare with."""
    target, recorder = opened(empty=())
    assert load(target) == LoadCounts(inserted=2)
    assert [call.startswith("INSERT INTO [made]") for call in recorder.calls].count(True) == 1
    assert not [call for call in recorder.calls if "MERGE" in call]


def test_a_target_that_is_absent_is_made_within_the_transaction(opened: Opened) -> None:
    """It goes with the rest when the transaction doesn't end well."""
    made = False

    def answer(text: str) -> Answer:
        nonlocal made
        made |= text.startswith("CREATE TABLE")
        return () if text == fit.TABLE and not made else server()(text)

    target, recorder = opened()
    recorder._answer = answer
    load(target)
    begins = [c for c in recorder.calls if c.startswith(("AUTO", "CREATE", "EXEC", "COMMIT"))]
    assert begins == [
        "AUTOCOMMIT OFF", sql.create_target(NAME, PEOPLE), sql.mark_target(NAME), "COMMIT",
        "AUTOCOMMIT ON",
    ]  # fmt: skip


def test_a_deadlock_leaves_the_staging_to_be_merged_again(opened: Opened) -> None:
    """The session lives on, and with it the staging's lock."""
    target, recorder = opened(merge=DEADLOCK)
    with pytest.raises(ContentionError, match="error 1205"):
        load(target)
    assert list(recorder.said("COMMIT", "ROLLBACK", "DROP", "AUTOCOMMIT ON")) == [
        "ROLLBACK", "AUTOCOMMIT ON",
    ]  # fmt: skip
    recorder._answer = server()
    assert load(target).inserted == 1


def test_a_lost_session_takes_its_stagings_with_it(opened: Opened) -> None:
    """Anybody may have dropped them by now."""
    away = mssql_python.OperationalError("Communication link failure", "TCP Provider: Error")
    target, _ = opened(merge=away)
    with pytest.raises(RetryableError, match="database 'd'"):
        load(target)
    opened()
    with pytest.raises(RetryableError, match="stage again"):
        load(target)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"survey": [(2, 0, 1, 0)]}, r"made\.people', column 'name': a value is too long for"
                                     r" nvarchar\(18\); key \(id=4\); rows like it: 1"),
        ({"survey": [(2, 1, 0, 0)]}, r"column 'id': a value is NULL"),
        ({"keys": [(2, 2)], "twins": [("7",), ("7",)]},
         r"two rows are one to the key's collation; key \(id=7\)\."),
        ({"keys": [(2, 3)], "twins": [("a",), ("A",)]}, r"key \(id=a\) and \(id=A\)"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(opened: Opened, told: dict[str, Any], said: str) -> None:
    """Nothing was written when they are found."""
    target, recorder = opened(**told)
    with pytest.raises(DataError, match=said):
        load(target)
    assert not [call for call in recorder.calls if call.startswith(("INSERT", "SET NOCOUNT ON;\n"))]
    assert "ROLLBACK" in recorder.calls


def test_a_misfit_is_refused_before_and_within_the_transaction(opened: Opened) -> None:
    """The table may have changed since it was checked."""
    narrow = [*COLUMNS[:2], ("amount", "decimal", 5, 9, 1, None, True, 0, 0), COLUMNS[3]]
    target, _ = opened(columns=narrow)
    with pytest.raises(ConfigError, match=r"'amount' is decimal\(9,1\), narrower"):
        target.check(NAME, PEOPLE, adopt=False)
    with pytest.raises(ConfigError, match="narrower"):
        load(target)


def test_what_is_refused_before_anything_is_staged(opened: Opened) -> None:
    """A stranger's table, a missing right, a name that can't be one."""
    stranger: Answer = [(5, "U", "", 1, 1, 1, 1, 1, 1)]
    with pytest.raises(ConfigError, match="adopt"):
        opened(table=stranger)[0].check(NAME, PEOPLE, adopt=False)
    opened(table=stranger)[0].check(NAME, PEOPLE, adopt=True)
    with pytest.raises(ConfigError, match="may not create tables in schema 'naviglio'"):
        opened(right=[(1, 0)])[0].check(NAME, PEOPLE, adopt=False)
    with pytest.raises(ConfigError, match="SQL Server takes 128"):
        opened(table=())[0].check(TableName(schema="s", table="x" * 129), PEOPLE, adopt=False)


def test_columns_that_are_one_to_the_database(opened: Opened) -> None:
    """Refused before anything is staged, also where the table is absent."""
    twice = replace(PEOPLE, columns=(*PEOPLE.columns, replace(PEOPLE.column("name"), name="NAME")))
    with pytest.raises(ConfigError, match="columns 'name' and 'NAME' are one to this database"):
        opened(table=(), folds=[(1,)])[0].check(NAME, twice, adopt=False)
    opened(table=(), folds=[(0,)])[0].check(NAME, twice, adopt=False)


def test_one_table_has_one_name_in_the_ledger(opened: Opened) -> None:
    """Where the server ignores case, another spelling would be loaded beside the first."""
    other = replace(ledger_row(NAME), target="MADE.People", pipeline="first")
    stored = [astuple(replace(other, loaded_at_utc=other.loaded_at_utc.replace(tzinfo=None)))]
    with pytest.raises(ConfigError, match=r"pipeline 'first' loads as 'MADE\.People'"):
        opened(rows=stored)[0].check(NAME, PEOPLE, adopt=False)
    exact: Answer = [(5, "U", refusals.MADE_BY, 0, 1, 1, 1, 1, 1)]
    opened(rows=stored, table=exact)[0].check(NAME, PEOPLE, adopt=False)


def test_a_rollback_that_fails_ends_the_session(opened: Opened) -> None:
    """Turning autocommit on again would commit what is left of the transaction."""

    class Stuck(Recorder):
        def rollback(self) -> None:
            raise mssql_python.OperationalError("General error", "")

    target, recorder = opened(merge=DEADLOCK)
    recorder.__class__ = Stuck
    with pytest.raises(ContentionError):
        load(target)
    assert "AUTOCOMMIT ON" not in recorder.calls
    with pytest.raises(RetryableError, match="stage again"):
        load(target)


def test_closing_gives_locks_back_and_clears_what_the_dead_left(opened: Opened) -> None:
    """A pooled session would live on, and its locks with it."""
    target, recorder = opened()
    target.close()
    assert recorder.calls[-2:] == [ledger.RELEASE, staging.STAGINGS]
    target.close()


def test_a_session_that_is_gone_between_two_steps_is_made_again(opened: Opened) -> None:
    """Nothing fails but what was staged over it, which is staged again."""
    target, recorder = opened()
    told, gone = recorder._answer, [mssql_python.OperationalError("Communication link failure", "")]
    recorder._answer = lambda text: gone.pop() if text == "SELECT 1" and gone else told(text)
    assert target.ledger() == {}
    assert not gone
    with pytest.raises(RetryableError, match="stage again"):
        load(target)
