"""From what a catalogue says of a table to its logical schema: the same for every adapter."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from naviglio.errors import ConfigError
from naviglio.known import known_all
from naviglio.model import Column, TableName, TableSchema, reserved

RESPELLED = (  # the next step where two rows of the lake have one key in a target
    "Correct the rows at their source; where one of the keys is gone there, the next sweep of "
    "deletes takes it away, or `naviglio resnapshot` does."
)


@dataclass(frozen=True, kw_only=True)
class Described:
    """A column as the catalogue has it."""

    name: str
    spelled: str  # its type
    column: Column | None  # None: no carrier holds all values of the type
    fits_key: bool = True  # values of the type can be compared and listed


def schema_of(
    table: TableName,
    found: Sequence[Described],
    key: Sequence[str],
    *,
    primary: Sequence[str],
    unique: Iterable[Collection[str]],
) -> TableSchema:
    """Return the schema with its key: the declared one, or else the primary key.

    `unique` are the columns of each index that keeps all rows apart now. Raises ConfigError for
    names or types that can't be carried, and for a key that is missing or can't be one: before
    anything has landed, since no lake table could pass a batch that it can't hold.
    """
    if refused := [f"{c.name!r} of type {c.spelled}" for c in found if c.column is None]:
        raise ConfigError(
            f"{table}: no faithful carrier for {', '.join(refused)}. Read the table through a view "
            "that leaves these columns out or casts them to text."
        )
    names = [column.name for column in found]
    if taken := reserved(names):
        raise ConfigError(
            f"{table}: the names {', '.join(map(repr, taken))} are reserved, in any case of "
            "letters. Read the table through a view that renames them."
        )
    refuse_case(names)
    chosen = tuple(key) or tuple(primary)
    if not chosen:
        raise ConfigError(
            f"{table} has no primary key. Declare `key`; its columns are {', '.join(names)}."
        )
    if absent := [column for column in chosen if column not in names]:
        raise ConfigError(
            f"{table} has no column {absent[0]!r}; {known_all(names, absent[0])} Correct `key`."
        )
    of_key = [column for column in found if column.name in chosen]
    if unfit := [f"{c.name!r} ({c.spelled})" for c in of_key if not c.fits_key]:
        raise ConfigError(f"{table}: {', '.join(unfit)} can't stand in a key. Choose another.")
    vouched = any(set(columns) <= set(chosen) for columns in unique)
    filled = all(c.column and not c.column.nullable for c in of_key)
    columns = tuple(c.column for c in found if c.column)
    return TableSchema(columns=columns, key=chosen, key_is_unique=vouched and filled)


def no_table(where: str, table: TableName, others: Iterable[str]) -> ConfigError:
    """Return the error of a table that isn't there; `others` are its schema's."""
    return ConfigError(
        f"{where} has no table {str(table)!r}. Of its schema's tables and views, "
        f"{known_all(others, table.table)} Correct it."
    )


def refuse_case(names: Iterable[str]) -> None:
    """Refuse what Delta can't hold: its columns are told apart without regard to case."""
    for one, other in pairwise(sorted(names, key=str.lower)):
        if one.lower() == other.lower():
            raise ConfigError(
                f"columns {one!r} and {other!r} differ only in case, which a lake table can't "
                "hold. Give the pipeline a view of the source that renames one."
            )
