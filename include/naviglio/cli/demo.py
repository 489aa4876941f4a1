"""Commands that play the demo: seed, advance, run."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naviglio.cli import places, views
from naviglio.cli.answers import Answer, answering, error_data
from naviglio.cli.progress import Watch, watching
from naviglio.errors import ConfigError, NaviglioError, TargetError

if TYPE_CHECKING:
    from rich.console import Console

    from naviglio.cli.work import Ran
    from naviglio.config.home import Home
    from naviglio.demo.plan import Operation
    from naviglio.deployment.rest import Airflow
    from naviglio.flows.reconcile import Verdict
    from naviglio.flows.site import Site
    from naviglio.model import Pipeline

PIPELINE = "flights"
SEED = date(2013, 1, 7)
DAYS = 3
BACKFILL = ("2013-01-01", "2013-01-07")
DAYS_AGAIN = ("2013-01-01", "2013-01-03")
DAG = "naviglio_flights"
STARTER = f"{DAG}.watch"
APPLICATION = "operations_app"

app = typer.Typer(
    no_args_is_help=True,
    help="Play the operational system of the demo: New York's flights of 2013.",
)


@dataclass(kw_only=True)
class Step:
    """One step of the demo."""

    step: str
    captured: int = 0
    landed: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    seconds: float = 0.0

    def count(self, ran: Ran) -> None:
        """Add what a run carried."""
        for row in ran.tables:
            self.captured += row.captured + row.deletes
            self.landed += row.landed
            self.inserted += row.inserted or 0
            self.updated += row.updated or 0
            self.deleted += row.deleted or 0


@dataclass(kw_only=True)
class _Demo:
    """A demo as it goes on; where no display shows its steps, each is a line on stderr."""

    watch: Watch
    steps: list[Step] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    errors: list[NaviglioError] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time one step and keep it."""
        self.watch.step(name)
        step, begun = Step(step=name), time.monotonic()
        self.steps.append(step)
        try:
            yield step
        finally:
            step.seconds = round(time.monotonic() - begun, 2)
            self.watch.done(f"{step.step}: {step.seconds:.1f} s")


@app.command()
@answering
def seed(
    until: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="The last day to load.")
    ] = datetime(SEED.year, SEED.month, SEED.day),  # noqa: DTZ001 - a calendar day
    reset: Annotated[bool, typer.Option("--reset", help="Drop the demo's tables first.")] = False,
) -> Answer:
    """Make the operational database and load its past.

    Example: `naviglio demo seed --until 2013-01-07`
    """
    from naviglio.demo.seed import seed as load

    with watching() as watch:
        report = load(
            _application_url(), until.date(),
            lambda table, rows: watch.tell("seed", table, rows), reset=reset,
        )  # fmt: skip

    def show(out: Console) -> None:
        from naviglio.cli.show import listing

        out.print(listing([{"table": t, "rows": n} for t, n in report.rows.items()]))
        out.print(f"Seeded until {report.until} in {report.seconds:.1f} s.")

    return Answer(data=report, show=show)


@app.command()
@answering
def advance(
    days: Annotated[int, typer.Option(min=1, help="How many days to play.")] = 1,
) -> Answer:
    """Play the next days: flights appear, depart, land, are cancelled, corrected, deleted.

    Example: `naviglio demo advance --days 3`
    """
    from naviglio.demo.advance import advance as play

    with watching() as watch:
        reports = play(
            _application_url(), days,
            after_step=lambda day, name: watch.step(f"{day} {name}"),
        )  # fmt: skip
    rows: list[dict[str, object]] = [
        {"day": report.day.isoformat(), "table": table, "operation": operation, "rows": count}
        for report in reports
        for (table, operation), count in sorted(report.counts.items())
    ]

    def show(out: Console) -> None:
        from naviglio.cli.show import listing

        out.print(listing(rows))

    return Answer(data={"changes": rows}, show=show)


@app.command("run")
@answering
def run_demo() -> Answer:
    """Play the story without Airflow and Spark: seed, runs, backfill, reconcile; takes seconds.

    It begins afresh each time, in the embedded PostgreSQL: the demo's tables, its landing, its lake
    and its target schema are removed first; nothing else is.

    Example: `naviglio demo run`
    """
    home, pipeline = places.home(), places.pipeline_named(PIPELINE)
    with watching(lines=True) as watch:
        demo = _Demo(watch=watch)
        urls = _prepare(demo, home, pipeline)
        with _site(pipeline, home, urls, watch) as site:
            try:
                _play(demo, site, urls[APPLICATION])
            except NaviglioError as error:
                demo.errors.append(error)
    return _answer(demo, lambda out: _show(out, demo, urls["warehouse"]))


