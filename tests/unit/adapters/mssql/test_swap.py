"""In which order a swap asks the server, and when it is a merge after all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import mssql_python
import pytest

from naviglio.adapters.mssql import belongings, indexes, ledger, staging, swap
from naviglio.adapters.mssql import merge as sql
from naviglio.errors import ContentionError, DataError, RetryableError
from naviglio.model import LoadCounts
from naviglio.ports import Rebuilding, Staging, Swapping
from tests.contract.target import PEOPLE, batches, person
from tests.unit.adapters.mssql.recorder import Answer, Recorder
from tests.unit.adapters.mssql.test_target import (
    COLUMNS,
    KEY,
    NAME,
    Opened,
    load,
    opened,
    server,
)
from tests.unit.adapters.mssql.tsql import parsed

__all__ = ["opened"]  # a fixture
BESIDE = "[naviglio].[b_a1]"
SWITCH = f"ALTER TABLE {BESIDE} SWITCH TO [made].[people]"
BUSY = mssql_python.OperationalError("x", "Lock request time out period exceeded.")
REFUSED = mssql_python.ProgrammingError("x", "ALTER TABLE SWITCH statement failed.")
BROKEN = mssql_python.IntegrityError(
    "x", 'The ALTER TABLE statement conflicted with the CHECK constraint "ck". The conflict'
)
GONE = mssql_python.OperationalError("Communication link failure", "TCP Provider: Error")


def filled(told: Callable[..., tuple[Any, Recorder]], **more: Answer) -> tuple[Any, Any, Staging]:
    """Fill a table beside with three rows, over a recorder that answers like a server."""
    rows = list(batches(PEOPLE, [person(n) for n in (1, 2, 3)], whole=True))
    stream = staging.Stream(iter(rows), PEOPLE, whole=True)
    assert len(list(stream)) == 1
    answers = {"figures": [stream.tally.figures], "survey": [(3, 0, 0, 0)], **more}
    target, recorder = told(**answers)
    return target, recorder, target.stage_beside("a1", NAME, PEOPLE, iter(rows))


def tail(recorder: Recorder, *words: str) -> Iterator[str]:
    """Yield the calls that begin with one of the words."""
    yield from (call for call in recorder.calls if call.startswith(words))


def test_what_is_asked_is_tsql() -> None:
    """SWITCH and UPDATE STATISTICS, which sqlglot doesn't read, as text."""
    for one in (swap.ROWS, swap.count_and_lock(NAME), swap.empty(NAME), swap.set_lock_timeout(2)):
        parsed(one)
    assert swap.switch(swap.beside_of("a1"), NAME) == SWITCH
    assert (swap.set_lock_timeout(0.05), swap.set_lock_timeout(0)) == (
        "SET LOCK_TIMEOUT 50", "SET LOCK_TIMEOUT -1",
    )  # fmt: skip


def test_a_table_like_the_target_is_filled_outside_of_the_transaction(opened: Opened) -> None:
    """Clustered index, rows in its order, then the other indexes and checks."""
    by_name = (2, "by_name", 2, False, False, False, False, 0, "", "NONE")
    target, recorder, staged = filled(opened, kept=[KEY, by_name])
    assert isinstance(target, Swapping)
    assert (staged.name, staged.beside, staged.rows) == ("[naviglio].[s_a1]", True, 3)
    made = list(tail(recorder, "CREATE", "ALTER", "INSERT", "AUTO", "BULK"))
    assert [text.split(" (")[0] for text in made] == [
        "CREATE TABLE [naviglio].[s_a1]", "BULK COPY [naviglio].[s_a1]", f"CREATE TABLE {BESIDE}",
        f"ALTER TABLE {BESIDE} ADD PRIMARY KEY CLUSTERED", f"INSERT INTO {BESIDE} WITH",
        f"CREATE NONCLUSTERED INDEX [by_name] ON {BESIDE}",
        f"ALTER TABLE {BESIDE} WITH CHECK ADD CHECK",
    ]  # fmt: skip


def test_the_rows_are_switched_in_within_the_transaction(opened: Opened) -> None:
    """Writers held off, all compared again, a moment for readers, then only the catalogue."""
    target, recorder, staged = filled(opened)
    recorder.calls.clear()
    assert load(target, staged) == LoadCounts(inserted=3, deleted=5)
    words = ("AUTOCOMMIT OFF", "SET NOCOUNT ON; DECLARE @got", swap.count_and_lock(NAME),
             belongings.LOST, "SET LOCK_TIMEOUT 2000", "TRUNCATE", "SET LOCK_TIMEOUT 60000", SWITCH,
             f"DROP TABLE IF EXISTS {BESIDE}", ledger.UPDATE, "DROP TABLE IF EXISTS [naviglio].[s_",
             "COMMIT", "AUTOCOMMIT ON", "UPDATE STATISTICS [made].[people]")  # fmt: skip
    seen = list(dict.fromkeys(recorder.said(*words)))
    assert seen == list(words)
    assert not list(tail(recorder, "SET NOCOUNT ON;\nDECLARE", "INSERT INTO [made]"))


