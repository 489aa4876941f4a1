"""Deletes that would empty a table wait for a person."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from naviglio.capture.table import Wish
from naviglio.errors import QuestionError
from naviglio.flows.capture import capture
from naviglio.flows.history import history
from tests.integration.lines import DIFF, STREAM, SWEPT, Line, error_of

WINDOWS = "{capture: windows, event_time: day, since: SINCE}"
MARKED = "{capture: {where: modified_at}, deletes: {column: gone}}"
WAYS = {"sweep": SWEPT, "diff": DIFF, "windows": WINDOWS}
TABLE = (
    "CREATE TABLE t (id bigint PRIMARY KEY, name text, day timestamptz NOT NULL DEFAULT now() - "
    "interval '2 days', modified_at timestamptz NOT NULL DEFAULT now())"
)


def filled(line: Line, way: str, rows: int = 300) -> None:
    """Carry a table once."""
    [(since,)] = line.source("SELECT (now() - interval '4 days')::date::text")
    line.declare(t=way.replace("SINCE", since))
    line.source(TABLE, f"INSERT INTO t SELECT n, 'name' FROM generate_series(1, {rows}) n")
    line.run()


def asked(line: Line, found: str, *, whole: bool = False) -> None:
    """Run; expect a question about deletes, and nothing landed."""
    before = line.traces()
    with pytest.raises(QuestionError, match=found) as raised:
        if whole:
            line.resnapshot()
        else:
            line.verify()
    assert f"naviglio accept {line.name} --table t" in str(raised.value)
    assert line.traces() == before
    assert {q.kind for q in line.questions()} == {"mass delete"}


@pytest.mark.parametrize("way", WAYS)
def test_many_deletes_are_asked_and_land_when_accepted(line: Line, way: str) -> None:
    """The question holds; accepted, exactly these deletes land."""
    filled(line, WAYS[way])
    line.source("DELETE FROM t WHERE id > 100")
    asked(line, "200 of 300")
    asked(line, "200 of 300")
    line.accept()
    assert line.questions() == []
    line.verify()
    assert line.agrees()
    assert len(line.target_rows()) == 100
    [(group, table)] = [(g, t) for g in line.pipeline.landings for t in g.tables]
    told = [entry.accepted for entry in history(line.site(), group, table, 10).batches]
    assert [len(one) for one in told] == [1, *[0] * (len(told) - 1)]
    assert told[0][0].startswith("mass delete by a tester at ")


@pytest.mark.parametrize("way", WAYS)
def test_more_deletes_than_accepted_are_asked_again(line: Line, way: str) -> None:
    """An answer covers as many as it was given for; fewer pass."""
    filled(line, WAYS[way])
    line.source("DELETE FROM t WHERE id > 150")
    asked(line, "150 of 300")
    line.accept()
    line.source("DELETE FROM t WHERE id > 140")
    asked(line, "160 of 300")
    line.source("INSERT INTO t SELECT n, 'name' FROM generate_series(141, 155) n")
    line.verify()
    assert line.agrees()


@pytest.mark.parametrize("way", WAYS)
def test_few_deletes_pass(line: Line, way: str) -> None:
    """Both limits must be passed: 61 of 300 are more than a fifth and less than a hundred."""
    filled(line, WAYS[way])
    line.source("DELETE FROM t WHERE id > 239")
    line.verify()
    assert line.agrees()


@pytest.mark.parametrize("way", [SWEPT, DIFF])
def test_a_table_that_turned_empty_is_asked_however_small(line: Line, way: str) -> None:
    """Three rows of three are a question; rows that come back withdraw it."""
    filled(line, way, rows=3)
    line.source("CREATE TABLE kept AS TABLE t", "DELETE FROM t")
    asked(line, "3 of 3")
    line.source("INSERT INTO t TABLE kept")
    line.run()
    assert line.questions() == []
    assert line.agrees()
    line.source("DELETE FROM t")
    asked(line, "3 of 3")
    line.accept()
    line.run()
    assert line.agrees()
    assert line.target_rows() == set()


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_is_over_once_the_rows_are_back(line: Line, way: str) -> None:
    """Accepted and then restored: other rows that vanish later are asked about anew."""
    filled(line, WAYS[way])
    line.source("CREATE TABLE copy AS SELECT * FROM t", "DELETE FROM t WHERE id > 100")
    asked(line, "200 of 300")
    line.accept()
    line.source("INSERT INTO t SELECT * FROM copy WHERE id > 100")
    line.verify()
    line.source("DELETE FROM t WHERE id <= 150")
    asked(line, "150 of 300")


def test_a_run_that_looks_for_no_deletes_leaves_an_answer(line: Line) -> None:
    """Between the answer and the next `--verify`, runs that only read new days come and go."""
    filled(line, WINDOWS)
    line.source("DELETE FROM t WHERE id > 100")
    asked(line, "200 of 300")
    line.accept()
    line.run()
    line.verify()
    assert len(line.target_rows()) == 100


def test_days_of_a_stream_that_turned_empty_are_asked(line: Line) -> None:
    """A partition run over what the source has pruned would delete it here, without coverage."""
    filled(line, "{capture: {where: modified_at}, deletes: none, event_time: day}")
    [(day,)] = line.source("SELECT (min(day) AT TIME ZONE 'UTC')::date::text FROM t")
    line.source("DELETE FROM t WHERE id > 100")
    before = line.traces()
    with pytest.raises(QuestionError, match="200 of 300"):
        line.partitions(day)
    assert line.traces() == before
    line.accept()
    line.partitions(day)
    assert line.agrees()


@pytest.mark.parametrize("way", [STREAM, SWEPT, DIFF, WINDOWS])
def test_a_resnapshot_of_an_emptied_table_is_asked(line: Line, way: str) -> None:
    """Reading whole is no way around the guard, whatever way the rows had come."""
    filled(line, way)
    line.source("DELETE FROM t")
    asked(line, "300 of 300", whole=True)
    line.accept()
    line.resnapshot()
    assert line.agrees()
    assert line.target_rows() == set()


def test_rows_that_came_as_a_stream_count_for_the_guard(line: Line) -> None:
    """A table that was small when it was read whole, and has grown since, is guarded as grown."""
    filled(line, STREAM, rows=1)
    line.source("INSERT INTO t SELECT n, 'name' FROM generate_series(2, 300) n")
    line.run()
    line.source("DELETE FROM t WHERE id > 1")
    asked(line, "299 of 300", whole=True)
    line.accept()
    line.resnapshot()
    assert line.agrees()


def test_deletes_that_landed_are_not_asked_again(line: Line) -> None:
    """A resnapshot after an accepted sweep compares with what was left."""
    filled(line, SWEPT)
    line.source("DELETE FROM t WHERE id > 100")
    asked(line, "200 of 300")
    line.accept()
    line.run()
    line.resnapshot()
    assert line.agrees()


def test_limits_are_the_pipelines_to_choose(line: Line) -> None:
    """A table may ask at one row, or never but when it is empty."""
    filled(line, "{capture: diff, mass_delete: {fraction: 0, rows: 0}}", rows=10)
    line.source("DELETE FROM t WHERE id = 1")
    asked(line, "1 of 10")
    line.declare(t="{capture: diff, mass_delete: {fraction: 1, rows: 0}}")
    line.source("DELETE FROM t WHERE id < 10")
    line.run()
    assert line.agrees()


def test_marks_of_rows_that_never_came_are_not_asked(line: Line) -> None:
    """A queue, whose rows come and are done between two captures, loses nothing by that."""
    line.declare(t="{capture: {where: modified_at}, deletes: {column: gone}}")
    line.source(
        "CREATE TABLE t (id bigserial PRIMARY KEY, gone boolean NOT NULL DEFAULT false, "
        "modified_at timestamptz NOT NULL DEFAULT now())",
        "INSERT INTO t (gone) VALUES (false), (false)",
    )
    line.run()
    for _ in range(2):
        line.source("INSERT INTO t (gone) SELECT true FROM generate_series(1, 10)")
        line.run()
        assert line.agrees(where="NOT gone")


def test_many_marks_of_deletion_are_asked(line: Line) -> None:
    """A statement without its WHERE that marks most rows deletes them here as well."""
    line.declare(t="{capture: {where: modified_at}, deletes: {column: gone}}")
    line.source(
        "CREATE TABLE t (id bigint PRIMARY KEY, gone boolean NOT NULL DEFAULT false, "
        "modified_at timestamptz NOT NULL DEFAULT now())",
        "INSERT INTO t SELECT n FROM generate_series(1, 300) n",
    )
    line.run()
    mark = "UPDATE t SET gone = true, modified_at = now()"
    line.source(f"{mark} WHERE id > 240")
    line.run()
    assert len(line.target_rows()) == 240
    line.source(f"{mark} WHERE id BETWEEN 101 AND 240", "INSERT INTO t VALUES (301)")
    before = line.traces()
    with pytest.raises(QuestionError, match="140 of 241"):
        line.run()
    assert line.traces() == before
    line.accept()
    line.run()
    assert line.agrees(where="NOT gone")


def past_day(line: Line) -> str:
    """Return the day on which rows of TABLE stand."""
    [(day,)] = line.source("SELECT ((now() - interval '2 days') AT TIME ZONE 'UTC')::date::text")
    return str(day)


@pytest.mark.parametrize("way", [STREAM, MARKED])
def test_a_day_is_asked_by_what_the_lake_holds_of_it(line: Line, way: str) -> None:
    """Not by what the day held when it was read before: a stream has brought rows since."""
    line.declare(t=way.replace("}, deletes", "}, event_time: day, deletes"))
    line.source(TABLE, "ALTER TABLE t ADD gone bool NOT NULL DEFAULT false")
    line.run()
    line.partitions(past_day(line))  # it is empty
    line.source("INSERT INTO t SELECT n, 'late' FROM generate_series(1, 300) n")
    line.run()
    line.partitions(past_day(line)) if way == MARKED else None
    marked = "UPDATE t SET gone = true, modified_at = now()"
    line.source(marked if way == MARKED else "DELETE FROM t")
    with pytest.raises(QuestionError, match="300 of 300"):
        line.partitions(past_day(line))
    assert len(line.target_rows()) == 300


@pytest.mark.parametrize("change", ["ADD COLUMN more int DEFAULT 7", "DROP COLUMN name"])
def test_a_whole_reading_that_a_drift_brings_is_guarded(line: Line, change: str) -> None:
    """By all rows of the lake, whatever brought them; an accepted drift is no answer to it."""
    line.declare(t=STREAM)
    line.source(TABLE)
    for first in range(1, 1000, 200):
        line.source(f"INSERT INTO t SELECT n, 'a' FROM generate_series({first}, {first + 199}) n")
        line.run()
    line.source("DELETE FROM t WHERE id > 100", f"ALTER TABLE t {change}")
    if "DROP" in change:
        assert "schema drifted" in str(error_of(line.try_run()))
        line.accept()
    with pytest.raises(QuestionError, match="900 of 1000"):
        line.run()


def test_an_answer_about_a_day_lets_no_other_deletes_land(line: Line) -> None:
    """A live run that finds fewer deletes asks for itself, and the day's answer stays."""
    line.declare(t=MARKED.replace("}, deletes", "}, event_time: day, deletes"))
    line.source(
        TABLE, "ALTER TABLE t ADD gone bool NOT NULL DEFAULT false",
        "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 300) n",
        "INSERT INTO t SELECT n, 'b', now() - interval '9 days' FROM generate_series(1001, 1600) n",
    )  # fmt: skip
    line.run()
    line.source("DELETE FROM t WHERE id <= 250")
    with pytest.raises(QuestionError, match="250 of 300"):
        line.partitions(past_day(line))
    line.accept()
    line.source("UPDATE t SET gone = true, modified_at = now() WHERE id BETWEEN 1001 AND 1240")
    with pytest.raises(QuestionError, match="240 of 900"):
        line.run()
    line.partitions(past_day(line))
    assert len(line.target_rows()) == 650


