"""Write one batch's part to a Delta table: exactly one commit carries rows and number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError

from naviglio import points
from naviglio.errors import DataError
from naviglio.lake import merge
from naviglio.lake.commits import NOTE
from naviglio.lake.feed import data_files
from naviglio.lake.rewrite import rewritten
from naviglio.lake.schema import arrow_fields, logical_schema, step_between
from naviglio.lake.source import Source
from naviglio.model import DELETE, OP, UPSERT, Manifest, Part, PartKind, TableSchema
from naviglio.storage.engine import quoted

FILE_BYTES = 64 << 20  # small enough that a MERGE rewrites little around a changed row
WRITER = WriterProperties(compression="ZSTD", max_row_group_size=32 * 1024)
_FOREVER = "interval 36500 days"


@dataclass(frozen=True, kw_only=True)
class Applied:
    """One batch's commit on a lake table; `none`: the batch has no rows for the table."""

    batch: int
    version: int  # of the Delta table
    kind: PartKind | Literal["none", "rebuild"]
    rows: int = 0  # read from the landing


def create(uri: str, landing: str, table: str, schema: TableSchema | None) -> None:
    """Make an empty lake table, number 0; DeltaError when another worker was first."""
    points.reach("apply: before commit")
    DeltaTable.create(
        uri,
        schema=DeltaSchema.from_arrow(arrow_fields(schema or TableSchema(columns=(), key=()))),
        name=table,
        configuration={
            "delta.enableChangeDataFeed": "true",
            "delta.enableDeletionVectors": "false",
            "delta.logRetentionDuration": _FOREVER,
            "delta.deletedFileRetentionDuration": _FOREVER,
            "naviglio.landing": landing,
            "naviglio.table": table,
        },
        raise_if_key_not_exists=False,
        commit_properties=noted({"create": table}),
    )


