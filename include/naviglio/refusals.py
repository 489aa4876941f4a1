"""What every target refuses, told in the same words; each returns the error to raise."""

from __future__ import annotations

from collections.abc import Sequence

from naviglio.errors import ConfigError, DataError, RetryableError, TargetError
from naviglio.model import TableName

MADE_BY = "Made by Naviglio"  # begins what a table that a load created says of itself


def not_ours(target: TableName) -> ConfigError:
    """A table is there that no load has made."""
    return ConfigError(
        f"target {str(target)!r} is a table that Naviglio did not make. Set `adopt: true` to take "
        "it over, rows and all, or choose another `target`."
    )


def gone(target: TableName, delete: str) -> ConfigError:
    """The ledger knows a table that is no longer there; `delete` is the statement that forgets."""
    return ConfigError(
        f"target {str(target)!r} is in the ledger, but the table is gone. To load it again whole, "
        f"delete its row: {delete}"
    )


def other_name(target: TableName, pipeline: str, spelled: str) -> ConfigError:
    """A table is loaded under another spelling: the ledger tells names by bytes."""
    return ConfigError(
        f"target {str(target)!r} is the table that pipeline {pipeline!r} loads as {spelled!r}. "
        "Write it in the same way, or choose another `target`."
    )


def misfit(target: TableName, problems: Sequence[str]) -> ConfigError:
    """A table can't take the rows; all that keeps it from it, each with what to do."""
    return ConfigError(f"target {str(target)!r} can't take the rows: {'; '.join(problems)}.")


def computed(column: str) -> str:
    """Return the problem of a target's column that no row may set."""
    return f"its column {column!r} is computed. Make it an ordinary one"


def narrower(column: str, spelled: str, wanted: str) -> str:
    """Return the problem of a target's column that can't hold all values."""
    return f"its column {column!r} is {spelled}, narrower than {wanted}. Alter its type"


def required(column: str) -> str:
    """Return the problem of a target's column that rows don't have and that needs a value."""
    return (
        f"its column {column!r} is NOT NULL without a default and no column of the source. Give it "
        "a default"
    )


def not_made(target: TableName) -> TargetError:
    """A table was created, and the catalogue doesn't tell of it."""
    return TargetError(f"target {str(target)!r} was created and is not in the catalogue.")


def stale(staging: str) -> RetryableError:
    """A staging went with its connection."""
    return RetryableError(
        f"staging {staging} was made over a connection that is gone; stage again."
    )


def short(staging: str) -> RetryableError:
    """A staging holds fewer rows than were written into it."""
    return RetryableError(f"staging {staging} has lost rows; stage again.")


def unfit(target: TableName, column: str, why: str, told: str, rows: int) -> DataError:
    """A column can't hold a value; `told` names the key of one of the rows."""
    return DataError(
        f"target {str(target)!r}, column {column!r}: a value {why}{told}; rows like it: {rows}. "
        "Nothing was loaded. Correct the row at its source, or the target's column."
    )


def refused(target: str, column: str | None, said: str, told: str) -> DataError:
    """The server refused a row; `told` names its key where that was found."""
    where = f", column {column!r}" if column else ""
    return DataError(
        f"target {target!r}{where}: {said}{told}. Nothing was loaded. Correct the row at its "
        "source, or the target's column or constraint."
    )


def keyed(names: Sequence[str], *keys: Sequence[object]) -> str:
    """Return keys for a message: `; key (id=7)`, each once; nothing for an empty one."""
    texts = [
        "(" + ", ".join(f"{n}={v}" for n, v in zip(names, key, strict=True)) + ")"
        for key in keys
        if key
    ]
    return "; key " + " and ".join(dict.fromkeys(texts)) if texts else ""
