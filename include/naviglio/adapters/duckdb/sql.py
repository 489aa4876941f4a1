"""How DuckDB spells names and values: the one quoting function of this adapter.

DuckDB takes names that differ in the case of ASCII letters for one, quoted or not.
"""

from __future__ import annotations

import string
from collections.abc import Iterable

from naviglio.errors import ConfigError
from naviglio.model import TableName, TableSchema

DEFAULT_SCHEMA = "main"  # of a table name without one
_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def quote(identifier: str) -> str:
    """Return `identifier` as DuckDB reads it; ConfigError for what can be no name."""
    if not identifier or "\0" in identifier:
        raise ConfigError(f"{identifier!r} can't be a name in DuckDB. Choose another.")
    return '"' + identifier.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Return a text as a literal."""
    return "'" + value.replace("'", "''") + "'"


def fold(name: str) -> str:
    """Return what two names have in common that DuckDB takes for one."""
    return name.translate(_FOLD)


def table(catalogue: str, name: TableName) -> str:
    """Return a table's quoted name, with its catalogue: a schema may be called like the file."""
    schema = name.schema or DEFAULT_SCHEMA
    return f"{quote(catalogue)}.{quote(schema)}.{quote(name.table)}"


def columns(names: Iterable[str]) -> str:
    """Return quoted names, separated by commas."""
    return ", ".join(quote(name) for name in names)


ROW_NUMBER = "rowid"


def refuse_alike(schema: TableSchema) -> None:
    """Refuse two columns that are one to DuckDB, and one that hides its own number of a row."""
    known: dict[str, str] = {}
    for name in schema.names:
        if fold(name) == ROW_NUMBER:
            raise ConfigError(
                f"column {name!r} would hide DuckDB's own number of a row, by which rows are "
                "updated. Rename it at its source, or in a view."
            )
        other = known.setdefault(fold(name), name)
        if other != name:
            raise ConfigError(
                f"columns {other!r} and {name!r} are one to DuckDB, which folds the case of names. "
                "Rename one of them at its source, or in a view."
            )
