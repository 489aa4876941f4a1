"""Nothing is lost at the watermark: ties, NULLs, late commits, prepared transactions, rights."""

from __future__ import annotations

from contextlib import closing
from urllib.parse import quote as escaped

import psycopg
import pytest

from naviglio import points
from naviglio.adapters.postgres.embedded import Cluster
from naviglio.errors import ConfigError, DataError
from naviglio.flows.validate import validate
from naviglio.lake.source import Source
from tests.integration.lines import STREAM, Line, error_of

TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, name text, modified_at timestamptz DEFAULT now())"


@pytest.fixture
def streamed(line: Line) -> Line:
    """A line whose table has been carried once."""
    line.declare(t=STREAM)
    line.source(TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 10) n")
    line.run()
    return line


def test_a_transaction_that_commits_late_is_not_lost(streamed: Line) -> None:
    """Pain 1 of the peers, late commits under the watermark: they arrive with the next run."""
    with streamed.open_source() as late:
        late.execute("INSERT INTO t VALUES (100, 'late')")
        streamed.source("INSERT INTO t VALUES (101, 'early')")
        streamed.run()
        assert "100" not in {row[0] for row in streamed.target_rows()}
        assert streamed.reconcile()[0].ok
        late.commit()
    streamed.source("INSERT INTO t VALUES (102, 'after')")
    streamed.run()
    assert streamed.agrees()


def test_files_of_changes_tell_the_bounds_of_their_keys(streamed: Line) -> None:
    """The lake's MERGE passes over the files that lie outside of them."""
    streamed.source("UPDATE t SET name = 'b', modified_at = now() WHERE id IN (3, 7)")
    streamed.run()
    [part] = streamed.batches()[-1].parts
    assert Source(part, str(streamed.landing_of())).bounds(part.schema.column("id")) == (3, 7)


def test_a_transaction_that_writes_late_is_not_lost(streamed: Line) -> None:
    """Open without having written (no xid): its now() is its start all the same."""
    with streamed.open_source() as late:
        late.execute("SELECT now()")
        streamed.source("INSERT INTO t VALUES (101, 'early')")
        streamed.run()
        late.execute("UPDATE t SET name = 'late', modified_at = now() WHERE id = 1")
        streamed.run()
        late.commit()
    streamed.run()
    assert streamed.agrees()


def test_a_first_capture_beside_a_long_transaction_loses_nothing(line: Line) -> None:
    """The stream begins at the open transaction's start, not at the snapshot."""
    line.declare(t=STREAM)
    line.source(TABLE)
    with line.open_source() as late:
        late.execute("INSERT INTO t VALUES (100, 'late')")
        line.source("INSERT INTO t VALUES (1, 'early')")
        line.run()
        late.commit()
    line.run()
    assert line.agrees()


@pytest.mark.parametrize("at", [name for name in points.NAMES if name.startswith("capture")])
def test_rows_that_come_at_any_moment_of_a_capture_are_not_lost(streamed: Line, at: str) -> None:
    """Were the snapshot taken before the fence, those between would be passed for ever."""
    came: list[str] = []

    def write(point: str) -> None:
        if point == at and not came:
            streamed.source("INSERT INTO t VALUES (77, 'between', now())")
            came.append(point)

    streamed.source("INSERT INTO t VALUES (76, 'before', now())")
    with points.listening(write):
        streamed.run()
    streamed.run()
    assert came == [at]
    assert streamed.agrees()


def test_ties_at_the_watermark_arrive_once(streamed: Line) -> None:
    """Rows of one very time, some committed below the fence and some above: none is skipped."""
    with streamed.open_source() as one, streamed.open_source() as two:
        two.execute("SELECT")
        [(moment,)] = one.execute("SELECT clock_timestamp()::text").fetchall()
        for at, session in ((200, one), (201, two)):
            session.execute(f"INSERT INTO t VALUES ({at}, 'tie', '{moment}')".encode())
        one.commit()
        streamed.run()
        two.commit()
    streamed.run()
    assert streamed.agrees()
    streamed.source("INSERT INTO t VALUES (203, 'x', now())")
    streamed.run()
    assert streamed.agrees()