def test_a_target_that_is_absent_is_made_and_given_its_rows(opened: Opened) -> None:
    """It is made in the transaction; the rows were written before it."""
    there: set[str] = set()

    class Server(Recorder):
        def execute(self, statement: str, *bound: Any) -> Any:
            if statement.startswith("CREATE TABLE [made]"):
                there.add("people")
            if statement.startswith("CREATE TABLE [naviglio].[b_"):
                there.add("b_a1")
            absent = "FROM sys.objects AS o\nJOIN" in statement and bound[0][1] not in there
            answer = self._answer
            self._answer = (lambda _: ()) if absent else answer
            try:
                return super().execute(statement, *bound)
            finally:
                self._answer = answer

    target, recorder = opened()
    recorder.__class__ = Server
    target, recorder, staged = filled(lambda **told: (target, _told(recorder, **told)))
    assert sql.create_target(swap.beside_of("a1"), PEOPLE) in recorder.calls
    recorder.calls.clear()
    assert load(target, staged) == LoadCounts(inserted=3)
    assert list(tail(recorder, "CREATE", "TRUNCATE", "EXEC", "ALTER", "COMMIT")) == [
        sql.create_target(NAME, PEOPLE), sql.mark_target(NAME), SWITCH, "COMMIT",
    ]  # fmt: skip


def _told(recorder: Recorder, **told: Answer) -> Recorder:
    recorder._answer = server(**told)
    return recorder


@pytest.mark.parametrize(
    "changed",
    [
        {"table": [(6, "U", "Made by Naviglio", 1, 1, 1, 1, 1, 1)]},
        {"lost": [("change data capture",)]},
        {"checks": ()},
        {"columns": [*COLUMNS, ("more", "int", 4, 10, 0, None, True, 0, 0)]},
    ],
)  # fmt: skip
def test_a_target_that_changed_meanwhile_is_merged(opened: Opened, changed: Any) -> None:
    """Another table, something that would be lost, another column or check: by the staging."""
    target, recorder, staged = filled(opened)
    recorder._answer = server(survey=[(3, 0, 0, 0)], **changed)
    assert load(target, staged) == LoadCounts(inserted=1, deleted=1, unchanged=2)
    assert not list(tail(recorder, "TRUNCATE", "ALTER TABLE [naviglio].[b_a1] SWITCH"))
    assert "DROP TABLE IF EXISTS " + BESIDE in recorder.calls


@pytest.mark.parametrize("where", ["TRUNCATE", "SWITCH"])
def test_what_readers_or_the_server_refuse_is_merged_at_the_next_try(
    opened: Opened, where: str
) -> None:
    """From the lock on, with the same staging; the session waits as long as before again."""
    target, recorder, staged = filled(opened)
    usual = server(survey=[(3, 0, 0, 0)])
    recorder._answer = lambda text: (BUSY if where == "TRUNCATE" else REFUSED) if (
        where in text
    ) else usual(text)  # fmt: skip
    with pytest.raises(ContentionError, match="merged instead"):
        load(target, staged)
    waits = [call for call in recorder.calls if call.startswith("SET LOCK_TIMEOUT")]
    assert waits[-1] == "SET LOCK_TIMEOUT 60000"
    assert "ROLLBACK" in recorder.calls
    recorder.calls.clear()
    assert load(target, staged) == LoadCounts(inserted=1, deleted=1, unchanged=2)
    assert not list(tail(recorder, "TRUNCATE", "ALTER TABLE"))


def test_a_lost_session_is_no_refusal(opened: Opened) -> None:
    """The staging went with it."""
    target, recorder, staged = filled(opened)
    recorder._answer = lambda text: GONE if "TRUNCATE" in text else server()(text)
    with pytest.raises(RetryableError, match="database 'd'"):
        load(target, staged)
    opened()
    with pytest.raises(RetryableError, match="stage again"):
        load(target, staged)


def test_what_a_constraint_refuses_beside_is_merged(opened: Opened) -> None:
    """The merge tells which row."""

    class Strict(Recorder):
        def execute(self, statement: str, *bound: Any) -> Any:
            super().execute(statement, *bound)
            if "WITH CHECK ADD" in statement:
                raise BROKEN
            return self

    target, recorder = opened()
    recorder.__class__ = Strict
    target, recorder, staged = filled(lambda **told: (target, _told(recorder, **told)))
    assert not staged.beside
    assert recorder.calls[-1] == f"DROP TABLE IF EXISTS {BESIDE}"


