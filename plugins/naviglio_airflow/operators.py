"""The steps of the data path as operators. They translate; the flows do the work.

Every step goes on from its own last commit and is told nothing by the step before, so a task may
be retried, cleared, or run beside another one.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from naviglio.errors import ConfigError, NaviglioError, RetryableError
from naviglio_airflow.assets import lake_asset, last_extra, target_asset
from naviglio_airflow.wishes import Asked, asked_of

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Asset, Context

    from naviglio.flows.site import Site
    from naviglio.lake.table import Seen
    from naviglio.model import Group, Pipeline, TableSpec

log = logging.getLogger("naviglio.airflow")
_EVERY_S = 5.0


class NaviglioOperator(BaseOperator):
    """One step of the data path for some groups of a pipeline.

    A group that fails stops no other one; the task then fails with what each of them said. Errors
    that trying again may mend are retried, all others fail at once. Where no group takes part in
    the run, the task is skipped.

    Args:
        pipeline: The path of the pipeline's YAML file.
        groups: The group, or the groups, to work through; none: all.
        kwargs: What every operator takes.
    """

    template_fields: Sequence[str] = ("pipeline", "groups")
    ui_color = "#d9e8f5"
    lineage: str  # the step, as `naviglio_airflow.lineage` knows it

    def __init__(self, *, pipeline: str, groups: str | Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.groups = [groups] if isinstance(groups, str) else list(groups)
        self._at_work = self._ended = False

    def on_kill(self) -> None:
        """Leave the step where it is: its transactions are rolled back, its files removed.

        Airflow calls this between two instructions of the step, or after a timeout has ended it.
        """
        self._ended = True
        if self._at_work:
            self._leave()

    def done(self, site: Site, groups: Sequence[Group], context: Context) -> None:
        """Do what comes after all groups went well; nothing by default."""

    def get_openlineage_facets_on_complete(
        self, task_instance: object
    ) -> OperatorLineage[Any, Any]:
        """Return which tables the step read and wrote, for OpenLineage."""
        del task_instance
        return lineage_facets(self.pipeline, self.lineage, self.groups)

    @abstractmethod
    def step(self, site: Site, group: Group, asked: Asked) -> dict[str, int]:
        """Do the step for one group; return counts."""

    def execute(self, context: Context) -> dict[str, int]:
        """Do the step for every group that takes part in the run; return counts."""
        with self._working(), told_to_airflow(), site_of(self.pipeline) as site:
            asked = asked_of(context, self.get_dag())
            groups = [group for group in self._groups(site.pipeline) if asked.takes(group)]
            if not groups:
                raise AirflowSkipException("No table of this task takes part in this run.")
            counts = for_each(groups, lambda group: self._begun(site, group, asked))
            self.done(site, groups, context)
        return counts

    def _begun(self, site: Site, group: Group, asked: Asked) -> dict[str, int]:
        if self._ended:  # in a library that made an error of it
            self._leave()
        return self.step(site, group, asked)

    def _leave(self) -> NoReturn:
        sys.exit("The task was ended; what it had not committed is taken back.")

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._at_work, self._ended = True, False
        try:
            yield
        finally:
            self._at_work = False

    def _groups(self, pipeline: Pipeline) -> list[Group]:
        known = {group.name: group for group in pipeline.landings}
        unknown = [name for name in self.groups if name not in known]
        if unknown:
            raise ConfigError(
                f"task {self.task_id!r}: pipeline {pipeline.name!r} has no group "
                f"{', '.join(map(repr, unknown))}; it has {', '.join(known)}. Correct `groups`."
            )
        return [known[name] for name in self.groups] or list(pipeline.groups)


class CaptureOperator(NaviglioOperator):
    """Land what changed at the source as the next batch: the first commit."""

    lineage = "capture"

    def step(self, site: Site, group: Group, asked: Asked) -> dict[str, int]:
        """Capture one group."""
        from naviglio.flows.capture import capture
        from naviglio.flows.identity import check_identity

        check_identity(site, group)
        batch = capture(site, group, asked.wish(site.pipeline.time_zone))
        parts = batch.parts if batch else ()
        return {
            "batches": 1 if batch else 0,
            "upserts": sum(part.upserts for part in parts),
            "deletes": sum(part.deletes for part in parts),
        }


class PublishingOperator(NaviglioOperator):
    """A step after which tables are published, as far as their assets are its `outlets`.

    Its events name the partitions that are final and not yet published (`naviglio.flows.publish`);
    a task that has none to publish succeeds without an event. They tell by their extra up to where
    the table is published, which the next task reads: an event that was lost comes again.
    """

    def __init__(
        self, *, outlets: Sequence[Asset] = (), inlets: Sequence[Asset] = (), **kwargs: Any
    ) -> None:
        super().__init__(outlets=list(outlets), inlets=[*inlets, *outlets], **kwargs)

    @abstractmethod
    def asset(self, site: Site, table: TableSpec) -> Asset:
        """Return the asset that this step changes."""

    @abstractmethod
    def reached(self, site: Site, tables: Sequence[TableSpec]) -> dict[str, Seen]:
        """Return up to where each of the tables is now, by name; without those not there yet."""

    def done(self, site: Site, groups: Sequence[Group], context: Context) -> None:
        """Publish what is final and not yet published."""
        from naviglio.flows.publish import publications

        tables = [(group, table) for group in groups for table in group.tables]
        assets = {table.name: self.asset(site, table) for _, table in tables}
        wanted = [(g, t) for g, t in tables if assets[t.name] in {*self.outlets}]
        at = self.reached(site, [table for _, table in wanted])
        events = context["inlet_events"]
        found = publications(site, wanted, at, lambda table: last_extra(events[assets[table]]))
        for table, publication in found.items():
            event = context["outlet_events"][assets[table]]
            event.extra = publication.extra
            event.add_partitions(list(publication.keys))
        # Airflow makes an event of every outlet that a task has at its end, even of one without.
        self.outlets = [assets[table] for table in found]


class ApplyOperator(PublishingOperator):
    """Apply every batch that lake tables lack, in order: the second commit."""

    lineage = "apply"

    def asset(self, site: Site, table: TableSpec) -> Asset:
        """Return the lake table's asset."""
        return lake_asset(site.pipeline, table)

    def reached(self, site: Site, tables: Sequence[TableSpec]) -> dict[str, Seen]:
        """Return the lake tables' versions."""
        from naviglio.flows.publish import applied_at

        return applied_at(site, tables)

    def step(self, site: Site, group: Group, asked: Asked) -> dict[str, int]:
        """Bring the lake tables of one group up to date."""
        from naviglio.flows.replicate import catch_up_lake

        del asked
        applied = catch_up_lake(site, group)
        return {"batches": max((len(found) for found in applied.values()), default=0)}


