"""Staging tables: what is sent, what is compared, what is left when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa
import pytest
from mssql_python import Connection

from naviglio.adapters.mssql.staging import (
    STAGINGS,
    Stream,
    create_staging,
    drop_staging,
    fill,
    staging_table,
    sweep,
)
from naviglio.errors import DataError, RetryableError, TargetError
from naviglio.model import BEYOND, Column, TableSchema
from tests.contract.target import ID, PEOPLE, Row, batches, deleted, person
from tests.unit.adapters.mssql.recorder import Answer, Recorder
from tests.unit.adapters.mssql.tsql import parsed

NAME = "[naviglio].[s_a1]"


def connection(recorder: Recorder) -> Connection:
    """Return a recorder as what it stands in for."""
    return cast("Connection", recorder)


def figures(rows: int) -> list[tuple[Any, ...]]:
    """Return what a server says that has the people from 1 to `rows`."""
    stream = Stream(
        batches(PEOPLE, [person(n) for n in range(1, rows + 1)], whole=True), PEOPLE, whole=True
    )
    list(stream)
    return [stream.tally.figures]


def test_staging_holds_carriers_under_names_of_its_own() -> None:
    """No name and no length of the source reaches the bulk copy, and nothing is cut there."""
    schema = replace(PEOPLE, columns=tuple(replace(c, name=f"{c.name}]") for c in PEOPLE.columns))
    text = create_staging(NAME, schema, whole=False)
    assert text == (
        "CREATE TABLE [naviglio].[s_a1] ([c1] bigint NULL,"
        " [c2] nvarchar(max) COLLATE Latin1_General_100_BIN2 NULL, [c3] decimal(9,2) NULL,"
        " [c4] datetimeoffset(6) NULL, [_beyond] nvarchar(max) NULL, [_op] nvarchar(6) NOT NULL)"
    )
    assert "_op" not in create_staging(NAME, schema, whole=True)
    for statement in (text, drop_staging(NAME), STAGINGS):
        parsed(statement)


def test_a_staging_table_is_named_by_its_attempt() -> None:
    """128 characters are the server's limit."""
    assert staging_table("a1") == NAME
    with pytest.raises(ValueError, match="too long"):
        staging_table("x" * 127)


def test_the_stream_is_what_was_staged() -> None:
    """Order, names and carriers of the staging table, counted as it passes."""
    stream = Stream(batches(PEOPLE, [person(1), deleted(2)], whole=False), PEOPLE, whole=False)
    table = pa.Table.from_batches(list(stream))
    assert table.column_names == ["c1", "c2", "c3", "c4", "_beyond", "_op"]
    assert (stream.tally.rows, stream.has_beyond) == (2, False)
    beyond = batches(PEOPLE, [{**person(1), BEYOND: '{"seen": "infinity"}'}], whole=True)
    told = Stream(beyond, PEOPLE, whole=True)
    assert [batch.num_rows for batch in told] == [1]
    assert told.has_beyond


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_float_that_the_server_has_not(value: float) -> None:
    """Column and key are named: the bulk copy would fail as a whole, and not say where."""
    ratio = Column(name="ratio", kind="float64", carrier="double", source_type="float8")
    schema = TableSchema(columns=(ID, ratio), key=("id",))
    rows: list[Row] = [{"id": 1, "ratio": 1.0}, {"id": 2}, {"id": 3, "ratio": value}]
    with pytest.raises(DataError, match=r"column 'ratio': NaN or infinity.*key \(id=3\)"):
        list(Stream(batches(schema, rows, whole=True), schema, whole=True))


def test_a_table_is_made_filled_and_proven_in_this_order() -> None:
    """Bulk copy is another connection: the table must be committed before."""
    recorder = Recorder(lambda text: figures(4) if text.startswith("SELECT COUNT_BIG") else ())
    people = batches(PEOPLE, [person(n) for n in range(1, 5)], whole=True)

    staging = fill(connection(recorder), "a1", PEOPLE, people, whole=True)

    assert (staging.name, staging.rows, staging.has_beyond) == (NAME, 4, False)
    assert list(recorder.said("DROP", "CREATE", "BULK", "SELECT")) == [
        "DROP", "CREATE", "BULK", "SELECT",
    ]  # fmt: skip
    assert recorder.copied == [
        {"rows": 4, "batch_size": 0, "timeout": 0, "table_lock": True, "keep_nulls": True}
    ]
    assert recorder.names == ["c1", "c2", "c3", "c4", BEYOND]


