"""A lake table: the Delta table that is the current view of its landing."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from naviglio import points
from naviglio.carriers import arrow_schema, key_schema
from naviglio.errors import (
    ConfigError,
    DataError,
    IdentityError,
    NaviglioError,
    RetryableError,
    StorageError,
)
from naviglio.lake.apply import Applied, Writer, create
from naviglio.lake.compact import Compacted, compact, only_compaction, worth_compacting
from naviglio.lake.feed import Images, Seen, data_files, feed_of, images_of, rows_of
from naviglio.lake.merge import in_windows, same_key
from naviglio.lake.schema import logical_schema
from naviglio.lake.source import read_files
from naviglio.model import DELETE, OP, LedgerRow, Manifest, Part, TableSchema, Window
from naviglio.ports import Feed
from naviglio.storage.engine import local_engine, quoted, view_files

__all__ = ["Applied", "Compacted", "Images", "LakeTable", "Seen"]

_TRIES = 10
_LANDING = "naviglio.landing"


@dataclass(frozen=True)
class LakeTable:
    """The lake table in the folder `uri`.

    `merge_bytes` bounds what a MERGE holds; a batch beyond it is a rewrite of the table.
    """

    uri: str
    merge_bytes: int = 200 << 20

    def exists(self) -> bool:
        """Whether there is a table."""
        return self._open() is not None

    def applied(self) -> tuple[str | None, int]:
        """Return the landing it was built from and the last batch of it; None and 0 of no table."""
        table = self._open()
        if table is None:
            return None, 0
        owner = self._owner(table)
        return owner, _number(table, owner)

    def number(self) -> int:
        """Return the last batch applied; 0 when there is no table."""
        return self.applied()[1]

    def table_id(self) -> str | None:
        """Return the id of the Delta table; None when there is no table."""
        table = self._open()
        return None if table is None else str(table.metadata().id)

    def seen(self) -> Seen | None:
        """Return what a reader sees now; None when there is no table."""
        table = self._open()
        if table is None:
            return None
        return Seen(
            lake_table=str(table.metadata().id), version=table.version(),
            batch=_number(table, self._owner(table)),
        )  # fmt: skip

    def version(self) -> int | None:
        """Return the Delta version (compactions count too); None when there is no table."""
        table = self._open()
        return None if table is None else table.version()

    def schema(self, version: int | None = None) -> TableSchema:
        """Return the logical schema (of one Delta version); ConfigError when there is no table."""
        found = self.schema_if_any(version)
        if found is None:
            raise ConfigError(f"there is no lake table at {self.uri} yet; run the pipeline first.")
        return found

    def schema_if_any(self, version: int | None = None) -> TableSchema | None:
        """Return the logical schema (of one Delta version); None when there is no table."""
        table = self._open(version)
        return None if table is None else logical_schema(table)

    def apply(self, manifest: Manifest, part: Part | None, landing_root: str) -> Applied | None:
        """Commit batch n over batch n-1; None when the table has it already.

        `part` is None for a batch that holds nothing of this table: only its number is recorded.
        Raises IdentityError (the table is of another landing), DataError (a gap, or rows that only
        a snapshot may bring), StorageError (a landing file is missing or short; a full disk),
        RetryableError (other writers were faster ten times).
        """
        for _ in range(_TRIES):
            table = self._open()
            try:
                if table is None:
                    self._check_next(manifest, 0)
                    schema = part.schema if part else None
                    name = part.table if part else Path(self.uri).name
                    create(self.uri, manifest.landing, name, schema)
                    continue
                self._check_identity(table, manifest)
                number = _number(table, manifest.landing)
                if number >= manifest.number:
                    return None
                self._check_next(manifest, number)
                writer = Writer(table, manifest, self.merge_bytes)
                if part is not None and writer.evolve(part):
                    continue
                return writer.commit(part, landing_root)
            except (DeltaError, OSError) as error:
                if not self._moved(table):
                    raise self._failed(manifest, error) from error
        raise RetryableError(
            f"lake table {self.uri}: other writers were faster {_TRIES} times. Run again."
        )

    def feed(self, since: LedgerRow | None) -> Feed | None:
        """Return what a target lacks; None when it lacks nothing or there is no table yet."""
        table = self._open()
        if table is None:
            return None
        return feed_of(table, self._owner(table), since)

    def images(
        self, since: Seen | None, columns: Sequence[str], version: int | None = None
    ) -> Images | None:
        """Return old and new images of the rows that changed since; None without a table.

        As of now, or of one Delta version.
        """
        table = self._open(version)
        if table is None:
            return None
        return images_of(table, self._owner(table), since, columns)

    def files(self, version: int) -> list[str]:
        """Return the paths of the data files of a version, sorted."""
        table = self._open(version)
        return sorted(data_files(table)) if table is not None else []

    def rows(self, version: int) -> int:
        """Return how many rows a version has, from its log."""
        table = self._open(version)
        if table is None:
            return 0
        return sum(pa.table(table.get_add_actions()).column("num_records").to_pylist())

    def held(self, event_time: str = "", window: Window | None = None) -> int:
        """Return how many rows there are, or have their event time in a window; 0 of no table."""
        table = self._open()
        if table is None or window is None:
            return self.rows(table.version()) if table else 0
        schema = logical_schema(table)
        if event_time not in schema.names:
            return 0
        inside = in_windows(schema.column(event_time), [window], "")
        rows = pa.RecordBatchReader.from_stream(table.scan([event_time], inside))
        return sum(batch.num_rows for batch in rows)

    def elsewhere(
        self, files: Sequence[str], day: str, days: Collection[date]
    ) -> tuple[object, ...] | None:
        """Return a key in these files that a row of another day than `days` has; None for none."""
        table = self._open()
        if table is None or not files:
            return None
        schema = logical_schema(table)
        keys = ", ".join(quoted(name) for name in schema.key)
        listed = ", ".join(f"'{one}'" for one in sorted(days)) or "NULL"
        with local_engine() as engine:
            view_files(engine, "t", data_files(table), arrow_schema(schema))
            engine.read_parquet(list(files)).create_view("s")
            return engine.execute(
                f"SELECT {keys} FROM s SEMI JOIN (FROM t WHERE {quoted(day)} NOT IN ({listed}))"
                f" AS t ON {same_key(schema)} LIMIT 1"
            ).fetchone()

    def deleted_by(self, files: Sequence[str]) -> int:
        """Return how many of its rows the deletes in these files of changes would take away."""
        table = self._open()
        if table is None:
            return 0
        schema = logical_schema(table)
        with local_engine() as engine:
            view_files(engine, "t", data_files(table), key_schema(schema))
            engine.read_parquet(list(files)).create_view("s")
            found = engine.sql(
                f"SELECT count(*) FROM t SEMI JOIN (FROM s WHERE {OP} = '{DELETE}') AS s"
                f" ON {same_key(schema)}"
            )
            return int(found.fetchall()[0][0])

    def scan(self, version: int | None = None) -> Iterator[pa.RecordBatch]:
        """Stream all rows (of one Delta version) in their carriers and `_beyond`."""
        table = self._open(version)
        if table is not None:
            yield from rows_of(table, logical_schema(table))

    def compact(self) -> Compacted | None:
        """Put few large files in place of many small ones; None where it isn't worth it.

        No row changes, and no target loads anything for it. Old files stay for time travel. Raises
        RetryableError when another compaction runs, or other writers were faster ten times.
        """
        table = self._open()
        if table is None or not worth_compacting(table):
            return None
        with only_compaction(self.uri):
            for _ in range(_TRIES):
                table = self._open()  # never before the lock: see only_compaction
                if table is None or not worth_compacting(table):
                    return None
                try:
                    return compact(table, self.merge_bytes)
                except (DeltaError, OSError) as error:
                    if not self._moved(table):
                        raise StorageError(
                            f"lake table {self.uri} can't be compacted ({_reason(error)}). Nothing "
                            "changed. Check the disk below, then run again."
                        ) from error
        raise RetryableError(
            f"lake table {self.uri}: other writers were faster {_TRIES} times. Run again."
        )

    def rebuild(self, parts: Iterable[tuple[Manifest, Part | None]], landing_root: str) -> Applied:
        """Replace the rows by a replay of all batches 1..head, in one commit.

        A table whose log can't be read is moved aside (`.damaged-...`), never removed. Raises
        RetryableError when another worker applied a batch meanwhile.
        """
        try:
            table = self._open()
        except StorageError:
            table = None
        scratch = LakeTable(f"{self.uri}.rebuild-{uuid.uuid4().hex}", self.merge_bytes)
        try:
            last, rows = None, 0
            for manifest, part in parts:
                if last is None and table is not None:
                    self._check_identity(table, manifest)
                last, applied = manifest, scratch.apply(manifest, part, landing_root)
                rows += applied.rows if applied else 0
            if last is None:
                raise DataError(f"lake table {self.uri}: its landing has no batch to replay.")
            version = self._replace(table, scratch, last)
            return Applied(batch=last.number, version=version, kind="rebuild", rows=rows)
        finally:
            shutil.rmtree(scratch.uri, ignore_errors=True)

    def _replace(self, table: DeltaTable | None, scratch: LakeTable, last: Manifest) -> int:
        late = RetryableError(f"lake table {self.uri} was written during its rebuild. Run again.")
        if table is None:
            try:
                if Path(self.uri).exists() and not self._readable():
                    Path(self.uri).rename(f"{self.uri}.damaged-{uuid.uuid4().hex}")
                Path(scratch.uri).rename(self.uri)  # refused while another table stands there
            except OSError as error:
                raise late from error
            return 0 if (found := self.version()) is None else found
        if _number(table, last.landing) > last.number:
            raise late
        source = DeltaTable(scratch.uri)
        schema = logical_schema(source)
        # Not `scan()`: delta-rs can't read while it writes (a runtime within a runtime).
        reader = read_files(sorted(data_files(source)), arrow_schema(schema))
        points.reach("apply: before commit")
        try:
            Writer(table, last, self.merge_bytes).overwrite(reader, schema, "rebuild")
        except (DeltaError, OSError) as error:
            raise late if self._moved(table) else self._failed(last, error) from error
        return table.version()

    def _open(self, version: int | None = None) -> DeltaTable | None:
        try:
            return DeltaTable(self.uri, version=version)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise StorageError(
                f"the log of lake table {self.uri} can't be read ({_reason(error)}). Restore the "
                "folder, or run `naviglio rebuild` for the table."
            ) from error

    def _readable(self) -> bool:
        try:
            return self._open() is not None
        except StorageError:
            return False

    def _owner(self, table: DeltaTable) -> str:
        owner = table.metadata().configuration.get(_LANDING)
        if owner is None:
            raise IdentityError(
                f"lake table {self.uri} was not made by Naviglio (no property {_LANDING}). Move "
                "its folder away, or give the pipeline another lake folder."
            )
        return owner

    def _check_identity(self, table: DeltaTable, manifest: Manifest) -> None:
        owner = self._owner(table)
        if owner != manifest.landing:
            raise IdentityError(
                f"lake table {self.uri} was built from landing {owner}, but batch "
                f"{manifest.number} is of landing {manifest.landing}. Restore the folder of "
                f"landing {owner}; or, to start over, move the table's folder away and run again."
            )

    def _check_next(self, manifest: Manifest, number: int) -> None:
        if number != manifest.number - 1:
            raise DataError(
                f"lake table {self.uri} is at batch {number}; batch {manifest.number} can't follow "
                f"it. Apply batch {number + 1} first, or run `naviglio rebuild` for the table."
            )

    def _moved(self, table: DeltaTable | None) -> bool:
        """Whether a failed write lost a race: the log has gone on since it was opened."""
        now = self.version()
        return now is not None and (table is None or now != table.version())

    def _failed(self, manifest: Manifest, error: Exception) -> NaviglioError:
        what = f"lake table {self.uri}: batch {manifest.number} can't be committed"
        if "multiple source rows" in str(error):
            return DataError(
                f"{what}: its part holds more than one row of a key. Make the declared key unique "
                "in the source, then run `naviglio resnapshot` for the table."
            )
        return StorageError(
            f"{what} ({_reason(error)}). Nothing of it is visible. Check the disk below, then run "
            "again."
        )


def _number(table: DeltaTable, landing: str) -> int:
    return table.transaction_version(landing) or 0


def _reason(error: Exception) -> str:
    """Say what failed without what delta-rs quotes: paths of other tables, values of rows."""
    system = re.search(r"([^:]+) \(os error \d+\)", str(error))
    said = system[1] if system else re.split(r"[:'\"\[{(\n]", str(error))[0]
    return f"{type(error).__name__}: {said.strip()}"
