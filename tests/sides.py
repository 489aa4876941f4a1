"""The databases that values are carried to, and read from again; and what arrived there."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from naviglio.adapters.mssql.carried import beside, column_of
from naviglio.adapters.mssql.fit import FoundColumn
from naviglio.adapters.mssql.snapshot import decoded
from naviglio.carriers import arrow_schema, arrow_type
from naviglio.errors import DataError
from naviglio.model import BEYOND, Column, TableName, TableSchema
from naviglio.ports import Scan, Source, Target
from tests.values import Sent, meant, spelled, travelling

ID = Column(name="id", kind="int32", carrier="int32", source_type="integer", nullable=False)
VALUE = "v"


@dataclass(frozen=True)
class Side:
    """One database, as a target and as a source."""

    target: Target
    source: Source
    schema: str

    def close(self) -> None:
        """Give back its connections."""
        self.target.close()
        self.source.close()

    def read(self, name: str) -> tuple[TableSchema, pa.Table]:
        """Read a table as a source does."""
        table = TableName(schema=self.schema, table=name)
        schema = self.source.describe(table, ("id",))
        with self.source.snapshot() as snapshot:
            found = pa.Table.from_batches(
                snapshot.read(Scan(table=table, schema=schema)), arrow_schema(schema)
            )
        return schema, found.sort_by("id")

    def load(self, name: str, schema: TableSchema, rows: pa.Table) -> None:
        """Load rows as they come from the lake."""
        attempt = uuid.uuid4().hex[:16]
        staging = self.target.stage(attempt, schema, iter(rows.to_batches()), whole=True)
        with self.target.begin() as transaction:
            table = TableName(schema=self.schema, table=name)
            transaction.lock(table)
            transaction.merge(table, schema, staging)


@dataclass(frozen=True)
class Carried:
    """What became of the values of one column: how it was read again, and what was refused."""

    back: Column
    schema: TableSchema
    rows: pa.Table  # as they were read again
    refused: Mapping[int, str]  # by id: why


def carry(to: Side, name: str, schema: TableSchema, rows: pa.Table) -> Carried:
    """Load all rows; those that are refused, one by one, by their column and their key."""
    refused: dict[int, str] = {}
    try:
        to.load(name, schema, rows)
    except DataError:
        for n in range(rows.num_rows):
            row = rows.slice(n, 1)
            key = row["id"][0].as_py()
            try:
                to.load(f"{name} {key}", schema, row)
            except DataError as error:
                refused[key] = why(error)
        kept = [n for n, key in enumerate(rows["id"].to_pylist()) if key not in refused]
        rows = rows.take(kept)
        to.load(name, schema, rows)
    back, found = to.read(name)
    return Carried(back=back.column(VALUE), schema=back, rows=found, refused=refused)


def there_and_back(
    there: Side,
    home: Side,
    name: str,
    schema: TableSchema,
    rows: pa.Table,
    sent: Mapping[int, str | None],
) -> Carried:
    """Carry rows, and what arrived on to where they came from; what they mean stays as it was sent.

    Refused is only what a target says that it can't hold.
    """
    column = schema.column(VALUE)
    arrived = carry(there, name, schema, rows)
    kept = {key: meaning for key, meaning in sent.items() if key not in arrived.refused}
    assert meanings(column, arrived.rows, arrived.back) == kept, (column, there.schema)
    again = carry(home, f"{name} back", arrived.schema, arrived.rows)
    kept = {key: meaning for key, meaning in kept.items() if key not in again.refused}
    assert meanings(column, again.rows, again.back) == kept, (column, "back")
    return arrived


def why(error: DataError) -> str:
    """Return the reason that an error gives; it names the column, the key, and no value."""
    text = str(error)
    assert f"column {VALUE!r}" in text, text
    reason = re.search(r"a value (.*?); key|: (NaN or infinity.*?); key", text)
    return (reason[1] or reason[2]) if reason else re.sub(r".*column 'v'[^:]*: |; key.*", "", text)


def meanings(column: Column, rows: pa.Table, back: Column | None = None) -> dict[int, str | None]:
    """Return by id what the values mean, those read `back` as what the first ones were."""
    found: Sequence[Mapping[str, Any]] = rows.to_pylist()
    return {row["id"]: meant(column.kind, spelled(back or column, row)) for row in found}


def delivered(kind: str, sent: list[Sent]) -> tuple[TableSchema, pa.Table]:
    """Return values of a type of SQL Server, and NULL, decoded from what its driver delivers."""
    column = column_of(
        FoundColumn(
            name="v", spelled=kind, collation=None, nullable=True, required=False, computed=False
        )
    )
    assert column is not None
    schema = TableSchema(columns=(ID, column), key=("id",))
    form = travelling(column, arrow_type(column.carrier))
    batch = {
        "id": pa.array(range(len(sent) + 1), pa.int32()),
        "v": pa.array([*(one.travels for one in sent), None], form),
        **({"b": pa.array([*(one.beside for one in sent), None])} if beside(schema) else {}),
    }
    scan = Scan(table=TableName(schema="s", table="t"), schema=schema)
    return schema, pa.Table.from_batches([decoded(pa.RecordBatch.from_pydict(batch), scan)])


def without_offsets(rows: pa.Table) -> pa.Table:
    """Leave the moments of a `datetimeoffset`: all that other vendors have a type for."""
    if not pa.types.is_timestamp(rows.schema.field("v").type) or rows["v"].type.tz is None:
        return rows
    return rows.set_column(2, BEYOND, pa.nulls(rows.num_rows, pa.string()))
