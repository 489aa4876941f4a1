"""What a load repeats, and what it does only once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from naviglio.errors import ContentionError, RetryableError
from naviglio.load.catch_up import catch_up
from naviglio.model import LedgerRow, TableName, TableSchema, TableSpec
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
