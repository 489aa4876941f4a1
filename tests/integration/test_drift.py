"""Schemas that change: what is added evolves by itself, all else is asked."""

from __future__ import annotations

import pytest

from naviglio.capture.table import Wish
from naviglio.errors import ConfigError, QuestionError
from tests.integration.lines import DIFF, STREAM, SWEPT, Line, error_of, window

WINDOWS = "{capture: windows, event_time: day, since: SINCE}"
WAYS = {"stream": STREAM, "sweep": SWEPT, "diff": DIFF, "windows": WINDOWS}
TABLE = (
    "CREATE TABLE t (id bigint PRIMARY KEY, name text, day timestamptz NOT NULL DEFAULT now() - "
    "interval '2 days', modified_at timestamptz NOT NULL DEFAULT now())"
)


@pytest.fixture(params=WAYS)
def carried(request: pytest.FixtureRequest, line: Line) -> Line:
    """A line whose table has been carried once, in each way."""
    [(since,)] = line.source("SELECT (now() - interval '4 days')::date::text")
    line.declare(t=WAYS[request.param].replace("SINCE", since))
    line.source(TABLE, "INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 20) n")
    line.run()
    return line


@pytest.fixture
def streamed(line: Line) -> Line:
    """A line whose table has been carried once, as a stream."""
    line.declare(t=STREAM)
    line.source(TABLE, "INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 20) n")
    line.run()
    return line


def asked(line: Line, *words: str) -> None:
    """Run; expect a question with these words, and nothing landed."""
    before = line.traces()
    error = error_of(line.try_run())
    assert isinstance(error, QuestionError), error
    for word in (*words, "Nothing was landed", f"naviglio accept {line.name} --table t"):
        assert word in str(error), error
    assert line.traces() == before
    assert [q.kind for q in line.questions()] == ["drift"]


def test_an_added_column_arrives_with_all_its_values(carried: Line) -> None:
    """Without a default, filled in one row: lake and target get the column and the value."""
    carried.source(
        "ALTER TABLE t ADD COLUMN extra text",
        "UPDATE t SET extra = 'x', modified_at = now() WHERE id = 3",
    )
    carried.verify()
    assert carried.agrees()
    assert [part.drift for part in carried.batches()[-1].parts] == [("column 'extra' added",)]


def test_an_added_column_with_a_default_reaches_rows_that_did_not_change(carried: Line) -> None:
    """A default changes all rows without touching a modification time; none keeps a NULL."""
    carried.source(
        "ALTER TABLE t ADD COLUMN state varchar(5) NOT NULL DEFAULT 'new'",
        "ALTER TABLE t ADD COLUMN price numeric(9, 2) DEFAULT 1.50",
        "INSERT INTO t VALUES (99, 'later')",
    )
    carried.run()
    assert carried.agrees()


def test_columns_added_one_after_the_other_between_loads(streamed: Line) -> None:
    """Each batch evolves the lake; a target that was left behind gets all columns at once."""
    streamed.target("ALTER TABLE t RENAME TO away")
    for number in range(2):
        streamed.source(
            f"ALTER TABLE t ADD COLUMN c{number} int DEFAULT {number}",
            f"INSERT INTO t (id) VALUES ({200 + number})",
        )
        assert isinstance(error_of(streamed.try_run()), ConfigError)  # the target is gone
    streamed.target("ALTER TABLE away RENAME TO t")
    streamed.run()
    assert streamed.agrees()


def test_a_removed_column_is_asked_and_accepted(carried: Line) -> None:
    """Accepted, the table is read whole; what the column held before stays in older versions."""
    carried.source("ALTER TABLE t DROP COLUMN name", "INSERT INTO t VALUES (99)")
    asked(carried, "column 'name' removed")
    asked(carried, "column 'name' removed")
    assert (carried.plan().action, carried.plan(Wish(verify=True)).action) == ("ask", "ask")
    assert "column 'name' removed" in carried.plan().why
    carried.accept()
    assert (carried.plan().action, carried.plan().rows) == ("whole", 21)
    carried.run()
    assert carried.lake_rows() == carried.source_rows() == carried.target_rows()
    assert [v for v in carried.reconcile() if not v.ok or v.in_flight.count] == []
    carried.source("INSERT INTO t VALUES (100)")
    carried.verify()
    assert carried.lake_rows() == carried.source_rows() == carried.target_rows()
    assert carried.questions() == []