def test_a_position_equal_to_a_rows_time_includes_it(streamed: Line) -> None:
    """The position itself is not landed yet: a row exactly there comes with the next batch."""
    point = streamed.batches()[-1].position.tables["t"].stream
    assert point is not None
    streamed.source(
        f"INSERT INTO t VALUES (300, 'on it', to_timestamp({point // 1_000_000_000}) + "
        f"{point // 1000 % 1_000_000} * interval '1 microsecond')"
    )
    streamed.run()
    assert streamed.agrees()


def test_a_prepared_transaction_holds_the_fence(streamed: Line) -> None:
    """Nothing moves while it is prepared; all comes when it is committed."""
    gid = f"g_{streamed.name}"
    with streamed.open_source() as two:
        two.execute("INSERT INTO t VALUES (100, 'prepared')")
        two.execute(f"PREPARE TRANSACTION '{gid}'".encode())
    try:
        streamed.source("INSERT INTO t VALUES (101, 'beside')")
        report = streamed.run()
        assert report.batch is None
    finally:
        streamed.source(f"COMMIT PREPARED '{gid}'")
    streamed.run()
    assert streamed.agrees()


def test_a_role_that_can_not_see_others_is_told_the_grant(streamed: Line, cluster: Cluster) -> None:
    """Without it the fence would be blind; a declared lag does instead, and is on record."""
    role = f"blind_{streamed.name}"
    with psycopg.connect(cluster.urls()["admin"], dbname="operations", autocommit=True) as admin:
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'blind-secret'",
            f"GRANT CONNECT ON DATABASE operations TO {role}",
            f"GRANT USAGE ON SCHEMA {streamed.name} TO {role}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {streamed.name} TO {role}",
        ):
            admin.execute(statement.encode())
        try:
            place = streamed.urls["operations"].split("@")[1]
            streamed.urls["operations"] = f"postgresql://{role}:{escaped('blind-secret')}@{place}"
            streamed.source("INSERT INTO t VALUES (100, 'x')")
            before = streamed.traces()
            error = error_of(streamed.try_run())
            assert isinstance(error, ConfigError)
            assert f'GRANT pg_read_all_stats TO "{role}"' in str(error)
            assert streamed.traces() == before
            streamed.declare(head="fence_margin: 0s\nsafety_lag: 500ms", t=STREAM)
            streamed.source("SELECT pg_sleep(0.6)")
            streamed.run()
            assert streamed.batches()[-1].fence.safety_lag_s == 0.5
            admin.execute(f"GRANT pg_read_all_stats TO {role}".encode())
            streamed.declare(head="fence_margin: 0s", t=STREAM)
            streamed.run()
        finally:
            admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_rows_without_a_time_are_refused_by_count(streamed: Line) -> None:
    """Unless the pipeline says what to do with them, nothing lands."""
    streamed.source("INSERT INTO t VALUES (100, 'x', NULL), (101, 'x', now())")
    before = streamed.traces()
    error = error_of(streamed.try_run())
    assert isinstance(error, DataError)
    assert "'modified_at' is NULL in 1 of its rows" in str(error)
    assert "nulls: read" in str(error)
    assert streamed.traces() == before
    streamed.source("UPDATE t SET modified_at = now() WHERE modified_at IS NULL")
    streamed.run()
    assert streamed.agrees()


NO_TIME = "INSERT INTO t VALUES (100, 'x', NULL)"
FAR = "INSERT INTO t VALUES (100, 'x', now() + interval '3 days')"


@pytest.mark.parametrize(("statement", "said"), [(NO_TIME, "is NULL"), (FAR, "a day ahead")])
def test_rows_that_no_stream_would_see_are_told_before_a_run(
    streamed: Line, statement: str, said: str
) -> None:
    """By `plan` and by `validate --connect`, in the run's own words."""
    streamed.source(statement, "INSERT INTO t VALUES (101, 'x', now())")
    with closing(streamed.site()) as site:
        [check] = validate(site)
    with pytest.raises(DataError, match=said) as told:
        streamed.plan()
    assert check.problems == (str(told.value),)
    assert said in str(error_of(streamed.try_run()))


