"""Compare two streams of rows by key, byte for byte; the local engine spills, memory is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

from naviglio.carriers import arrow_schema
from naviglio.model import ROW_HASH, TableSchema
from naviglio.storage.engine import exact, local_engine, quoted, streamed, view_latest

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NAMED = 10  # keys that a verdict names
JUDGE = "_judge"
GONE = "gone"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Rows of one class: how many, and the first keys as text."""

    count: int = 0
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Which differences do not count, by a value that rows of either side carry.

    `column` is that value's name in the batches; `in_flight` is a condition over the differences'
    columns `class` (missing, extra, changed), `expected` and `actual` (the value on either side).
    The key's columns are `_key_0`, `_key_1` ... there: whatever they are called, they meet none.
    `marked` is a condition over the columns of the expected rows: such a row says that it is gone.
    With it, an extra row that is not marked is of the class `unseen`.
    """

    column: str = ""
    in_flight: str = "false"
    marked: str = ""


class Comparison:
    """Two sides of one table, loaded one after the other."""

    def __init__(self, engine: DuckDBPyConnection, schema: TableSchema) -> None:
        self._engine = engine
        self._schema = schema
        self._key = [f"_key_{n}" for n in range(len(schema.key))]
        self.rows = 0

    def load(self, side: str, batches: Iterable[pa.RecordBatch], judge: Judge) -> None:
        """Load a side (`expected` or `actual`): its keys, a hash of each row, the judge's value."""
        schema, fitted = _fitted(batches, arrow_schema(self._schema), judge.column)
        value = quoted(judge.column) if judge.column in schema.names else "NULL"
        content = ", ".join(exact(field) for field in arrow_schema(self._schema))
        with streamed(self._engine, "incoming", fitted, schema):
            self._engine.execute(
                f"CREATE TABLE {side} AS SELECT {self._named_keys()}, "
                f"hash({content}) AS _content, {value} AS {JUDGE}, "
                f"{judge.marked or 'false'} AS _gone FROM incoming"
            )
        if judge.marked:
            self._engine.execute(f"CREATE TABLE {GONE} AS FROM {side} WHERE _gone")
            self._engine.execute(f"DELETE FROM {side} WHERE _gone")
        [(self.rows,)] = self._engine.execute(f"SELECT count(*) FROM {side}").fetchall()

    def differ(self, judge: Judge) -> None:
        """Find the differences and which of them are in flight."""
        keys = ", ".join(self._key)
        if not judge.marked:
            self._engine.execute(f"CREATE TABLE {GONE} AS FROM expected WHERE false")
        extra = (
            "CASE WHEN g._content IS NULL THEN 'unseen' ELSE 'extra' END"
            if judge.marked
            else "'extra'"
        )
        self._engine.execute(
            f"CREATE TABLE differences AS SELECT {keys}, CASE "
            f"WHEN a._content IS NULL THEN 'missing' WHEN e._content IS NULL THEN {extra} "
            f"ELSE 'changed' END AS class, coalesce(e.{JUDGE}, g.{JUDGE}) AS expected, "
            f"a.{JUDGE} AS actual FROM expected e FULL JOIN actual a USING ({keys}) "
            f"LEFT JOIN {GONE} g USING ({keys}) "
            "WHERE e._content IS DISTINCT FROM a._content"
        )
        self._engine.execute(
            "CREATE TABLE judged AS SELECT *, "
            f"CASE WHEN {judge.in_flight} THEN 'in flight' ELSE class END AS verdict "
            "FROM differences"
        )

    def found(self, verdict: str) -> Found:
        """Return the differences of one verdict."""
        keys = ", ".join(self._key)
        [(count,)] = self._engine.execute(
            "SELECT count(*) FROM judged WHERE verdict = ?", [verdict]
        ).fetchall()
        named = self._engine.execute(
            f"SELECT {keys} FROM judged WHERE verdict = ? ORDER BY {keys} LIMIT {_NAMED}", [verdict]
        ).fetchall()
        texts = tuple(", ".join(str(value) for value in key) for key in named)
        return Found(count=count, keys=texts)

    def landed(self, files: list[str]) -> str:
        """Return the condition that a difference's key stands in these landed files."""
        if not files:
            return "false"
        self._engine.read_parquet(files, union_by_name=True).create_view("landed")
        return self._stands()

    def hashed(self, files: list[str], later: list[str], schema: pa.Schema) -> tuple[str, str]:
        """Return the conditions that a difference's key is known, and known by the expected hash.

        By hash files of `schema`, and the changes since.
        """
        view_latest(self._engine, "landed", files, later, schema, self._schema.key)
        return self._stands(), self._stands(alike=True)

    def _stands(self, *, alike: bool = False) -> str:
        found = self._named_keys()
        same = [f"l.{key} = differences.{key}" for key in self._key]
        if alike:
            found, same = f"{found}, {ROW_HASH}", [*same, f"l.{ROW_HASH} = differences.expected"]
        return f"EXISTS (SELECT 1 FROM (SELECT {found} FROM landed) l WHERE {' AND '.join(same)})"

    def _named_keys(self) -> str:
        named = zip(self._schema.key, self._key, strict=True)
        return ", ".join(f"{quoted(name)} AS {key}" for name, key in named)


@contextmanager
def comparison(schema: TableSchema) -> Iterator[Comparison]:
    """Open a comparison; what it spilled is gone when it closes."""
    with local_engine(on_disk=True) as engine:
        yield Comparison(engine, schema)


def _fitted(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, extra: str
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return batches in the columns of `schema` and `extra`, which some sides have, and these."""
    stream = iter(batches)
    first = next(stream, None)
    wanted = schema
    if first is not None and extra in first.schema.names and extra not in schema.names:
        wanted = schema.append(first.schema.field(extra))
    whole = chain([first] if first is not None else [], stream)
    return wanted, (batch.select(wanted.names).cast(wanted) for batch in whole)