@pytest.mark.parametrize("back", ["name bytea", '"Name" text'])
def test_a_removed_column_may_come_back_as_another(carried: Line, back: str) -> None:
    """Of another type, or in another case of letters: the lake still has the old one."""
    carried.source("ALTER TABLE t DROP COLUMN name")
    carried.try_run()
    carried.accept()
    carried.run()
    carried.target("ALTER TABLE t DROP COLUMN name")
    carried.source(f"ALTER TABLE t ADD COLUMN {back}", "INSERT INTO t VALUES (99)")
    carried.verify()
    assert carried.agrees()
    carried.source("DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (98)")
    carried.verify()
    assert carried.lake_is_target()


def test_a_column_may_change_the_case_of_its_letters(streamed: Line) -> None:
    """Delta tells names apart without it; the question is that of a removed column."""
    streamed.source('ALTER TABLE t RENAME COLUMN name TO "Name"')
    asked(streamed, "column 'name' removed")
    streamed.accept()
    streamed.run()
    streamed.target("ALTER TABLE t DROP COLUMN name")
    assert streamed.agrees()


def test_columns_that_differ_in_case_are_refused_before_they_land(line: Line) -> None:
    """What no lake table can hold must not be in a batch that it can't pass."""
    line.declare(t=STREAM)
    line.source(TABLE, 'ALTER TABLE t ADD COLUMN "NAME" text', "INSERT INTO t VALUES (1)")
    error = error_of(line.try_run())
    assert isinstance(error, ConfigError)
    assert "differ only in case" in str(error)
    assert line.batches() == []


def test_a_changed_type_is_asked_and_the_remedy_heals(carried: Line) -> None:
    """The lake follows by itself; the target's own column is its owner's to change."""
    carried.source("ALTER TABLE t ALTER COLUMN name TYPE bytea USING name::bytea")
    asked(carried, "column 'name' was text, is bytea")
    carried.accept()
    error = error_of(carried.try_run())
    assert isinstance(error, ConfigError)
    assert "'name'" in str(error)
    carried.target("ALTER TABLE t ALTER COLUMN name TYPE bytea USING name::bytea")
    carried.run()
    assert carried.agrees()
    carried.source("INSERT INTO t VALUES (99, 'later')")
    carried.verify()
    assert carried.agrees()


def test_a_widened_type_is_asked_too(streamed: Line) -> None:
    """From integer to bigint the carrier changes; rows beyond the old one arrive."""
    streamed.source("ALTER TABLE t ADD COLUMN n integer DEFAULT 7", "INSERT INTO t VALUES (98)")
    streamed.run()
    streamed.source(
        "ALTER TABLE t ALTER COLUMN n TYPE bigint",
        "UPDATE t SET n = 9007199254740993, modified_at = now() WHERE id = 1",
    )
    asked(streamed, "was integer, is bigint")
    streamed.accept()
    error = error_of(streamed.try_run())
    assert isinstance(error, ConfigError)
    streamed.target("ALTER TABLE t ALTER COLUMN n TYPE bigint")
    streamed.run()
    assert streamed.agrees()


def test_a_longer_varchar_needs_no_answer(line: Line) -> None:
    """The lake's column holds all lengths; the target names the value that is too long."""
    line.declare(t=STREAM)
    line.source(TABLE.replace("name text", "name varchar(4)"), "INSERT INTO t VALUES (1, 'four')")
    line.run()
    line.source(
        "ALTER TABLE t ALTER COLUMN name TYPE varchar(8)", "INSERT INTO t VALUES (2, 'eightish')"
    )
    error = error_of(line.try_run())
    assert "'name'" in str(error)
    line.target("ALTER TABLE t ALTER COLUMN name TYPE varchar(8)")
    line.run()
    assert line.agrees()


