"""How status and its relatives tell positions, windows and attempts; the landing is a real one."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from naviglio.config.home import Home
from naviglio.connections.connections import Connections
from naviglio.errors import ConfigError
from naviglio.flows.accept import accept, open_questions
from naviglio.flows.history import history
from naviglio.flows.site import Site
from naviglio.flows.status import point_text, status
from naviglio.landing.landing import Landing
from naviglio.model import (
    Column,
    Coverage,
    Fence,
    Group,
    Manifest,
    Part,
    Pipeline,
    Place,
    Position,
    Question,
    TableName,
    TablePosition,
    TableSchema,
    TableSpec,
)
from naviglio.partitions import windows_between

ROME = ZoneInfo("Europe/Rome")
NOW = datetime(2024, 3, 5, 12, tzinfo=UTC)
TABLE = TableSpec(
    name="t", source=TableName(schema="", table="t"), target=TableName(schema="m", table="t"),
    key=("id",), way="windows", event_time="at", since="2024-03-01",
)  # fmt: skip
STREAM = TableSpec(
    name="s", source=TableName(schema="", table="s"), target=TableName(schema="m", table="s"),
    key=("id",), way="stream", modified="at",
)  # fmt: skip
GROUP = Group(name="g", tables=(TABLE, STREAM))
SCHEMA = TableSchema(
    columns=(
        Column(name="id", kind="int64", carrier="int64", source_type="bigint"),
        Column(
            name="at",
            kind="timestamptz",
            carrier="timestamp[us, tz=UTC]",
            source_type="timestamptz",
        ),
    ),
    key=("id",),
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site whose source and target nobody knows."""
    pipeline = Pipeline(
        name="p", source="away", target="away", time_zone="Europe/Rome", groups=(GROUP,)
    )
    home = Home(root=tmp_path, pipelines=tmp_path)
    return Site(pipeline=pipeline, home=home, connections=Connections({}, None))


def land(site: Site, number: int, *parts: Part, days: tuple[str, str] | None = None) -> Manifest:
    """Commit a batch, with coverage of these days."""
    landing = site.landing(GROUP)
    identity, head = landing.found(), landing.head()
    assert head.number == number - 1
    windows = windows_between(*days, ROME).values() if days else ()
    coverage = tuple(
        Coverage(window=w, batch=number, read_at_utc=NOW, rows=1, checksum=1, spec="x")
        for w in windows
    )
    position = Position(
        place=Place(incarnation="a", order=number),
        tables={
            "t": TablePosition(way="windows at", coverage=coverage),
            "s": TablePosition(way="stream at", stream=nanoseconds(NOW), schema=SCHEMA),
        },
    )
    with landing.attempt(head) as attempt:
        manifest = Manifest(
            group="g", number=number, attempt=attempt.id, landing=identity, previous=head.sha256,
            created_at_utc=NOW, fence=Fence(point=nanoseconds(NOW)), parts=parts, position=position,
        )  # fmt: skip
        landing.commit(attempt, manifest)
    return manifest