def test_rows_that_no_window_would_hold_are_told_before_a_run(line: Line) -> None:
    """A table by windows needs an event time in every row."""
    line.declare(t="{capture: windows, event_time: modified_at, since: 2013-01-01}")
    line.source(TABLE, NO_TIME)
    with closing(line.site()) as site:
        [check] = validate(site)
    with pytest.raises(DataError, match="no window would ever hold"):
        line.plan()
    assert "is NULL in 1 of its rows" in check.problems[0]


def test_rows_without_a_time_are_read_each_time(line: Line) -> None:
    """With `nulls: read` they arrive, and their changes too."""
    line.declare(t="{capture: {where: modified_at}, deletes: none, nulls: read}")
    line.source(TABLE, "INSERT INTO t VALUES (1, 'x', NULL), (2, 'x', now())")
    line.run()
    line.source("UPDATE t SET name = 'changed' WHERE id = 1", "INSERT INTO t VALUES (3, 'y', NULL)")
    line.run()
    assert line.lake_rows() == line.source_rows() == line.target_rows()


def test_rows_without_a_time_are_left_out(line: Line) -> None:
    """With `nulls: ignore` they don't arrive until they have one."""
    line.declare(t="{capture: {where: modified_at}, deletes: none, nulls: ignore, event_time: at}")
    line.source(
        TABLE, "ALTER TABLE t ADD at timestamptz DEFAULT '2013-01-05'",
        "INSERT INTO t VALUES (1, 'x', NULL), (2, 'x', now())",
    )  # fmt: skip
    line.run()
    line.partitions("2013-01-05")  # nor by a window
    assert line.agrees(where="modified_at IS NOT NULL")
    assert all(verdict.ok for verdict in line.reconcile())
    line.source("UPDATE t SET modified_at = now() WHERE id = 1")
    line.run()
    assert line.agrees()


@pytest.mark.parametrize("kind", ["timestamptz(3)", "timestamptz(0)"])
def test_a_coarser_clock_loses_no_rows(line: Line, kind: str) -> None:
    """A time cut to whole seconds may lie below its transaction's start, so the fence waits."""
    line.declare(t=STREAM)
    line.source(
        TABLE.replace("timestamptz DEFAULT now()", f"{kind} DEFAULT now()"),
        "INSERT INTO t VALUES (1, 'a')",
    )
    line.run()
    for number in range(2, 6):
        line.source(f"INSERT INTO t VALUES ({number}, 'a')")
        line.run()
    line.source("SELECT pg_sleep(1.6)")
    line.run()
    assert line.agrees()


@pytest.mark.parametrize("at", ["-infinity", "0044-03-15 BC", "1900-01-01"])
def test_a_row_below_the_stream_is_told_as_missing(streamed: Line, at: str) -> None:
    """Also where its time is one that no carrier holds: no later run brings it."""
    streamed.source(f"INSERT INTO t VALUES (9999, 'lost', '{at}')")
    streamed.run()
    [lake, _] = streamed.reconcile()
    assert (lake.missing.keys, lake.in_flight.count) == (("9999",), 0)


@pytest.mark.parametrize("deletes", ["none", "sweep"])
def test_a_materialized_view_is_no_stream(line: Line, deletes: str) -> None:
    """A row comes to it at the next refresh, which may be after the fence passed its time."""
    line.source(
        TABLE.replace("TABLE t", "TABLE base"), "CREATE MATERIALIZED VIEW t AS SELECT * FROM base",
        "CREATE UNIQUE INDEX ON t (id)", "GRANT SELECT ON t TO naviglio_source",
    )  # fmt: skip
    line.declare(t=f"{{capture: {{where: modified_at}}, deletes: {deletes}, key: [id]}}")
    assert "is a materialized view: rows come to it later" in str(error_of(line.try_run()))
    line.declare(t="{capture: diff, key: [id]}")
    line.source("INSERT INTO base VALUES (1, 'a')", "REFRESH MATERIALIZED VIEW t")
    line.run()
    assert line.agrees()
