"""Do landing, lake and ledger belong together? A stranger stops the run, nothing written."""

from __future__ import annotations

from datetime import UTC, datetime

from naviglio.errors import IdentityError, RetryableError
from naviglio.flows.site import Site
from naviglio.landing.landing import Landing
from naviglio.model import Group, LedgerRow, Question, TableSpec


def check_identity(site: Site, group: Group) -> None:
    """Compare the identities that landing, lake tables and ledger rows carry.

    Raises IdentityError: a landing that was deleted or comes from elsewhere, two landings on one
    lake, a landing or lake older than what was loaded from it.
    """
    # Downstream first: what is read later can only be further, so a run beside is no stranger.
    ledger = _ledger(site)
    lakes = {table.name: site.lake(table).applied() for table in group.tables}
    landing = site.landing(group)
    identity, head = landing.identity(), landing.head().number
    for table in group.tables:
        owner, number = lakes[table.name]
        if owner is not None:
            _check_lake(site.lake(table).uri, owner, number, landing.store.root, identity, head)
        row = ledger.get(str(table.target))
        if row is not None and row.pipeline == site.pipeline.name:
            _check_ledger(site, group, table, row, identity, head)


def _ledger(site: Site) -> dict[str, LedgerRow]:
    """Return the ledger, or none of it while the target is away: the load checks again."""
    try:
        return site.target.ledger()
    except RetryableError:
        return {}


def _check_lake(
    uri: str, owner: str, number: int, root: str, identity: str | None, head: int
) -> None:
    if owner != identity:
        here = f"is {identity}" if identity else "is gone or empty"
        raise IdentityError(
            f"lake table {uri} was built from landing {owner}, but the landing at {root} {here}. "
            "Restore that landing's folder; or, to start over from the source, move the lake "
            "table's folder away and run again."
        )
    if number > head:
        raise IdentityError(
            f"lake table {uri} has applied batch {number}, but the landing at {root} ends at "
            f"{head}: it is an older copy. Restore the newer landing."
        )


def _check_ledger(
    site: Site, group: Group, table: TableSpec, row: LedgerRow, identity: str | None, head: int
) -> None:
    landing, lake = site.landing(group), site.lake(table)
    other = _other_landing(landing, row, identity, head)
    if not other:
        landing.withdraw(0, table.name, "identity")
        return
    same = row.landing == identity
    found = f"ledger {row.landing} batch {row.batch}, landing {identity or 'none'} batch {head}"
    advice = "to compare the target whole with the new one"
    if same:
        # Version numbers of a lake that goes on from here would mean other rows than the ledger's.
        advice = f"and move the lake table's folder away, {lake.uri}, to go on from this one"
    # Not bound to a head: an answer must hold from the first new batch until the load after it.
    question = Question(
        group=group.name, table=table.name, kind="identity", head=0,
        text=f"target {row.target} was loaded from {other} landing ({found})",
        found=f"{row.landing} batch {row.batch} by {row.attempt}" if same else row.landing,
        asked_at_utc=datetime.now(UTC),
    )  # fmt: skip
    if landing.answered(question) and not (same and lake.table_id() == row.lake_table):
        return
    landing.ask(question)
    raise IdentityError(
        f"{question.text}. Restore the landing's folder at {landing.store.root}; or run "
        f"`naviglio accept {site.pipeline.name} --table {table.name}` {advice}."
    )


def _other_landing(landing: Landing, row: LedgerRow, identity: str | None, head: int) -> str:
    """Return which landing a target was loaded from, where it isn't this one."""
    if row.landing != identity:
        return "another"
    if row.batch > head:
        return "a newer copy of this"
    # Two copies of a landing that both went on have other batches of the same numbers.
    # An earlier version writes the batch and leaves the attempt of the one before, and its number.
    number, _, attempt = row.batch_attempt.partition(" ")
    if number == str(row.batch) and landing.batch(row.batch).attempt != attempt:
        return "another copy of this"
    return ""