def test_a_row_that_does_not_fit_is_told_before_anything_is_filled(opened: Opened) -> None:
    """By the name of the target, not of the table beside."""
    with pytest.raises(DataError, match=r"made\.people', column 'name'.*key \(id=4\)"):
        filled(opened, survey=[(3, 0, 1, 0)])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, ()),
        ({"lost": [("trigger [t]",)]}, ("trigger [t]",)),
        ({"columns": [*COLUMNS, ("more", "int", 4, 10, 0, None, True, 0, 0)]},
         ("the values of column 'more', which the lake does not have",)),
        ({"columns": [*COLUMNS, ("v", "timestamp", 8, 0, 0, None, False, 0, 1)]},
         ("column 'v', which the server computes",)),
        ({"table": [(5, "U", "", 1, 1, 1, 1, 1, 0)]}, ("the right to empty it (ALTER on it)",)),
        ({"table": ()}, ()),
    ],
)  # fmt: skip
def test_what_keeps_a_target_from_being_swapped(
    opened: Opened, told: dict[str, Answer], said: tuple[str, ...]
) -> None:
    """By name."""
    assert opened(**told)[0].keeps(NAME, PEOPLE) == said


def test_rows_are_the_servers_estimate(opened: Opened) -> None:
    """None is no table."""
    assert opened()[0].rows_of(NAME) == 900
    assert opened(size=[(None,)])[0].rows_of(NAME) is None


def test_stagings_of_the_dead_are_swept_with_what_stands_beside(opened: Opened) -> None:
    """Both are the attempt's."""
    target, recorder = opened(stagings=[("s_dead",), ("b_dead",), ("s_a1",)])
    target.close()
    assert {*tail(recorder, "DROP")} == {
        "DROP TABLE IF EXISTS [naviglio].[s_dead]", "DROP TABLE IF EXISTS [naviglio].[b_dead]",
        "DROP TABLE IF EXISTS [naviglio].[s_a1]",
    }  # fmt: skip
    assert "N'b_'" in staging.STAGINGS


# --- indexes that are off meanwhile ---------------------------------------------------------------


def test_indexes_are_turned_off_and_built_again() -> None:
    """With the compression that one which is off forgets; sqlglot reads no ALTER INDEX."""
    one = indexes.Free("by ]a", "PAGE")
    assert indexes.disable(NAME, one) == "ALTER INDEX [by ]]a] ON [made].[people] DISABLE"
    assert indexes.rebuild(NAME, one) == (
        "ALTER INDEX [by ]]a] ON [made].[people] REBUILD WITH (DATA_COMPRESSION = PAGE)"
    )
    parsed(indexes.FREE)
    assert "i.is_unique = 0" in indexes.FREE
    assert "i.type = 2" in indexes.FREE


def test_a_merge_that_is_told_to_rebuilds(opened: Opened) -> None:
    """All within the one transaction: nobody sees an index that is off."""
    target, recorder = opened(free=[("i", "NONE"), ("j", "ROW")])
    assert isinstance(target, Rebuilding)
    assert target.rebuildable(NAME) == 2
    recorder.calls.clear()
    staged = Staging(
        name="[naviglio].[s_a1]", attempt="a1", rows=3, whole=False, has_beyond=False, rebuild=True
    )
    load(target, staged)
    words = ("AUTOCOMMIT OFF", "SET LOCK_TIMEOUT 2000", "ALTER INDEX [i] ON [made].[people] D",
             "ALTER INDEX [j] ON [made].[people] D", "SET LOCK_TIMEOUT 60000",
             "SET NOCOUNT ON;\nDECLARE", "ALTER INDEX [i] ON [made].[people] R",
             "ALTER INDEX [j] ON [made].[people] R", "COMMIT")  # fmt: skip
    assert list(recorder.said(*words)) == list(words)

    recorder.calls.clear()
    load(target, replace(staged, rebuild=False))
    assert not list(tail(recorder, "ALTER INDEX"))


def test_indexes_that_readers_hold_stay_as_they_are(opened: Opened) -> None:
    """The next try, with the same staging, leaves them alone."""
    target, recorder = opened(free=[("i", "NONE")])
    usual = recorder._answer
    recorder._answer = lambda text: BUSY if "DISABLE" in text else usual(text)
    staged = Staging(
        name="[naviglio].[s_a1]", attempt="a1", rows=3, whole=False, has_beyond=False, rebuild=True
    )
    with pytest.raises(ContentionError, match="merged instead"):
        load(target, staged)
    recorder.calls.clear()
    assert load(target, staged).inserted == 1
    assert not list(tail(recorder, "ALTER INDEX"))


def test_an_index_that_can_not_be_altered_is_not_counted(opened: Opened) -> None:
    """Nor one of a table that isn't there."""
    powerless: Answer = [(5, "U", "", 1, 1, 1, 1, 1, 0)]
    assert opened(free=[("i", "NONE")], table=powerless)[0].rebuildable(NAME) == 0
    assert opened(free=[("i", "NONE")], table=())[0].rebuildable(NAME) == 0
