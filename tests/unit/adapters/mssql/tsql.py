"""Reading statements as T-SQL: what sqlglot takes as a mere command counts as not understood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlglot
from sqlglot import exp

from naviglio.adapters.mssql.ddl import target_type
from naviglio.adapters.mssql.fit import FoundColumn
from naviglio.adapters.mssql.merge import Merge
from naviglio.model import Column, TableName, TableSchema

COLLATION = "Latin1_General_CI_AS"


def parsed(statement: str) -> list[exp.Expr]:
    """Return the statements of a batch; an AssertionError for one that isn't understood."""
    trees = [tree for tree in sqlglot.parse(statement, read="tsql") if tree is not None]
    assert trees
    assert not [node for tree in trees for node in tree.walk() if isinstance(node, exp.Command)]
    return trees


def skeleton(statement: str) -> list[str]:
    """Return the shape of a batch: its nodes, without what its names and literals say."""
    return [type(node).__name__ for tree in parsed(statement) for node in tree.walk()]


def identifiers(statement: str) -> Iterator[str]:
    """Yield all names of a batch."""
    for tree in parsed(statement):
        yield from (str(node.this) for node in tree.find_all(exp.Identifier))


def found(column: Column, **other: Any) -> FoundColumn:
    """Return the target's column that a load would have made."""
    said: Mapping[str, Any] = {
        "name": column.name, "spelled": target_type(column), "collation": COLLATION,
        "nullable": column.nullable, "required": False, "computed": False,
    }  # fmt: skip
    return FoundColumn(**{**said, **other})


def merge(schema: TableSchema, **other: Any) -> Merge:
    """Return a merge of a schema into a table as a load would have made it."""
    said: Mapping[str, Any] = {
        "target": TableName(schema="made", table="people"), "schema": schema,
        "staging": "[naviglio].[s_1]", "found": {c.name: found(c) for c in schema.columns},
        "whole": False, "has_beyond": False,
    }  # fmt: skip
    return Merge(**{**said, **other})
