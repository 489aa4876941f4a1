"""Two sides are compared by key: each difference is found, named and judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from naviglio.errors import RetryableError
from naviglio.model import BEYOND, KEY_HASH, ROW_HASH, Column, TableSchema
from naviglio.quality.compare import Judge, comparison

OWN = ["class", "expected", "actual", "verdict", "_content", "_judge", "e", "l", "differences"]


def batches(key: str, rows: dict[int, str]) -> list[pa.RecordBatch]:
    """Return rows as a side delivers them; the row's hash is the length of its text."""
    table = pa.table({
        key: pa.array(rows, pa.int64()),
        "x": pa.array(rows.values(), pa.string()),
        BEYOND: pa.nulls(len(rows), pa.string()),
        KEY_HASH: pa.array(rows, pa.int64()),
        ROW_HASH: pa.array(map(len, rows.values()), pa.int64()),
    })  # fmt: skip
    return list(table.to_batches())


def schema(key: str) -> TableSchema:
    """Return the schema of these rows."""
    return TableSchema(
        columns=(
            Column(name=key, kind="int64", carrier="int64", source_type="bigint"),
            Column(name="x", kind="text", carrier="string", source_type="text"),
        ),
        key=(key,),
    )


def hashes(key: str) -> pa.Schema:
    """Return the columns of hash files of these rows."""
    return pa.schema([(key, pa.int64()), (KEY_HASH, pa.int64()), (ROW_HASH, pa.int64())])


@pytest.mark.parametrize("key", ["id", *OWN])
def test_a_key_of_any_name_is_compared(key: str, tmp_path: Path) -> None:
    """Also one that bears a name which the comparison itself uses."""
    landed = tmp_path / "landed.parquet"
    pq.write_table(pa.Table.from_batches(batches(key, {2: "two", 3: "drei", 5: "gone"})), landed)
    judge = Judge(column=ROW_HASH)
    with comparison(schema(key)) as sides:
        sides.load("expected", batches(key, {1: "one", 2: "two", 3: "three"}), judge)
        sides.load("actual", batches(key, {2: "zwo", 3: "drei", 4: "four", 5: "five"}), judge)
        gone, same = sides.hashed([str(landed)], [], hashes(key))
        flying = f"CASE WHEN class = 'extra' THEN {gone} WHEN class = 'changed' THEN NOT {same} END"
        sides.differ(Judge(column=ROW_HASH, in_flight=flying))
        found = {v: sides.found(v).keys for v in ("missing", "extra", "changed", "in flight")}
    assert found == {
        "missing": ("1",), "extra": ("4",), "changed": ("2",), "in flight": ("3", "5"),
    }  # fmt: skip


def test_nothing_landed_means_nothing_in_flight() -> None:
    """A key that stands in no landed file never landed."""
    with comparison(schema("id")) as sides:
        assert sides.landed([]) == "false"


def test_an_error_of_a_side_is_raised_as_it_was() -> None:
    """A server that goes away while it is read is still worth trying again."""

    def side() -> Iterator[pa.RecordBatch]:
        yield from batches("id", {1: "one"})
        raise RetryableError("gone")

    with (
        comparison(schema("id")) as sides,
        pytest.raises(RetryableError, match=r"\Agone\Z"),
    ):
        sides.load("expected", side(), Judge())
