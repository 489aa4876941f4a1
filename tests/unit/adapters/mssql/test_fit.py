"""Whether a table of the target can take the rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from mssql_python import Connection

from naviglio.adapters.mssql import fit
from naviglio.adapters.mssql.fit import Found, FoundColumn, find, may_create, misfits
from naviglio.model import TableName
from tests.contract.target import PEOPLE
from tests.unit.adapters.mssql.recorder import Answer, Recorder
from tests.unit.adapters.mssql.tsql import found, parsed

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "ALTER")


def fitting(**other: Any) -> Found:
    """Return a table that takes PEOPLE."""
    said: dict[str, Any] = {
        "id": 5, "kind": "U", "comment": "", "lacking_rights": (), "folds": True,
        "unique": (frozenset({"id"}),), "columns": tuple(map(found, PEOPLE.columns)),
    }  # fmt: skip
    return Found(**{**said, **other})


def changed(place: int, **other: Any) -> tuple[FoundColumn, ...]:
    """Return the columns of PEOPLE with one changed."""
    columns = list(map(found, PEOPLE.columns))
    columns[place] = replace(columns[place], **other)
    return tuple(columns)


@pytest.mark.parametrize("query", [fit.TABLE, fit.COLUMNS, fit.UNIQUE, fit.MAY_CREATE])
def test_the_catalogue_is_asked_in_tsql(query: str) -> None:
    """All values are bound."""
    parsed(query)
    assert "?" in query


def test_a_table_that_fits() -> None:
    """Also with names in other case, where the database ignores case."""
    assert misfits(fitting(), PEOPLE) == []
    shouting = tuple(replace(c, name=c.name.upper()) for c in fitting().columns)
    other = fitting(columns=shouting, unique=(frozenset({"ID"}),))
    assert misfits(other, PEOPLE) == []
    assert other.lacks(PEOPLE) == []
    assert len(replace(other, folds=False).lacks(PEOPLE)) == len(PEOPLE.columns)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"kind": "V"}, "it is a view"),
        ({"lacking_rights": ("UPDATE",)}, "lacks UPDATE on it"),
        ({"unique": ()}, "no unique index on exactly its key (id)"),
        ({"unique": (frozenset({"id", "name"}),)}, "no unique index"),
        ({"columns": changed(2, spelled="decimal(9,1)")},
         "'amount' is decimal(9,1), narrower than decimal(9,2)"),
        ({"columns": changed(1, computed=True)}, "'name' is computed"),
        ({"columns": (*changed(0), found(replace(PEOPLE.columns[0], name="more"), required=True))},
         "'more' is NOT NULL without a default"),
    ],
)  # fmt: skip
def test_what_does_not_fit(other: dict[str, Any], said: str) -> None:
    """Each problem names the column and what to do."""
    (problem,) = misfits(fitting(**other), PEOPLE)
    assert said in problem


def test_a_right_is_needed_where_it_is_used() -> None:
    """ALTER only to add columns."""
    assert misfits(fitting(lacking_rights=("ALTER",)), PEOPLE) == []
    less = fitting(lacking_rights=("ALTER",), columns=changed(0)[:2])
    assert "lacks ALTER" in misfits(less, PEOPLE)[0]


def test_the_catalogue_is_read_as_it_is() -> None:
    """Types are spelled like the project's own; a unique index is the set of its columns."""

    def answer(text: str) -> Answer:
        if text == fit.TABLE:
            return [(5, "U", "Made by Naviglio", 1, 1, 1, 0, 1, None)]
        if text == fit.UNIQUE:
            return [(1, "id"), (2, "a"), (2, "b")]
        return [("id", "bigint", 8, 19, 0, None, False, 1, 0),
                ("nm", "nvarchar", 18, 0, 0, "French_CI_AS", True, 0, 0)]  # fmt: skip

    recorder = Recorder(answer)
    table = find(cast("Connection", recorder), TableName(schema="", table="t"))
    assert table is not None
    assert table.lacking_rights == ("UPDATE", "ALTER")
    assert table.unique == (frozenset({"id"}), frozenset({"a", "b"}))
    assert [c.spelled for c in table.columns] == ["bigint", "nvarchar(9)"]
    assert recorder.bound[0] == ("dbo", "t")
    assert find(cast("Connection", Recorder()), TableName(schema="", table="t")) is None


@pytest.mark.parametrize(("row", "may"), [((1, 1), True), ((1, 0), False), ((None, 1), False)])
def test_both_rights_are_needed_to_create(row: tuple[Any, ...], *, may: bool) -> None:
    """One on the schema, one on the database."""
    assert may_create(cast("Connection", Recorder(lambda _: [row])), "naviglio") is may
