"""A connection that notes what it is asked, in order, and answers what it was told to.

It shows order and text of calls, and nothing of what a server would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import pyarrow as pa

Answer = Sequence[tuple[Any, ...]] | Exception
Row = tuple[Any, ...]


class Recorder:
    """Stands in for the driver's connection and its cursors at once."""

    timeout = 0
    description: object = ("a result",)
    rowcount = 1

    def __init__(self, answer: Callable[[str], Answer] = lambda _: ()) -> None:
        self.calls: list[str] = []
        self.bound: list[tuple[Any, ...]] = []
        self.copied: list[dict[str, Any]] = []
        self.names: list[str] = []
        self._answer = answer
        self._rows: Sequence[Row] = ()
        self._autocommit = True

    @property
    def autocommit(self) -> bool:
        """Whether every statement commits."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._autocommit = value
        self.calls.append("AUTOCOMMIT ON" if value else "AUTOCOMMIT OFF")

    def cursor(self) -> Self:
        """Be the cursor."""
        return self

    def execute(self, statement: str, *bound: Any) -> Self:
        """Note a statement; answer it, or raise what was told."""
        self.calls.append(statement)
        self.bound.append(bound[0] if bound and isinstance(bound[0], tuple) else bound)
        told = self._answer(statement)
        if isinstance(told, Exception):
            raise told
        self._rows = told
        return self

    def fetchall(self) -> Sequence[Row]:
        """Return what was told."""
        return self._rows

    def fetchone(self) -> Row | None:
        """Return the first of what was told."""
        return next(iter(self._rows), None)

    def nextset(self) -> bool:
        """Have one result."""
        return False

    def bulkcopy_arrow(self, name: str, source: pa.RecordBatchReader, **options: Any) -> None:
        """Read all batches."""
        self.calls.append(f"BULK COPY {name}")
        self.copied.append({"rows": source.read_all().num_rows, **options})
        self.names = source.schema.names

    def commit(self) -> None:
        """Note it."""
        self.calls.append("COMMIT")

    def rollback(self) -> None:
        """Note it."""
        self.calls.append("ROLLBACK")

    def close(self) -> None:
        """Close nothing: cursors are closed after each statement."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def said(self, *words: str) -> Iterator[str]:
        """Yield the first of `words` of each call that begins with one."""
        for call in self.calls:
            yield from [word for word in words if call.startswith(word)][:1]
