"""Replay a landing into its lake table: a raw lake table is a function of its landing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from naviglio.errors import StorageError
from naviglio.flows.identity import check_identity
from naviglio.flows.replicate import Report, catch_up_target
from naviglio.flows.site import Site
from naviglio.model import Group, Part, TableSpec


def rebuild(site: Site, group: Group, table: TableSpec) -> Report:
    """Build the lake table anew from batches 1 to head, then load its target.

    Raises IdentityError where landing, lake and ledger do not belong together, DataError where
    nothing has landed.
    """
    report, landing = Report(group=group.name), site.landing(group)
    alone = replace(group, tables=(table,))
    with report.timed("check"), suppress(StorageError):  # a damaged lake table is what it mends
        check_identity(site, alone)
    with report.timed("apply"):
        done = site.lake(table).rebuild(
            ((manifest, _part(manifest.parts, table.name)) for manifest in landing.after(0)),
            landing.store.root,
        )
        report.applied = {table.name: [done]}
    with report.timed("load"):
        check_identity(site, alone)  # again: the table may have been unreadable before
        report.loaded = catch_up_target(site, alone)
    return report


def _part(parts: tuple[Part, ...], table: str) -> Part | None:
    return {part.table: part for part in parts}.get(table)
