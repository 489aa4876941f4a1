"""The logical schema in the metadata of a Delta table's fields.

Field metadata is the one place that a creation, an added column and an overwrite each write in the
same commit as the Delta schema, and that checkpoints and log cleaning keep; table properties need
a commit of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec
import pyarrow as pa
from deltalake import DeltaTable, Field
from deltalake import Schema as DeltaSchema

from naviglio.carriers import arrow_type
from naviglio.described import refuse_case
from naviglio.errors import DataError
from naviglio.model import BEYOND, Column, TableSchema

_LABEL = "naviglio.column"


@dataclass(frozen=True, kw_only=True)
class _Label:
    """What a field's metadata says of its column."""

    column: Column
    key: int | None  # its place in the key
    key_is_unique: bool = True


def arrow_fields(schema: TableSchema) -> pa.Schema:
    """Return the Arrow schema of the lake table, labelled with the logical schema."""
    refuse_case(schema.names)
    fields = [
        pa.field(c.name, arrow_type(c.carrier), metadata={_LABEL: _label(schema, c)})
        for c in schema.columns
    ]
    return pa.schema([*fields, pa.field(BEYOND, pa.string())])


def logical_schema(table: DeltaTable) -> TableSchema:
    """Return the logical schema that a lake table carries; no columns before its first part.

    Columns that others added are left out.
    """
    labels = [
        msgspec.json.decode(field.metadata[_LABEL], type=_Label)
        for field in table.schema().fields
        if _LABEL in field.metadata
    ]
    keyed = sorted((label.key, label.column.name) for label in labels if label.key is not None)
    if labels and not keyed:
        raise DataError(
            f"lake table {table.table_uri} has no key in the metadata of its fields: something "
            "else rewrote its schema. Run `naviglio rebuild` for the table."
        )
    return TableSchema(
        columns=tuple(label.column for label in labels),
        key=tuple(name for _, name in keyed),
        key_is_unique=all(label.key_is_unique for label in labels),
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """What must happen to a lake table's schema before rows of `schema` fit."""

    replace: bool  # a carrier, a name's case or the key is another: only an overwrite will do
    add: tuple[Field, ...] = ()
    relabel: tuple[tuple[str, dict[str, str]], ...] = ()

    @property
    def needed(self) -> bool:
        """Whether anything must be added or relabelled."""
        return bool(self.add or self.relabel)


def step_between(table: DeltaTable, schema: TableSchema) -> Step:
    """Compare a lake table's schema with the schema of rows to come."""
    have = {field.name: field for field in table.schema().fields}
    known = logical_schema(table)
    fields = DeltaSchema.from_arrow(arrow_fields(schema)).fields
    spelled = {name.lower(): name for name in have}
    if (known.columns and known.key != schema.key) or any(
        f.name != spelled.get(f.name.lower(), f.name) or _differs(have.get(f.name), f)
        for f in fields
    ):
        return Step(replace=True)
    return Step(
        replace=False,
        add=tuple(f for f in fields if f.name not in have),
        relabel=tuple(
            (f.name, f.metadata)
            for f in fields
            if f.name in have and have[f.name].metadata.get(_LABEL) != f.metadata.get(_LABEL)
        ),
    )


def only_adds(old: TableSchema, new: TableSchema) -> bool:
    """Whether `new` differs from `old` by added columns alone."""
    kept = {column.name: column for column in new.columns}
    same = all(kept.get(column.name) == column for column in old.columns)
    return same and old.key == new.key and old.key_is_unique == new.key_is_unique


def _differs(old: Field | None, new: Field) -> bool:
    return old is not None and bool(old.type != new.type)


def _label(schema: TableSchema, column: Column) -> str:
    place = schema.key.index(column.name) if column.name in schema.key else None
    label = _Label(column=column, key=place, key_is_unique=schema.key_is_unique)
    return json.dumps(msgspec.to_builtins(label), sort_keys=True)