def test_a_guard_without_its_lake_goes_by_what_was_covered(line: Line, tmp_path: Path) -> None:
    """While the lake is away, or lacks a batch, its rows tell nothing."""
    line.declare(t=STREAM.replace("}, deletes", "}, event_time: day, deletes"))
    line.source(TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 300) n")
    line.run()
    line.partitions(past_day(line))
    line.source("DELETE FROM t WHERE id > 10")
    line.lake_of().rename(tmp_path / "away")
    with pytest.raises(QuestionError, match="290 of 300"):
        line.partitions(past_day(line))


def test_an_accepted_day_stays_accepted_beside_another(line: Line) -> None:
    """An answer names the days that lose rows: one more that is read with them changes nothing."""
    filled(line, WINDOWS)
    line.source("DELETE FROM t WHERE id > 100")
    asked(line, "200 of 300")
    line.accept()
    line.source(
        "INSERT INTO t (id, name, day) SELECT 1000 + n, 'x', now() - interval '1 day' * (2 + n % 2)"
        " FROM generate_series(1, 20) n"
    )
    line.verify()
    assert line.agrees()


def test_a_guard_whose_lake_lacks_a_batch_goes_by_the_rest(line: Line) -> None:
    """A batch that was captured and not applied yet takes nothing from what is known."""
    line.declare(t=STREAM.replace("}, deletes", "}, event_time: day, deletes"))
    line.source(TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 300) n")
    line.run()
    line.source("INSERT INTO t VALUES (999, 'b')", "SELECT pg_sleep(0.1)")
    with closing(line.site()) as site:
        assert capture(site, site.pipeline.groups[0], Wish()) is not None  # and was killed
    line.source("DELETE FROM t WHERE id <= 300")
    with pytest.raises(QuestionError, match="299 of 300"):
        line.partitions(past_day(line))


def test_rows_that_went_by_an_answer_are_not_counted_again(line: Line) -> None:
    """What is known is what the lake holds now, not what it once held."""
    line.declare(t=STREAM.replace("}, deletes", "}, event_time: day, deletes"))
    line.source(TABLE, "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 1000) n")
    line.run()
    line.source("DELETE FROM t WHERE id > 300")
    with pytest.raises(QuestionError, match="700 of 1000"):
        line.partitions(past_day(line))
    line.accept()
    line.partitions(past_day(line))
    line.resnapshot()
    assert line.agrees()
