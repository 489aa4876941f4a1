"""What commands show to people of what they found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from naviglio.cli import places
from naviglio.model import Pipeline

if TYPE_CHECKING:
    from rich.console import Console

    from naviglio.cli.work import Ran
    from naviglio.flows.history import History
    from naviglio.flows.plan import TablePlan
    from naviglio.flows.reconcile import Verdict
    from naviglio.flows.status import PipelineStatus
    from naviglio.flows.validate import TableCheck
    from naviglio.lake.table import Compacted
    from naviglio.model import LedgerRow, Question


def show_checks(
    out: Console,
    checks: list[tuple[Pipeline, list[TableCheck]]],
    unknown: list[str] | None,
    failed: bool,
) -> None:
    """Show what checks found of each pipeline; `unknown` is None where databases were asked."""
    from naviglio.cli.show import listing, plural

    if not checks and not failed:
        out.print(f"No pipelines in {places.home().pipelines}.", markup=False)
    for pipeline, found in checks:
        bad = [check for check in found if check.problems]
        said = f"{plural(len(bad), 'table')} to mend" if bad else "fine"
        told = plural(len(pipeline.tables), "table")
        if pipeline.transforms:
            told += f" and {plural(len(pipeline.transforms), 'transform')}"
        out.print(
            f"{pipeline.name}: {told} from {pipeline.source} to {pipeline.target}: {said}",
            markup=False,
        )
        out.print(
            listing(
                [
                    {"table": c.table, "group": c.group, "way": c.way, "key": c.key,
                     "columns": c.columns, "source": c.source, "target": c.target}
                    for c in found
                ],
                optional=("columns", "key"),
            )
        )  # fmt: skip
        for check in bad:
            for problem in check.problems:
                out.print(f"{check.table}: {problem}", markup=False)
    if checks and unknown is not None:
        for conn_id in unknown:
            out.print(f"No connection is called {conn_id!r} here.", markup=False)
        out.print("No database was asked; `--connect` does.")


def show_plans(out: Console, plans: list[TablePlan], notes: list[str]) -> None:
    """Show what a run would do with each table."""
    from naviglio.cli.show import listing, moment

    for note in notes:
        out.print(note, markup=False)
    rows = [
        {
            "table": p.table, "way": p.way, "would do": _doing(p), "rows": p.rows,
            "position (UTC)": moment(p.position), "fence (UTC)": moment(p.fence),
            "fence held by": p.held_by, "windows": p.windows, "why": p.why, "drift": p.drift,
            "lake lacks": p.lake_lacks, "target lacks": p.target_lacks,
        }
        for p in plans
    ]  # fmt: skip
    out.print(listing(rows, optional=("fence held by", "windows", "why", "drift")))
    if all(p.action == "nothing" and not p.lake_lacks and not p.target_lacks for p in plans):
        out.print("Nothing to do.")


def _doing(plan: TablePlan) -> str:
    words = {
        "whole": "read whole", "changes": "read changes", "compare": "compare hashes",
        "windows": "read windows", "wait": "wait for a fence", "ask": "wait for an answer",
        "compute": "compute",
    }  # fmt: skip
    said = words.get(plan.action, plan.action)
    return f"{said}, compare keys" if plan.sweep else said


def show_status(out: Console, found: list[PipelineStatus]) -> None:
    """Show how far the tables of each pipeline are, and what waits for a person."""
    from naviglio.cli.show import listing, moment, span

    if not found:
        out.print(f"No pipelines in {places.home().pipelines}.", markup=False)
    for one in found:
        out.print(f"[bold]{one.pipeline}[/bold]")
        rows = [
            {
                "table": t.table, "way": t.way, "position (UTC)": moment(t.position),
                "behind": span(t.behind_s), "fence (UTC)": moment(t.fence),
                "held by": t.held_by, "batch": t.batch or None, "landed (UTC)": t.landed_at_utc,
                "lake batch": t.lake_batch, "lake version": t.lake_version,
                "target batch": t.target_batch, "target version": t.target_version,
                "loaded as": _principal(t.ledger), "in part": t.ledger.ranges if t.ledger else "",
                "gaps": t.gaps, "inputs not seen": t.unseen,
            }
            for t in one.tables
        ]  # fmt: skip
        out.print(
            listing(rows, optional=("gaps", "held by", "loaded as", "in part", "inputs not seen"))
        )
        for side, why in one.away.items():
            out.print(f"{side} gives no answer: {why}", markup=False)
        _show_open(out, one)
        if not any(t.batch for t in one.tables):
            out.print(f"Nothing was captured yet. Begin with `naviglio run {one.pipeline}`.")


def _principal(row: LedgerRow | None) -> str:
    """Return who loaded a target where it was not the login itself."""
    return row.principal if row and row.principal != row.login else ""


def _show_open(out: Console, one: PipelineStatus) -> None:
    from naviglio.cli.show import plural

    for question in one.questions:
        out.print(
            f"question, {question.table}: {question.text}. Answer it: naviglio accept "
            f"{one.pipeline} --table {question.table}",
            markup=False,
        )
    dead = sum(attempt.state == "dead" for attempt in one.attempts)
    if dead:
        out.print(f"{plural(dead, 'dead attempt')}; a later batch removes the files.")
    for attempt in one.attempts:
        if attempt.state != "dead":
            out.print(
                f"{attempt.group}: batch {attempt.number} is being tried ({attempt.state})",
                markup=False,
            )


def show_history(out: Console, found: History) -> None:
    """Show a table's batches and the versions of its lake table."""
    from naviglio.cli.show import listing, moment, size

    if not found.batches:
        out.print(
            f"{found.table}: nothing was captured yet. Begin with `naviglio run {found.pipeline}`.",
            markup=False,
        )
        return
    rows: list[dict[str, object]] = [
        {
            "batch": b.number, "landed (UTC)": b.at_utc, "kind": b.kind, "upserts": b.upserts,
            "deletes": b.deletes, "size": size(b.bytes), "position (UTC)": moment(b.position),
            "windows": b.windows, "drift": b.drift, "why": b.why, "accepted": b.accepted,
            "attempt": b.attempt,
        }
        for b in found.batches
    ]  # fmt: skip
    out.print(listing(rows, optional=("windows", "drift", "why", "accepted")))
    if found.versions:
        out.print()
        out.print(
            listing(
                [
                    {"lake version": v.version, "committed (UTC)": v.at_utc,
                     "operation": v.operation, "batch": v.batch}
                    for v in found.versions
                ]
            )
        )  # fmt: skip


