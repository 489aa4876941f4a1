"""Which row a constraint refused: the queries, and the message."""

from __future__ import annotations

from typing import cast

import mssql_python
import pytest
from mssql_python import Connection

from naviglio.adapters.mssql import blame
from naviglio.adapters.mssql.merge import staged
from naviglio.model import TableName
from tests.contract.target import PEOPLE
from tests.unit.adapters.mssql.recorder import Answer, Recorder
from tests.unit.adapters.mssql.tsql import merge, parsed

JOB = merge(PEOPLE)
ROWS = f"SELECT TOP (1) CAST(s.[id] AS nvarchar(max)) FROM ({staged(JOB, alive=True)}) AS s WHERE "
CHECKED = mssql_python.IntegrityError(
    "Integrity constraint violation",
    'The MERGE statement conflicted with the CHECK constraint "ck". The conflict occurred in '
    'database "d", table "made.people", column \'amount\'.',
)


def test_the_queries_are_tsql() -> None:
    """Each finds one living staged row, in the target's types."""
    parent = TableName(schema="made", table="par]ents")
    queries = {
        blame.where_null(JOB, "name"): "s.[name] IS NULL",
        blame.where_unchecked(JOB, "([amount]<(100))"): "NOT (([amount]<(100)))",
        blame.where_orphan(JOB, parent, [("id", "key")]): (
            "s.[id] IS NOT NULL AND NOT EXISTS (SELECT 1 FROM [made].[par]]ents] AS p"
            " WHERE p.[key] = s.[id])"
        ),
    }
    for query, condition in queries.items():
        assert query == ROWS + condition
        parsed(query)
    taken = blame.where_taken(JOB, ["name"])
    assert taken.count("NOT (o.[id] = s.[id])") == 2  # neither staged nor stored, but another row
    for query in (taken, blame.CHECK, blame.UNIQUE, blame.FOREIGN):
        parsed(query)


def test_the_key_is_told() -> None:
    """By the server's own definition of the constraint."""

    def answer(text: str) -> Answer:
        if text == blame.CHECK:
            return [("([amount]<(100))",)]
        return [("40",)] if text.startswith("SELECT TOP") else ()

    recorder = Recorder(answer)
    error = blame.blame(cast("Connection", recorder), JOB, CHECKED)
    assert str(error).startswith(
        "target 'made.people': a constraint refuses the row: 'ck' (error 547); key (id=40). "
        "Nothing was loaded."
    )
    assert recorder.bound[0] == ("[made].[people]", "ck")


@pytest.mark.parametrize("lost", [True, False])
def test_what_is_not_found_is_still_told(*, lost: bool) -> None:
    """Constraint and number, also when the server is away by now."""
    away = mssql_python.OperationalError("Communication link failure", "")
    recorder = Recorder(lambda _: away if lost else ())
    error = blame.blame(cast("Connection", recorder), JOB, CHECKED)
    assert "'ck' (error 547). Nothing was loaded." in str(error)


def test_keys_in_messages() -> None:
    """Two that differ are both named, one only once."""
    assert blame.told(JOB, ("7",), ("7",)) == "; key (id=7)"
    assert blame.told(JOB, ("a",), ("A",)) == "; key (id=a) and (id=A)"
    assert blame.told(JOB, ()) == ""