class LoadOperator(PublishingOperator):
    """Load everything that targets lack of their lake tables: the third commit."""

    lineage = "load"

    def asset(self, site: Site, table: TableSpec) -> Asset:
        """Return the target's asset."""
        return target_asset(site.pipeline, table)

    def reached(self, site: Site, tables: Sequence[TableSpec]) -> dict[str, Seen]:
        """Return the lake tables' versions that the ledger holds."""
        from naviglio.flows.publish import loaded_at

        return loaded_at(site, tables)

    def step(self, site: Site, group: Group, asked: Asked) -> dict[str, int]:
        """Bring the targets of one group up to date."""
        from naviglio.flows.identity import check_identity
        from naviglio.flows.replicate import catch_up_target

        del asked
        check_identity(site, group)
        rows = catch_up_target(site, group).values()
        names = ("inserted", "updated", "deleted", "unchanged")
        return {name: sum(getattr(row, name) for row in rows) for name in names}


class ReconcileOperator(NaviglioOperator):
    """Prove that source, lake and target agree; the task fails and names the keys that don't."""

    lineage = "reconcile"

    def step(self, site: Site, group: Group, asked: Asked) -> dict[str, int]:
        """Compare the tables of one group."""
        from naviglio.errors import DataError
        from naviglio.flows.reconcile import reconcile

        del asked
        verdicts = reconcile(site, group)
        wrong = [verdict.told() for verdict in verdicts if not verdict.ok]
        if wrong:
            raise DataError("; ".join(wrong))
        return {"comparisons": len(verdicts)}