@app.command("play")
@answering
def play_demo() -> Answer:
    """Play the story through a running Airflow: what `make demo` does.

    Starts the embedded Airflow, or joins it, seeds, and has Airflow run the pipeline by its REST
    API: a first run, two days with a run each, a backfill of three days beside another run; each
    with its Spark transforms. Then all sides are compared. It begins afresh each time, as
    `naviglio demo run` does. Airflow goes on afterwards, for a look at its pages.

    Example: `naviglio demo play`
    """
    from naviglio.deployment import airflow
    from naviglio.deployment.rest import Airflow
    from naviglio.deployment.settings import ADMIN, place_of

    home, pipeline = places.home(), places.pipeline_named(PIPELINE)
    place, started = place_of(home, None, os.environ), False
    with watching(lines=True) as watch:
        demo = _Demo(watch=watch)
        urls = _prepare(demo, home, pipeline)
        api = Airflow(place)
        try:
            with demo.step("start Airflow"):
                started = airflow.start(place, watch.step).running
            _play_by_airflow(demo, api, urls[APPLICATION], pipeline.fence_margin_s)
            with demo.step("reconcile"), _site(pipeline, home, urls, watch) as site:
                from naviglio.cli.work import verdicts_of

                demo.verdicts, errors = verdicts_of(site, pipeline.landings)
                demo.errors += errors
        except NaviglioError as error:
            demo.errors.append(error)
        finally:
            api.close()

    def show(out: Console) -> None:
        _show(out, demo, urls["warehouse"])
        if started:
            out.print(f"Airflow runs at {place.url}: log in as {ADMIN}; `naviglio airflow "
                      "password` shows the password.", markup=False)  # fmt: skip

    return _answer(demo, show)


def _answer(demo: _Demo, show: Callable[[Console], None]) -> Answer:
    from naviglio.cli.work import verdict_data

    agreed = bool(demo.verdicts) and all(verdict.ok for verdict in demo.verdicts)
    return Answer(
        data={
            "steps": demo.steps,
            "verdicts": [verdict_data(verdict) for verdict in demo.verdicts],
            "ok": agreed and not demo.errors,
            "errors": [error_data(error)["error"] for error in demo.errors],
        },
        show=show,
        errors=demo.errors,
        exit_code=0 if demo.errors or agreed else 1,
    )


def _play_by_airflow(demo: _Demo, api: Airflow, application: str, margin_s: float) -> None:
    from naviglio.demo.advance import advance as play

    def ended(step: Step, *runs: str) -> None:
        for run in runs:
            found = api.ended(DAG, run)
            for name, counted in (("captured", "upserts"), ("captured", "deletes")):
                setattr(step, name, getattr(step, name) + found.counts.get(counted, 0))
            for name in ("inserted", "updated", "deleted"):
                setattr(step, name, getattr(step, name) + found.counts.get(name, 0))
            bad = [task for task, state in found.tasks.items() if state != "success"]
            if found.state != "success":
                raise TargetError(
                    f"run {run} ended as {found.state}; not done: {', '.join(bad)}. Look at its "
                    f"logs at {api.place.url}."
                )

    with demo.step("Airflow: first run") as step:
        api.pause(STARTER)  # an earlier demo has let it go
        api.ready(DAG)
        ended(step, api.trigger(DAG))
    for _ in range(DAYS - 1):
        with demo.step("play a day") as step:
            (report,) = play(application, 1)
            step.step = f"play {report.day}: {_changes(report.counts)}"
            time.sleep(margin_s + 0.1)
        with demo.step(f"Airflow: run for {report.day}") as step:
            ended(step, api.trigger(DAG))
    with demo.step("play a day") as step:
        known = api.runs(DAG)
        api.ready(STARTER)
        (report,) = play(application, 1)
        step.step = f"play {report.day}: its end starts a run"
        ended(step, api.next_run(DAG, known))
    with demo.step(f"Airflow: backfill {DAYS_AGAIN[0]} to {DAYS_AGAIN[1]}, a run beside") as step:
        backfill = api.backfill(DAG, *DAYS_AGAIN)
        ended(step, api.trigger(DAG), *api.runs_of(backfill, DAG))