def test_no_rows_need_no_copy() -> None:
    """An empty table is proven like any other."""
    recorder = Recorder(lambda text: [(0, *[0, None, None] * 5)] if "COUNT_BIG" in text else ())
    assert fill(connection(recorder), "a1", PEOPLE, iter(()), whole=True).rows == 0
    assert not recorder.copied


def test_a_staging_that_differs_is_dropped() -> None:
    """What was sent and what the server has are compared by column."""
    recorder = Recorder(lambda text: figures(3) if text.startswith("SELECT COUNT_BIG") else ())
    people = batches(PEOPLE, [person(n) for n in range(1, 5)], whole=True)
    with pytest.raises(RetryableError, match=r"4 rows were sent, the server has 3;.* c1, .*rows"):
        fill(connection(recorder), "a1", PEOPLE, people, whole=True)
    assert list(recorder.said("DROP")) == ["DROP", "DROP"]


def test_an_error_of_the_feed_is_passed_on_as_it_is() -> None:
    """Also when it comes up through the driver's core; the table goes."""

    def broken() -> Iterator[pa.RecordBatch]:
        yield from batches(PEOPLE, [person(1)], whole=True)
        raise KeyError("the lake is gone")

    recorder = Recorder()
    with pytest.raises(KeyError, match="the lake is gone"):
        fill(connection(recorder), "a1", PEOPLE, broken(), whole=True)
    assert list(recorder.said("DROP")) == ["DROP", "DROP"]


@pytest.mark.parametrize("told", ["'secret'", "5secret", '"it\'s secret"'])
def test_a_refusal_of_the_driver_shows_no_value(told: str) -> None:
    """Its core raises plain errors, whose text may hold one."""

    class Refusing(Recorder):
        def bulkcopy_arrow(self, name: str, source: pa.RecordBatchReader, **options: Any) -> None:
            del name, source, options
            raise ValueError(f"cannot convert {told} to decimal")

    with pytest.raises(TargetError, match=r"bulk copy: ValueError: cannot convert\.") as caught:
        people = batches(PEOPLE, [person(1)], whole=True)
        fill(connection(Refusing()), "a1", PEOPLE, people, whole=True)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "told",
    ["Connection closed by server while reading TDS packet", "Connection is broken: os error 32",
     "Cannot read TDS packet: connection has been closed", "IO: unexpected end of file"],
)  # fmt: skip
def test_a_copy_whose_session_was_killed_may_be_tried_again(told: str) -> None:
    """In the words of the driver's core; the table goes."""

    class Killed(Recorder):
        def bulkcopy_arrow(self, name: str, source: pa.RecordBatchReader, **options: Any) -> None:
            del name, source, options
            raise RuntimeError(told)

    recorder = Killed()
    with pytest.raises(RetryableError, match=r"staging .*, bulk copy"):
        rows = batches(PEOPLE, [person(1)], whole=True)
        fill(connection(recorder), "a1", PEOPLE, rows, whole=True)
    assert list(recorder.said("DROP")) == ["DROP", "DROP"]


def test_only_stagings_of_the_dead_are_dropped() -> None:
    """Those whose lock nobody holds; the session's own are left alone."""

    def answer(text: str) -> Answer:
        if text == STAGINGS:
            return [("s_mine",), ("s_dead",), ("s_living",)]
        if "sp_getapplock" in text:
            return [(0 if "dead" in str(recorder.bound[-1]) else -1,)]
        return [(0,)]

    recorder = Recorder(answer)
    sweep(connection(recorder), {"mine"})
    assert [call for call in recorder.calls if call.startswith("DROP")] == [
        drop_staging("[naviglio].[s_dead]")
    ]
    assert sum("sp_releaseapplock" in call for call in recorder.calls) == 1