def show_questions(out: Console, pipeline: str, questions: list[Question], accepted: bool) -> None:
    """Show questions, and how to go on where they were accepted."""
    from naviglio.cli.show import listing, plural

    if not questions:
        out.print("No open questions.")
        return
    out.print(
        listing(
            [
                {"table": q.table, "kind": q.kind, "asked (UTC)": q.asked_at_utc, "text": q.text}
                for q in questions
            ]
        )
    )
    if accepted:
        count = plural(len(questions), "question")
        out.print(f"Accepted {count}. Go on with `naviglio run {pipeline}`.", markup=False)


def show_ran(out: Console, ran: Ran, notes: list[str]) -> None:
    """Show what a run did to each table."""
    from naviglio.cli.show import listing

    for note in notes:
        out.print(note, markup=False)
    rows = [
        {
            "table": row.table, "partition": row.partition, "kind": row.kind,
            "captured": row.captured, "deletes": row.deletes, "batch": row.batch,
            "lake version": row.lake_version, "inserted": row.inserted, "updated": row.updated,
            "deleted": row.deleted, "unchanged": row.unchanged, "seconds": row.seconds,
            "whole because": row.why,
        }
        for row in ran.tables
    ]  # fmt: skip
    out.print(listing(rows, optional=("partition", "whole because")))
    if ran.errors:
        out.print(f"Failed: {', '.join(ran.errors)}.", markup=False)
    elif all(row.kind == "none" and row.inserted is None for row in ran.tables):
        out.print("Nothing to do: lake and target hold all that the source has settled.")


def show_maintained(out: Console, done: dict[str, Compacted | None]) -> None:
    """Show which lake tables were compacted."""
    from naviglio.cli.show import listing

    rows = [
        {
            "table": name, "done": "compacted" if found else "nothing: it has few files",
            "lake version": found.version if found else None,
            "files before": found.files_before if found else None,
            "files after": found.files_after if found else None,
        }
        for name, found in done.items()
    ]  # fmt: skip
    out.print(listing(rows, optional=("lake version", "files before", "files after")))


def show_verdicts(out: Console, verdicts: list[Verdict], *, complete: bool = True) -> None:
    """Show verdicts, and the keys of what differs; `complete`: nothing else was to be compared."""
    from naviglio.cli.show import listing, plural

    if not verdicts:
        out.print("Nothing was compared.")
        return
    classes = ("missing", "extra", "changed", "unseen_deletes", "in_flight")
    rows = [
        {"table": v.table, "against": v.against, "rows": v.rows}
        | {name.replace("_", " "): getattr(v, name).count for name in classes}
        | {"verdict": "same" if v.ok else "DIFFERENT"}
        for v in verdicts
    ]
    out.print(listing(rows))
    for v in verdicts:
        for name in classes[:4]:
            found = getattr(v, name)
            if found.count:
                more = "" if found.count == len(found.keys) else ", ..."
                kind = name.replace("_", " ")
                keys = "; ".join(map(str, found.keys))
                out.print(f"{v.table}, {v.against}: {kind}: {keys}{more}", markup=False)
    bad, waiting = sum(not v.ok for v in verdicts), sum(v.in_flight.count for v in verdicts)
    if bad:
        out.print(f"{plural(bad, 'comparison')} failed.")
    elif waiting:
        out.print(
            f"All agrees but for {plural(waiting, 'row')} in flight: the next run's, or held."
        )
    elif verdicts:
        out.print("Everything agrees." if complete else "What could be compared agrees.")
