"""How PostgreSQL spells names and values: the one quoting function of this adapter."""

from __future__ import annotations

from collections.abc import Iterable

from naviglio.model import TableName

DEFAULT_SCHEMA = "public"  # of a table name without one


def quote(identifier: str) -> str:
    """Return `identifier` as PostgreSQL reads it, whatever it holds; ValueError for a NUL."""
    if "\0" in identifier:
        raise ValueError("A NUL can't stand in an identifier.")
    return '"' + identifier.replace('"', '""') + '"'


def literal(value: str | int | bytes | None) -> str:
    """Return `value` as a literal; text is of unknown type until a cast names one.

    ValueError for a NUL, which PostgreSQL's text can't hold.
    """
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if value >= 0 else f"({value})"
        case bytes():
            return f"'\\x{value.hex()}'::bytea"
        case _:
            return _text(value)


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("A NUL can't stand in a text.")
    body = value.replace("'", "''")
    # With a backslash only the E form means the same under either standard_conforming_strings.
    return "E'" + body.replace("\\", "\\\\") + "'" if "\\" in body else f"'{body}'"


def array(values: Iterable[str | None], of: str) -> str:
    """Return an array literal of type `of[]` from the text forms of its values."""
    inner = ",".join("NULL" if value is None else _element(value) for value in values)
    return literal("{" + inner + "}") + f"::{of}[]"


def _element(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def table(name: TableName) -> str:
    """Return a table's quoted, qualified name."""
    return f"{quote(name.schema or DEFAULT_SCHEMA)}.{quote(name.table)}"


def columns(names: Iterable[str]) -> str:
    """Return quoted names, separated by commas."""
    return ", ".join(quote(name) for name in names)
