"""What is made again for a swap, and what keeps a table from one: texts, and that they are T-SQL.

sqlglot reads neither indexes with options nor SWITCH: those are compared as text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from mssql_python import Connection

from naviglio.adapters.mssql import belongings as module
from naviglio.adapters.mssql.belongings import (
    Belongings,
    Index,
    belongings,
    create_clustered,
    create_index,
    create_like,
    create_others,
)
from tests.contract.target import AMOUNT, NAME
from tests.unit.adapters.mssql.recorder import Answer, Recorder
from tests.unit.adapters.mssql.test_fit import fitting
from tests.unit.adapters.mssql.tsql import found, parsed

HERE = "[naviglio].[b_1]"


def index(**other: Any) -> Index:
    """Return an ordinary non-clustered index."""
    said: dict[str, Any] = {
        "name": "by ]a", "type": 2, "unique": False, "constraint": "", "padded": False,
        "fill_factor": 0, "filter": "", "compression": "NONE", "keys": (("a", False),),
        "included": (),
    }  # fmt: skip
    return Index(**{**said, **other})


def like(**other: Any) -> Belongings:
    """Return a table of two columns."""
    said: dict[str, Any] = {
        "id": 5, "columns": (found(NAME, nullable=False), found(AMOUNT, collation=None)),
        "indexes": (), "checks": (), "lost": (),
    }  # fmt: skip
    return Belongings(**{**said, **other})


@pytest.mark.parametrize(
    "query", [module.INDEXES, module.INDEX_COLUMNS, module.CHECKS, module.LOST]
)
def test_the_catalogue_is_asked_in_tsql(query: str) -> None:
    """By the table's number, which is bound once."""
    parsed(query)
    assert query.count("?") == 1


@pytest.mark.parametrize(
    "what",
    ["trigger", "foreign key", "bound to its schema", "not trusted", "partitions or filegroup",
     "large values", "settings of column", "temporal", "change data capture", "change tracking",
     "replication", "full-text", "row level security", "memory-optimized", "VIEW DEFINITION"],
)  # fmt: skip
def test_what_a_swap_would_lose_is_asked_for(what: str) -> None:
    """Each by its name."""
    assert what in module.LOST


def test_columns_are_made_as_they_are() -> None:
    """Type, collation, nullability, in their order; a heap with its compression."""
    assert create_like(HERE, like()) == (
        f"CREATE TABLE {HERE} ([name] nvarchar(18) COLLATE Latin1_General_CI_AS NOT NULL,"
        " [amount] decimal(9,2) NULL)"
    )
    heap = index(name="", type=0, compression="PAGE", keys=())
    text = create_like(HERE, like(indexes=(heap,)))
    assert text.endswith(" NULL) WITH (DATA_COMPRESSION = PAGE)")
    parsed(text)
    assert create_clustered(HERE, like(indexes=(heap,))) == []
    assert list(create_others(HERE, like(indexes=(heap,)))) == []


def test_indexes_are_made_as_they_are() -> None:
    """Order, included columns, filter and options; a constraint's name is the schema's: not it."""
    key = index(type=1, unique=True, constraint="PRIMARY KEY", keys=(("a", True), ("b", False)))
    rich = index(
        unique=True, padded=True, fill_factor=90, filter="([a]>(0))", compression="ROW",
        included=("c", "d]"),
    )  # fmt: skip
    whole = like(
        indexes=(key, rich, index(constraint="UNIQUE", unique=True)), checks=("([a]>(1))",)
    )
    assert create_clustered(HERE, whole) == [
        f"ALTER TABLE {HERE} ADD PRIMARY KEY CLUSTERED ([a] DESC, [b] ASC)"
        " WITH (PAD_INDEX = OFF, DATA_COMPRESSION = NONE)"
    ]
    assert list(create_others(HERE, whole)) == [
        f"CREATE UNIQUE NONCLUSTERED INDEX [by ]]a] ON {HERE} ([a] ASC) INCLUDE ([c], [d]]])"
        " WHERE ([a]>(0)) WITH (PAD_INDEX = ON, FILLFACTOR = 90, DATA_COMPRESSION = ROW)",
        f"ALTER TABLE {HERE} ADD UNIQUE NONCLUSTERED ([a] ASC)"
        " WITH (PAD_INDEX = OFF, DATA_COMPRESSION = NONE)",
        f"ALTER TABLE {HERE} WITH CHECK ADD CHECK ([a]>(1))",
    ]
    plain = replace(key, constraint="", unique=False, name="cl")
    assert create_index(HERE, plain).startswith(f"CREATE CLUSTERED INDEX [cl] ON {HERE} (")


def test_they_are_read_from_the_catalogue() -> None:
    """Keys in order, included columns apart."""
    answers: dict[str, Answer] = {
        module.INDEXES: [
            (1, "pk", 1, True, True, False, False, 0, "", "NONE"),
            (3, "uq", 2, True, False, True, True, 80, "", "PAGE"),
        ],
        module.INDEX_COLUMNS: [
            (1, "id", False, False), (3, "a", True, False), (3, "b", False, True),
        ],
        module.CHECKS: [("([a]>(1))",)],
        module.LOST: [("replication",)],
    }  # fmt: skip
    recorder = Recorder(lambda text: answers[text])
    read = belongings(cast("Connection", recorder), fitting())
    assert {bound for bound in recorder.bound} == {(5,)}
    assert (read.id, read.checks, read.lost) == (5, ("([a]>(1))",), ("replication",))
    assert read.columns == fitting().columns
    assert read.indexes == (
        index(name="pk", type=1, unique=True, constraint="PRIMARY KEY", keys=(("id", False),)),
        index(
            name="uq", unique=True, constraint="UNIQUE", padded=True, fill_factor=80,
            compression="PAGE", keys=(("a", True),), included=("b",),
        ),
    )  # fmt: skip