class MaintainOperator(NaviglioOperator):
    """Compact lake tables where many small batches have left many small files."""

    lineage = "maintain"

    def step(self, site: Site, group: Group, asked: Asked) -> dict[str, int]:
        """Compact the lake tables of one group."""
        from naviglio.flows.maintain import maintain

        del asked
        done = maintain(site, group.tables)
        return {"compacted": sum(found is not None for found in done.values())}


def lineage_facets(path: str, step: str, names: Sequence[str]) -> OperatorLineage[Any, Any]:
    """Return which tables a step reads and writes, for OpenLineage."""
    from naviglio_airflow.lineage import lineage_of

    with site_of(path) as site:
        transforms = [one.group for one in site.pipeline.transforms]
        every = transforms if step == "transform" else site.pipeline.groups
        chosen = [group for group in site.pipeline.landings if group.name in names]
        return lineage_of(site, step, chosen or every)


@contextmanager
def site_of(path: str) -> Iterator[Site]:
    """Open the site of a pipeline's file over Airflow's connections."""
    from naviglio.config.home import Home
    from naviglio.config.pipeline import load_pipeline
    from naviglio.connections.connections import Connections
    from naviglio.flows.site import open_site
    from naviglio_airflow.connections import AirflowConnections

    home = Home.find(os.environ)
    connections = AirflowConnections(Connections(os.environ, home.connections))
    with open_site(load_pipeline(Path(path)), home, connections, _Progress().tell) as site:
        yield site


@contextmanager
def told_to_airflow() -> Iterator[None]:
    """Raise the core's errors so that Airflow retries those that trying again may mend.

    Each is told in a line of its own first: Airflow shows an exception with all its frames.
    """
    try:
        yield
    except NaviglioError as error:
        log.error("%s", error)  # noqa: TRY400 - a user's mistake needs no traceback
        kind = AirflowException if isinstance(error, RetryableError) else AirflowFailException
        raise kind(str(error)) from None


class _Progress:
    """Logs the rows on their way, every few seconds."""

    def __init__(self) -> None:
        self._rows: Counter[tuple[str, str]] = Counter()
        self._begun = self._said = time.monotonic()

    def tell(self, stage: str, table: str, rows: int) -> None:
        """Hear of rows that moved."""
        self._rows[stage, table] += rows
        now = time.monotonic()
        if now - self._said < _EVERY_S:
            return
        self._said = now
        log.info(
            "%s %s: %s rows after %.0f s", stage, table, f"{self._rows[stage, table]:,}",
            now - self._begun,
        )  # fmt: skip


def for_each(groups: Sequence[Group], step: Callable[[Group], Mapping[str, int]]) -> dict[str, int]:
    """Do a step for each group, one that fails stopping no other; return the sums of its counts."""
    counts: Counter[str] = Counter()
    errors: dict[str, NaviglioError] = {}
    for group in groups:
        try:
            counts.update(step(group))
        except NaviglioError as error:
            errors[group.name] = error
    raise_all(errors)
    return dict(counts)


def raise_all(errors: Mapping[str, NaviglioError]) -> None:
    """Raise what went wrong: as it is for one group, all of it for several."""
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        told = "\n".join(f"group {name}: {error}" for name, error in errors.items())
        retry = all(isinstance(error, RetryableError) for error in errors.values())
        raise (RetryableError if retry else NaviglioError)(told)
