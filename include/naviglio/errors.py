"""What can go wrong, grouped by who acts next.

Every message says where, what, the known values and the next step, and holds no secret and no row
values beyond keys.
"""

from __future__ import annotations


class NaviglioError(Exception):
    """The root of all errors that a user may see."""

    exit_code = 1


class RetryableError(NaviglioError):
    """Nobody needs to act: trying again is enough (a lost race, a server that is away)."""

    exit_code = 75


class LostRaceError(RetryableError):
    """Another worker committed first; nothing of this attempt was made visible."""


class ContentionError(RetryableError):
    """The server ended a transaction in favour of another (a deadlock, a lock's timeout).

    Nothing of it stays, and what was staged before it may be merged again.
    """


class SwapRefusedError(RetryableError):
    """Rows can't take a target's place as they come; a merge of the same rows goes another way."""


class UnevenError(RetryableError):
    """Changes do not bring a target to as many rows as the lake has; all rows will tell why."""


class ConfigError(NaviglioError):
    """The configuration must be edited: YAML, a connection, a grant."""

    exit_code = 2


class SourceError(NaviglioError):
    """The owner of the source system acts."""

    exit_code = 3


class TargetError(NaviglioError):
    """The owner of the target system acts."""

    exit_code = 4


class StorageError(NaviglioError):
    """The owner of the storage below landing and lake acts (a full disk, a missing right)."""

    exit_code = 5


class DataError(NaviglioError):
    """A person decides about rows."""

    exit_code = 6


class QuestionError(DataError):
    """A recorded question holds the group until `naviglio accept`, or the source, answers it."""

    exit_code = 7


class IdentityError(DataError):
    """Landing, lake, ledger or source is not the one that the others were made with."""

    exit_code = 8
