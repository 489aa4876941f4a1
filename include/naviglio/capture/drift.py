"""Schema drift: what changed between two logical schemas, and whether it evolves by itself."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from naviglio.capture.reading import Reading
from naviglio.conditions import Both, IsNull, Not, Since
from naviglio.model import Column, TableSchema


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What a schema gained, and what else changed (which only a person can decide).

    `returned`: added columns that the lake still has from before. Only a whole reading can take
    their place: rows may hold there what their source no longer does, or in another type.
    """

    added: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All changes as text."""
        return (*(f"column {name!r} added" for name in self.added), *self.other)


def drift(before: TableSchema, now: TableSchema) -> Drift:
    """Compare two schemas of a table."""
    old = {column.name: column for column in before.columns}
    new = {column.name: column for column in now.columns}
    other = [f"column {name!r} removed" for name in old if name not in new]
    other += [
        f"column {name!r} was {old[name].source_type}, is {new[name].source_type}"
        for name in old
        if name in new and not _same_type(old[name], new[name])
    ]
    if before.key != now.key:
        other.append(f"the key was ({', '.join(before.key)}), is ({', '.join(now.key)})")
    added = tuple(name for name in new if name not in old)
    return Drift(added=added, other=tuple(other))


def returned(
    kept: TableSchema, now: TableSchema, added: tuple[str, ...], removed: Collection[str]
) -> tuple[str, ...]:
    """Return the added columns that a lake table has from before they were removed.

    One that nobody removed, a run of partitions has brought to its own rows.
    """
    there = {column.name.lower(): column for column in kept.columns}
    new = [now.column(name) for name in added if name.lower() in there]
    return tuple(
        column.name
        for column in new
        if column.name in removed
        or (old := there[column.name.lower()]).name != column.name
        or old.carrier != column.carrier
    )


def old_rows_gained(reading: Reading, added: tuple[str, ...]) -> bool:
    """Whether rows below the stream's position hold values in added columns.

    A column added with a default changes rows without touching their modification time.
    """
    position, spec = reading.last, reading.spec
    if position is None or position.stream is None or not spec.modified:
        return False
    below = Since(column=spec.modified, low=None, high=position.stream, or_null=True)
    return any(
        reading.snapshot.count(
            reading.scan(where=Both(one=below, other=Not(condition=IsNull(column=name))))
        )
        for name in added
    )


def _same_type(old: Column, new: Column) -> bool:
    """Whether rows of both fit one lake column: lengths and nullability may change."""
    return _bare(old) == _bare(new)


def _bare(column: Column) -> Column:
    kind = re.sub(r"\(.*?\)", "", column.source_type)
    return replace(column, nullable=True, length=None, source_type=kind, collation=None)