@dataclass(frozen=True)
class Writer:
    """Commits one batch through one handle, so that a worker that is late fails."""

    table: DeltaTable
    manifest: Manifest
    merge_bytes: int

    def evolve(self, part: Part) -> bool:
        """Add or relabel columns in commits of their own; True: open the table again.

        Alone they change nothing (NULLs in a new column), and a MERGE can't add columns of every
        type. A worker that is late fails here as well: the table's metadata has changed.
        """
        step = step_between(self.table, part.schema)
        if step.replace:
            if part.kind == "snapshot":
                return False
            raise DataError(
                f"batch {self.manifest.number} of {part.table} changes a column's type or the key "
                f"of lake table {self.table.table_uri}: only a snapshot can. Run `naviglio "
                "resnapshot` for the table."
            )
        said = noted(self._note("schema"))
        if step.needed:
            points.reach("apply: before commit")
        if step.add:
            self.table.alter.add_columns(list(step.add), commit_properties=said)
        for name, label in step.relabel:
            self.table.alter.set_column_metadata(name, label, commit_properties=said)
        return step.needed

    def commit(self, part: Part | None, root: str) -> Applied:
        """Write the part and the batch's number in one commit."""
        kind = part.kind if part else "none"
        source = Source(part, root) if part else None
        if source is not None:
            source.check()
        points.reach("apply: before commit")
        if part is None or source is None:
            self._number_only()
        elif part.kind == "snapshot" and step_between(self.table, part.schema).replace:
            self.overwrite(source.reader(), part.schema, "overwrite", part.why)
        elif part.kind == "snapshot" and not self.table.file_uris():
            self._append(source)
        elif part.kind == "stream" and not source.rows:
            self._number_only()
        else:
            self._merge(source)
            if self.table.transaction_version(self.manifest.landing) != self.manifest.number:
                self._number_only()  # a MERGE that changes nothing commits nothing
        points.reach("apply: after commit")
        return Applied(
            batch=self.manifest.number,
            version=self.table.version(),
            kind=kind,
            rows=source.rows if source else 0,
        )

    def overwrite(
        self, rows: pa.RecordBatchReader, schema: TableSchema, kind: str, why: str = ""
    ) -> None:
        """Replace all rows and the schema."""
        labelled = arrow_fields(schema)
        write_deltalake(
            self.table,
            pa.RecordBatchReader.from_batches(labelled, (b.cast(labelled) for b in rows)),
            mode="overwrite",
            schema_mode="overwrite",
            target_file_size=FILE_BYTES,
            writer_properties=WRITER,
            commit_properties=self._numbered(kind, why),
        )

    def _append(self, source: Source) -> None:
        if not source.rows:
            self._number_only()
            return
        write_deltalake(
            self.table,
            source.reader(),
            mode="append",
            schema_mode="merge",  # columns that the source has lost are NULL
            target_file_size=FILE_BYTES,
            writer_properties=WRITER,
            commit_properties=self._numbered(source.part.kind, source.part.why),
        )

    def _merge(self, source: Source) -> None:
        part, schema = source.part, source.part.schema
        upsert = f"s.{quoted(OP)} = '{UPSERT}'"
        gone = f"s.{quoted(OP)} = '{DELETE}'"
        changes = part.kind == "stream"
        builder = self.table.merge(
            source.reader(),
            self._predicate(source),
            source_alias="s",
            target_alias="t",
            streamed_exec=True,
            max_spill_size=self.merge_bytes,
            writer_properties=WRITER,
            commit_properties=self._numbered(part.kind, part.why),
        )
        if changes:
            builder = builder.when_matched_delete(predicate=gone)
        differs = merge.differs(schema)
        builder = builder.when_matched_update(
            merge.values(schema), predicate=f"({upsert}) AND ({differs})" if changes else differs
        ).when_not_matched_insert(merge.values(schema), predicate=upsert if changes else None)
        if part.kind == "window":
            inside = merge.in_windows(schema.column(part.event_time), part.windows)
            builder = builder.when_not_matched_by_source_delete(predicate=inside)
        elif part.kind == "snapshot":
            builder = builder.when_not_matched_by_source_delete()
        try:
            builder.execute()
        except DeltaError as error:
            if "Resources exhausted" not in str(error):
                raise
            self._rewrite(source)

    def _rewrite(self, source: Source) -> None:
        """Do what the MERGE would, over all rows: it holds its whole source in memory."""
        known = logical_schema(self.table)
        with rewritten(data_files(self.table), known, source) as rows:
            self.overwrite(rows, known, source.part.kind, source.part.why)

    def _predicate(self, source: Source) -> str:
        schema = source.part.schema
        same = merge.same_key(schema)
        first = schema.column(schema.key[0])
        bounds = source.bounds(first) if source.part.kind == "stream" else None
        inside = merge.within(first, *bounds) if bounds else None
        return f"{same} AND {inside}" if inside else same

    def _number_only(self) -> None:
        self.table.create_write_transaction(
            [], "append", self.table.schema(), commit_properties=self._numbered("none")
        )
        self.table.update_incremental()  # delta-rs leaves the handle at the version before

    def _numbered(self, kind: str, why: str = "") -> CommitProperties:
        number = Transaction(self.manifest.landing, self.manifest.number)
        return noted(self._note(kind, why), [number])

    def _note(self, kind: str, why: str = "") -> dict[str, object]:
        note = {"batch": self.manifest.number, "attempt": self.manifest.attempt, "kind": kind}
        return {**note, "why": why} if why else note


def noted(note: dict[str, object], numbers: list[Transaction] | None = None) -> CommitProperties:
    """Return what a commit says of itself; it fails when any other came since the table was opened.

    Without retries delta-rs compares and sets. With them it decides by itself what goes together,
    and lets an overwrite through after a compaction, whose rows then stand beside the new ones.
    """
    return CommitProperties(
        custom_metadata={NOTE: json.dumps(note)}, app_transactions=numbers, max_commit_retries=0
    )