def _prepare(demo: _Demo, home: Home, pipeline: Pipeline) -> dict[str, str]:
    """Start the server and remove what an earlier demo made; return the server's own URLs."""
    from naviglio.demo.fresh import clear_warehouse
    from naviglio.demo.seed import seed as load
    from naviglio.flows import embedded

    with demo.step("start PostgreSQL"):
        embedded.start(home)
    urls = dict(embedded.urls(home))
    with demo.step(f"seed until {SEED}"):
        for folder in (home.landing / pipeline.name, home.lake / pipeline.name):
            shutil.rmtree(folder, ignore_errors=True)
        schemas = {t.target.schema for group in pipeline.landings for t in group.tables}
        clear_warehouse(urls["warehouse"], pipeline.name, schemas - {"", "public"})
        load(
            urls[APPLICATION], SEED, lambda table, rows: demo.watch.tell("seed", table, rows),
            reset=True,
        )  # fmt: skip
    return urls


@contextmanager
def _site(pipeline: Pipeline, home: Home, urls: dict[str, str], watch: Watch) -> Iterator[Site]:
    """Open the pipeline on the embedded server, whatever the connections say: it is cleared."""
    from naviglio.connections.connections import Connections, variable_of
    from naviglio.flows.site import open_site

    own = Connections({variable_of(conn_id): url for conn_id, url in urls.items()}, None)
    with open_site(pipeline, home, own, watch.tell) as site:
        yield site


def _play(demo: _Demo, site: Site, application: str) -> None:
    from zoneinfo import ZoneInfo

    from naviglio.capture.table import Wish
    from naviglio.cli.work import carry, verdicts_of
    from naviglio.demo.advance import advance as play
    from naviglio.partitions import windows_between

    groups, everything = site.pipeline.groups, {"": Wish()}
    with demo.step("run: first capture") as step:
        _keep(demo, step, carry(site, groups, everything, demo.watch))
    for _ in range(DAYS):
        with demo.step("play a day") as step:
            (report,) = play(application, 1)
            step.step = f"play {report.day}: {_changes(report.counts)}"
            # What is younger than the fence's margin waits for the next run: let it age.
            time.sleep(site.pipeline.fence_margin_s + 0.1)
        with demo.step(f"run: changes of {report.day}") as step:
            _keep(demo, step, carry(site, groups, everything, demo.watch))
    zone = ZoneInfo(site.pipeline.time_zone)
    days = {key: Wish(windows=(w,)) for key, w in windows_between(*BACKFILL, zone).items()}
    timed = [g for g in groups if any(t.has_partitions for t in g.tables)]
    with demo.step(f"backfill {BACKFILL[0]} to {BACKFILL[1]}") as step:
        _keep(demo, step, carry(site, timed, days, demo.watch))
    with demo.step("reconcile"):
        demo.verdicts, errors = verdicts_of(site, groups)
        demo.errors += errors


def _keep(demo: _Demo, step: Step, ran: Ran) -> None:
    step.count(ran)
    demo.errors += ran.errors.values()


def _changes(counts: Mapping[tuple[str, Operation], int]) -> str:
    by: Counter[str] = Counter()
    for (_, operation), count in counts.items():
        by[operation] += count
    return f"{by['insert']} inserts, {by['update']} updates, {by['delete']} deletes"


def _application_url() -> str:
    from naviglio.connections.connections import Connections

    connections = Connections(os.environ, places.home().connections)
    try:
        return connections.url(APPLICATION)
    except ConfigError as error:
        raise ConfigError(f"{error} Or run `naviglio start` for the embedded server.") from None


def _psql() -> str:
    """Return the embedded server's own client, as it is called from here."""
    from naviglio.adapters.postgres.binaries import binary

    path, here = binary("psql"), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _show(out: Console, demo: _Demo, warehouse: str) -> None:
    from naviglio.cli.show import listing
    from naviglio.connections.urls import HIDDEN, safe

    if demo.verdicts:
        views.show_verdicts(out, demo.verdicts)
        out.print()
    total = Step(step="all")
    for step in demo.steps:
        for name in ("captured", "landed", "inserted", "updated", "deleted", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(step, name))
    rows = [dict(vars(step)) for step in [*demo.steps, total]]
    if not total.landed:  # Airflow's tasks don't tell
        rows = [{name: value for name, value in row.items() if name != "landed"} for row in rows]
    out.print(listing(rows))
    out.print()
    out.print("Try next:")
    address = safe(warehouse).replace(f":{HIDDEN}@", "@")
    for line in (
        f"naviglio status {PIPELINE}",
        f"naviglio history {PIPELINE} flights",
        f"naviglio demo advance --days 1; naviglio plan {PIPELINE}; naviglio run {PIPELINE}",
        f"naviglio reconcile {PIPELINE}",
        f'{_psql()} "{address}"   # the password is in {places.home().connections}',
        "make stop",
    ):
        out.print(f"  {line}", markup=False)
