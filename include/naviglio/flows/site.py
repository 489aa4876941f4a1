"""Where a pipeline works: its landing, its lake, its connections; opened late, closed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from naviglio.config.home import Home
from naviglio.connections.connections import Urls
from naviglio.connections.registry import open_source, open_target
from naviglio.connections.run_as import RunAs
from naviglio.lake.table import LakeTable
from naviglio.landing.attempt import Attempt
from naviglio.landing.landing import Landing
from naviglio.model import DataFile, Group, Pipeline, TableSpec
from naviglio.ports import Source, Target
from naviglio.storage.local import LocalStore

Tell = Callable[[str, str, int], None]  # stage, table, rows more


def _tell_nobody(stage: str, table: str, rows: int) -> None:
    """Report to nobody."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One pipeline at one home; `tell` hears of rows as they move."""

    pipeline: Pipeline
    home: Home
    connections: Urls
    tell: Tell = _tell_nobody
    _open: ExitStack = field(default_factory=ExitStack)
    _targets: dict[str, Target] = field(default_factory=dict)  # by principal

    @cached_property
    def source(self) -> Source:
        """The system of record."""
        source = open_source(self.pipeline.source, self.connections)
        self._open.callback(source.close)
        return source

    @cached_property
    def target(self) -> Target:
        """The warehouse, as the connection's login; ConfigError where one may not run as told."""
        return self._open_target("")

    def target_of(self, table: TableSpec) -> Target:
        """Return the warehouse as the principal that merges the table."""
        if not table.run_as:
            return self.target
        if table.run_as not in self._targets:
            self._targets[table.run_as] = self._open_target(table.run_as)
        return self._targets[table.run_as]

    def _open_target(self, run_as: str) -> Target:
        RunAs(self.home.run_as, self.home.run_as_file).check(self.pipeline)
        target = open_target(self.pipeline.target, self.connections, run_as)
        self._open.callback(target.close)
        return target

    @cached_property
    def target_as_source(self) -> Source:
        """The warehouse, to read from."""
        source = open_source(self.pipeline.target, self.connections)
        self._open.callback(source.close)
        return source

    def landing(self, group: Group) -> Landing:
        """Return the landing of a group."""
        folder = self.home.landing / self.pipeline.name / group.name
        return Landing(store=LocalStore(root=str(folder)), group=group.name)

    def lake(self, table: TableSpec) -> LakeTable:
        """Return the lake table of a table."""
        return LakeTable(uri=str(self.home.lake / self.pipeline.name / table.name))

    def heard(
        self, stage: str, table: str, batches: Iterable[pa.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        """Pass batches on and tell of their rows."""
        for batch in batches:
            self.tell(stage, table, batch.num_rows)
            yield batch

    def close(self) -> None:
        """Give back every connection."""
        self._open.close()


@dataclass(frozen=True)
class HeardSink:
    """An attempt whose rows are told of as they are written."""

    attempt: Attempt
    site: Site
    table: str

    def write(
        self,
        name: str,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        bounded: Sequence[str] = (),
    ) -> tuple[DataFile, ...]:
        """Write batches as files, which tell the bounds of some columns; none without rows."""
        heard = self.site.heard("capture", self.table, batches)
        return self.attempt.write(name, schema, heard, bounded)


@contextmanager
def open_site(
    pipeline: Pipeline, home: Home, connections: Urls, tell: Tell = _tell_nobody
) -> Iterator[Site]:
    """Open a site and close what it opened."""
    site = Site(pipeline=pipeline, home=home, connections=connections, tell=tell)
    try:
        yield site
    finally:
        site.close()
