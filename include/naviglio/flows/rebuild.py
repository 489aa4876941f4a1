"""Replay a landing into its lake table: a raw lake table is a function of its landing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from naviglio.errors import StorageError
from naviglio.flows.identity import check_identity
from naviglio.flows.replicate import Report, catch_up_target, parts_to_apply
from naviglio.flows.site import Site
from naviglio.model import Group, TableSpec


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
        done = site.lake(table).rebuild(parts_to_apply(landing, 0, table.name), landing.store.root)
        report.applied = {table.name: [done]}
    with report.timed("load"):
        check_identity(site, alone)  # again: the table may have been unreadable before
        report.loaded = catch_up_target(site, alone)
    return report