def nanoseconds(moment: datetime) -> int:
    """Return a moment as a point."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def intend(landing: Landing, number: int, attempt: str, host: str, pid: int) -> None:
    """Leave the traces of an attempt."""
    data = msgspec.json.encode({"host": host, "pid": pid, "number": number, "attempt": attempt})
    landing.store.create(f"data/{number:010d}-{attempt}/intent.json", data)


def question(table: str, head: int) -> Question:
    """Return a question at a head."""
    return Question(
        group="g", table=table, kind="mass delete" if head else "identity", head=head,
        text="many are gone", found="5", asked_at_utc=NOW,
    )  # fmt: skip


def test_a_point_is_a_moment_unless_its_column_is_none() -> None:
    """Microseconds are kept; a number without a time stays a number."""
    number = TableSchema(
        columns=(Column(name="at", kind="int64", carrier="int64", source_type="bigint"),),
        key=("at",),
    )
    assert point_text(SCHEMA, STREAM, None) is None
    assert point_text(SCHEMA, STREAM, 1_000) == "1970-01-01T00:00:00.000001+00:00"
    assert point_text(number, STREAM, 1_000) == "1000"


def test_status_of_sides_that_are_away_tells_what_the_landing_knows(site: Site) -> None:
    """Columns of the others are empty, with the reason; gaps count to the last known fence."""
    land(site, 1, days=("2024-03-01", "2024-03-02"))
    found = status(site)
    assert set(found.away) == {"source", "target"}
    windows, stream = found.tables
    assert (windows.batch, windows.gaps) == (1, ("2024-03-03..2024-03-04",))
    assert windows.position == "2024-03-02T23:00:00+00:00"
    assert stream.position == NOW.isoformat()
    assert stream.behind_s is not None
    assert stream.behind_s > 0
    assert stream.gaps == ()
    assert (stream.lake_batch, stream.lake_version, stream.target_batch) == (None, None, None)


def test_attempts_without_a_batch_are_told_by_their_state(site: Site) -> None:
    """Taken numbers and dead processes are dead; a batch's own attempt is none of them."""
    landing = site.landing(GROUP)
    own = land(site, 1).attempt
    intend(landing, 1, "loser", socket.gethostname(), os.getpid())
    intend(landing, 2, "running", socket.gethostname(), os.getpid())
    intend(landing, 2, "killed", socket.gethostname(), 2**22 - 1)
    intend(landing, 2, "abroad", "another.host", 1)
    found = {(a.number, a.attempt): a.state for a in status(site).attempts}
    assert (1, own) not in found
    assert found == {
        (1, "loser"): "dead", (2, "running"): "running", (2, "killed"): "dead",
        (2, "abroad"): "elsewhere",
    }  # fmt: skip


def test_questions_are_those_at_the_head_and_of_identity(site: Site) -> None:
    """An answer closes its question; one asked at an older head is over."""
    landing = site.landing(GROUP)
    land(site, 1)
    landing.ask(question("t", 1))
    land(site, 2)
    landing.ask(question("t", 2))
    landing.ask(question("s", 0))
    assert [(q.table, q.head) for q in open_questions(site, GROUP)] == [("s", 0), ("t", 2)]
    accept(site, GROUP, [question("t", 2)], by="a tester")
    assert [q.table for q in open_questions(site, GROUP)] == ["s"]
    assert status(site).questions == (question("s", 0),)


def test_history_goes_back_until_it_has_enough_batches_of_the_table(site: Site) -> None:
    """Newest first, over any number of batches that don't touch the table."""
    day = windows_between("2024-03-01", "2024-03-01", ROME)["2024-03-01"]
    mine = Part(table="t", kind="window", schema=SCHEMA, upserts=3, windows=(day,))
    other = Part(table="s", kind="stream", schema=SCHEMA, upserts=1)
    for number in range(1, 12):
        land(site, number, mine if number in (1, 2) else other)
    found = history(site, GROUP, TABLE, 1)
    assert [(b.number, b.upserts, b.windows) for b in found.batches] == [(2, 3, ("2024-03-01",))]
    assert [b.number for b in history(site, GROUP, TABLE, 5).batches] == [2, 1]
    assert [b.number for b in history(site, GROUP, STREAM, 3).batches] == [11, 10, 9]
    assert found.versions == ()


def test_history_of_nothing_is_empty(site: Site) -> None:
    """No landing is made by looking."""
    assert history(site, GROUP, TABLE, 5).batches == ()
    assert not site.home.landing.exists()


def test_only_errors_for_people_make_a_side_away(site: Site) -> None:
    """The reason names the connection."""
    with pytest.raises(ConfigError):
        site.source  # noqa: B018 - opening is the point
    assert "'away'" in status(site).away["source"]
