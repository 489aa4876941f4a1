"""What a load repeats, and what it does only once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from naviglio.errors import ContentionError, RetryableError, SwapRefusedError
from naviglio.load import plan
from naviglio.load.catch_up import catch_up
from naviglio.model import LedgerRow, LoadCounts, TableName, TableSchema, TableSpec
from naviglio.ports import Feed, Staging
from tests.contract.target import Row, batches
from tests.fakes import ROWS, FakeTarget, FakeTransaction

NAME = TableName(schema="", table="people")
SPEC = TableSpec(name="people", source=NAME, target=NAME, key=("id",), way="diff")


@dataclass
class Contended(FakeTarget):
    """A target whose server ends the first transactions in favour of others."""

    failures: int = 0
    error: RetryableError = field(default_factory=lambda: ContentionError("a deadlock"))
    begun: int = 0
    stages: list[str] = field(default_factory=list)

    def stage(
        self, attempt: str, schema: TableSchema, batches: Iterator[pa.RecordBatch], *, whole: bool
    ) -> Staging:
        """Note the attempt."""
        self.stages.append(attempt)
        return super().stage(attempt, schema, batches, whole=whole)

    @contextmanager
    def begin(self) -> Iterator[FakeTransaction]:
        """End the transaction badly, after the merge, a few times."""
        with super().begin() as transaction:
            yield transaction
            self.begun += 1
            if self.begun <= self.failures:
                raise self.error


def feed(_: LedgerRow | None) -> Feed:
    """Return two rows, once."""
    rows: list[Row] = [{"id": 1}, {"id": 2}]
    return Feed(
        lake_table="d", landing="l", version=1, batch=1, schema=ROWS, why_whole="",
        batches=batches(ROWS, rows, whole=False),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)


def test_a_deadlock_merges_the_same_staging_again() -> None:
    """The lake is read and staged once; lock, compare, merge and ledger are one whole."""
    target = Contended(failures=3)
    row = catch_up(target, "p", SPEC, feed)
    assert row is not None
    assert (target.begun, target.stages) == (4, [row.attempt])
    assert sorted(target.rows) == [1, 2]


def test_a_deadlock_that_does_not_end_is_told() -> None:
    """After some tries; nothing is half done."""
    target = Contended(failures=99)
    with pytest.raises(ContentionError, match="a deadlock"):
        catch_up(target, "p", SPEC, feed)
    assert (target.begun, len(target.stages), target.rows) == (6, 1, {})


def test_a_lost_server_is_not_asked_for_the_same_staging() -> None:
    """Its staging went with the session: whoever calls begins anew."""
    target = Contended(failures=1, error=RetryableError("away"))
    with pytest.raises(RetryableError, match="away"):
        catch_up(target, "p", SPEC, feed)
    assert target.begun == 1


@dataclass
class Swapped(FakeTarget):
    """A target that can be filled beside; `refuses` rows as they come."""

    estimate: int | None = None
    refuses: bool = False
    ways: list[str] = field(default_factory=list)

    def rows_of(self, target: TableName) -> int | None:
        """Return what was told."""
        return self.estimate

    def keeps(self, target: TableName, schema: TableSchema) -> tuple[str, ...]:
        """Lose nothing; asked only where a swap is wanted."""
        self.ways.append("asked")
        return ()

    def stage_beside(
        self,
        attempt: str,
        target: TableName,
        schema: TableSchema,
        batches: Iterator[pa.RecordBatch],
    ) -> Staging:
        """Note it; read a batch before anything is refused."""
        self.ways.append("beside")
        next(batches)
        if self.refuses:
            raise SwapRefusedError("a row")
        return super().stage(attempt, schema, batches, whole=True)

    def stage(
        self, attempt: str, schema: TableSchema, batches: Iterator[pa.RecordBatch], *, whole: bool
    ) -> Staging:
        """Note it."""
        self.ways.append("whole" if whole else "changes")
        return super().stage(attempt, schema, batches, whole=whole)


def fed(*, whole: str = "", changed: int = 2) -> Callable[[LedgerRow | None], Feed]:
    """Return a feed of two rows or changes; all four rows when asked without a ledger row."""

    def feed_since(_: LedgerRow | None) -> Feed:
        again = bool(asked) or bool(whole)
        asked.append(again)
        rows: list[Row] = [{"id": n} for n in range(4 if again else 2)]
        return Feed(
            lake_table="d", landing="l", version=1, batch=1, schema=ROWS,
            why_whole=(whole or "first load") if again else "", rows=4, changed_rows=changed,
            batches=batches(ROWS, rows, whole=again),
        )  # fmt: skip

    asked: list[bool] = []
    return feed_since


def test_rows_that_can_not_be_swapped_are_merged_after_all() -> None:
    """All of them, from the first on."""
    target = Swapped(refuses=True)
    row = catch_up(target, "p", SPEC, fed(whole="first load"))
    assert row is not None
    assert (target.ways, len(target.rows), row.why_whole) == (
        ["asked", "beside", "whole"], 4, "first load",
    )  # fmt: skip


def test_where_most_rows_change_all_of_them_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the ledger says why."""
    monkeypatch.setattr(plan, "SWAP_ROWS", 0)
    target = Swapped(estimate=4)
    row = catch_up(target, "p", SPEC, fed(changed=3))
    assert row is not None
    assert target.ways == ["asked", "beside"]
    assert row.why_whole == "most rows change: 3 of 4"


@dataclass
class Indexed(Swapped):
    """A target with indexes that can be off; it notes of which stagings they are to be."""

    rebuilt: list[bool] = field(default_factory=list)

    def rebuildable(self, target: TableName) -> int:
        """Have four."""
        return 4

    @contextmanager
    def begin(self) -> Iterator[FakeTransaction]:
        """Look at what is merged."""
        with super().begin() as transaction:
            merge = transaction.merge

            def noted(target: TableName, schema: TableSchema, staging: Staging) -> LoadCounts:
                self.rebuilt.append(staging.rebuild)
                return merge(target, schema, staging)

            transaction.merge = noted  # type: ignore[method-assign] # a wrapper of the very method
            yield transaction


@pytest.mark.parametrize(("gain", "rebuilt"), [(0, True), (1_000, False)])
def test_a_merge_is_told_to_rebuild_indexes_where_the_plan_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, gain: int, rebuilt: bool
) -> None:
    """By the figures, which are logged."""
    monkeypatch.setattr(plan, "REBUILD_GAIN", gain)
    target = Indexed(estimate=4)
    with caplog.at_level("DEBUG", logger="naviglio.load"):
        catch_up(target, "p", SPEC, fed(changed=2))
    assert target.rebuilt == [rebuilt]
    assert ("4 indexes are rebuilt, at 24 rows" in caplog.text) is rebuilt
    assert "indexes=4" in caplog.text