def test_a_changed_key_is_asked_and_the_remedy_heals(streamed: Line) -> None:
    """Another primary key means other rows: accepted, all sides hold the new ones."""
    streamed.source(
        "ALTER TABLE t DROP CONSTRAINT t_pkey",
        "UPDATE t SET name = 'k' || id, modified_at = now()",
        "ALTER TABLE t ADD PRIMARY KEY (id, name)",
        "INSERT INTO t (id, name) VALUES (1, 'twin')",
    )
    asked(streamed, "the key was (id), is (id, name)")
    streamed.accept()
    error = error_of(streamed.try_run())
    assert isinstance(error, ConfigError), error
    streamed.target(
        "ALTER TABLE t DROP CONSTRAINT t_pkey", "ALTER TABLE t ADD PRIMARY KEY (id, name)"
    )
    streamed.run()
    assert streamed.agrees()


def test_a_plan_of_days_asks_as_their_run_does(line: Line) -> None:
    """A drift holds a partition run too; what nobody has asked yet is foretold."""
    line.declare(t=STREAM.replace("}, deletes", "}, event_time: day, deletes"))
    line.source(TABLE, "INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 20) n")
    line.run()
    line.source("ALTER TABLE t DROP COLUMN name")
    [(day,)] = line.source("SELECT (now() - interval '2 days')::date::text")
    wish = window(line, day)
    assert line.plan(wish).action == "ask"
    assert isinstance(error_of(line.try_run(wish)), QuestionError)
    line.source("ALTER TABLE t ADD COLUMN name text")  # the question stands, its reason is gone
    assert line.plan(wish).action in ("windows", "whole")
    assert line.run(wish).batch is not None


def test_a_question_is_withdrawn_when_the_source_changes_back(carried: Line) -> None:
    """Nobody needs to answer what is no longer so."""
    carried.source("ALTER TABLE t RENAME COLUMN name TO title")
    asked(carried, "column 'name' removed")
    carried.source("ALTER TABLE t RENAME COLUMN title TO name", "INSERT INTO t VALUES (99, 'x')")
    carried.verify()
    assert carried.questions() == []
    assert carried.agrees()


def test_an_answer_covers_what_was_asked_only(streamed: Line) -> None:
    """Drift that came after the answer is asked again."""
    streamed.source("ALTER TABLE t DROP COLUMN name")
    asked(streamed, "column 'name' removed")
    streamed.accept()
    streamed.source("ALTER TABLE t ALTER COLUMN modified_at TYPE timestamptz(3)")
    error = error_of(streamed.try_run())
    assert isinstance(error, QuestionError)
    assert "modified_at" in str(error)
    streamed.accept()
    streamed.run()
    assert streamed.lake_rows() == streamed.source_rows() == streamed.target_rows()


def test_a_question_holds_its_group_and_no_other(line: Line) -> None:
    """Tables captured together wait together; the others go on."""
    line.declare(head="groups: {both: [t, u]}\nfence_margin: 0s", t=STREAM, u=DIFF, v=STREAM)
    for name in "tuv":
        line.source(TABLE.replace("TABLE t", f"TABLE {name}"), f"INSERT INTO {name} VALUES (1)")
    line.run()
    line.source(
        "ALTER TABLE t DROP COLUMN name", *(f"INSERT INTO {n} (id) VALUES (2)" for n in "tuv")
    )
    reports = line.try_run()
    assert isinstance(reports["both"].error, QuestionError)
    assert reports["v"].error is None
    assert line.lake_rows("v") == line.source_rows("v") == line.target_rows("v")
    assert {row[0] for row in line.lake_rows("u")} == {"1"}
    line.accept()
    line.run()
    assert {row[0] for row in line.lake_rows("u")} == {row[0] for row in line.lake_rows("t")}


@pytest.mark.parametrize("way", [STREAM, SWEPT, DIFF])
def test_a_removed_column_that_comes_back_empty_is_empty(line: Line, way: str) -> None:
    """What it held before it was removed is nobody's value now."""
    line.declare(t=way)
    line.source(TABLE, "INSERT INTO t SELECT n, 'secret ' || n FROM generate_series(1, 5) n")
    line.run()
    line.source("ALTER TABLE t DROP COLUMN name")
    asked(line, "column 'name' removed")
    line.accept()
    line.run()
    line.source("INSERT INTO t (id) VALUES (6)")
    line.run()
    line.source("ALTER TABLE t ADD COLUMN name text")
    line.run()
    assert line.agrees()
    line.source("INSERT INTO t (id, name) VALUES (9, 'new')")
    assert line.run().batch is not None
    assert line.agrees()
    assert line.batches()[-1].parts[0].kind == "stream"
