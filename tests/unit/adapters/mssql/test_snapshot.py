"""A snapshot: where it stands, what becomes of its rows, and what there is without one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from naviglio.adapters.mssql import fit, session, snapshot
from naviglio.adapters.mssql.carried import beside
from naviglio.adapters.mssql.fence import WRITABLE
from naviglio.adapters.mssql.snapshot import MssqlSnapshot, decoded, open_snapshot
from naviglio.conditions import Both, Everything, Keys, split
from naviglio.errors import IdentityError, RetryableError
from naviglio.model import BEYOND, KEY_HASH, ROW_HASH, TableSchema
from naviglio.ports import Scan
from tests.unit.adapters.mssql.described import NAME, SMALL, column
from tests.unit.adapters.mssql.recorder import Recorder
from tests.unit.adapters.mssql.tsql import parsed


def test_rows_arrive_in_their_carriers() -> None:
    """Times from integers, decimals and texts exactly; an offset stands beside its moment."""
    schema = TableSchema(
        columns=(
            column("id", "int"), column("d", "date"), column("t", "time(7)"),
            column("w", "datetime2(7)"), column("m", "datetime2(6)"),
            column("o", "datetimeoffset(3)"), column("n", "decimal(9,2)"),
        ),
        key=("id",),
    )  # fmt: skip
    scan = Scan(table=NAME, schema=schema, hashes="both")
    assert list(beside(schema)) == ["o"]
    travelled = pa.record_batch(
        {
            "id": pa.array([1, 2], pa.int32()), "d": pa.array([15706, None], pa.int32()),
            "t": ["12:00:00.1200000", "12:00:00.0000000"],
            "w": ["2013-01-01T12:00:00.1234567", None],
            "m": pa.array([1357041600_123456, None], pa.int64()),
            "o": pa.array([1357041600_123000, 0], pa.int64()),
            "n": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
            "_beyond_0": ["2013-01-01T13:00:00.123+01:00", None],
            KEY_HASH: pa.array([1, 2], pa.int64()), ROW_HASH: pa.array([-1, -2], pa.int64()),
        }
    )  # fmt: skip
    one, other = decoded(travelled, scan).to_pylist()
    assert one == {
        "id": 1, "d": date(2013, 1, 1), "t": "12:00:00.12", "w": "2013-01-01T12:00:00.1234567",
        "m": datetime(2013, 1, 1, 12, 0, 0, 123456),  # noqa: DTZ001 - without a zone, as there
        "o": datetime(2013, 1, 1, 12, 0, 0, 123000, tzinfo=UTC), "n": Decimal("1.50"),
        BEYOND: '{"o":"2013-01-01T13:00:00.123+01:00"}', KEY_HASH: 1, ROW_HASH: -1,
    }  # fmt: skip
    assert (other["t"], other["d"], other[BEYOND]) == ("12:00:00", None, None)
    bare = decoded(travelled.select(["id", KEY_HASH]), replace(scan, rows=False, hashes="key"))
    assert bare.schema.names == ["id", KEY_HASH]


def test_many_keys_are_divided() -> None:
    """Each once."""
    many = Keys(keys=pa.table({"id": [*range(45_000), *range(10)]}))
    parts = list(split(Both(one=many, other=Everything())))
    sizes = [part.one.keys.num_rows for part in parts]  # type: ignore[union-attr]
    assert (len(parts), sum(sizes)) == (3, 45_000)


def server(
    state: int = 1, fork: int | None = 1, open_transactions: int = 1, updateability: str = WRITABLE
) -> Recorder:
    """Return a server whose database allows SNAPSHOT isolation (1) or not."""
    answers: dict[str, Any] = {
        snapshot.HERE: [(state, "broker", 7, fork, updateability)],
        snapshot.FORK: [("family", "fork")],
        snapshot.FIRST_TABLE: [("dbo", "people")], snapshot.STANDS: [(open_transactions,)],
        "SELECT COUNT_BIG(*)": [(3,)],
        fit.TABLE: [(1, "U", "", 0, 1, 0, 0, 0, 0)],
        fit.COLUMNS: [
            ("id", "bigint", 8, 19, 0, None, False, 1, 0),
            ("name", "nvarchar", 18, 0, 0, "Latin1_General_CI_AS", True, 0, 0),
            ("at", "datetimeoffset", 8, 30, 3, None, True, 0, 0),
        ],
    }  # fmt: skip
    return Recorder(lambda said: answers.get(said, answers.get(said[:19], ())))


def opened(recorder: Recorder) -> MssqlSnapshot:
    """Open a snapshot over it."""
    return MssqlSnapshot(recorder, "database 'x'")  # type: ignore[arg-type]  # the recorder stands in for the driver's connection


def test_a_snapshot_stands_and_knows_its_place() -> None:
    """SNAPSHOT isolation is begun and touched, in a session that says that it only reads."""
    recorder = server()
    stands = opened(recorder)
    assert recorder.calls == [
        snapshot.HERE, snapshot.FORK, snapshot.MARK, *snapshot.BEGIN, snapshot.FIRST_TABLE,
        "SELECT TOP (1) 1 FROM [dbo].[people]",
    ]  # fmt: skip
    assert snapshot.BEGIN[0] == "SET TRANSACTION ISOLATION LEVEL SNAPSHOT"  # sqlglot can't read it
    assert stands.torn == ""
    place = stands.place(None)
    assert (place.incarnation, place.order) == ("family/fork", 7)
    assert stands.place(place) == place
    for other in (replace(place, incarnation="another"), replace(place, order=8)):
        with pytest.raises(IdentityError, match="resnapshot"):
            stands.place(other)
    assert stands.count(Scan(table=NAME, schema=SMALL)) == 3


def test_where_recovery_forks_are_not_told_the_broker_names_the_database() -> None:
    """Azure SQL Database has no view of them, and is not asked for it."""
    recorder = server(fork=None)
    assert opened(recorder).place(None).incarnation == "broker"
    assert snapshot.FORK not in recorder.calls


@pytest.mark.parametrize("state", [0, 2, 3])
def test_without_isolation_reads_are_torn_and_say_so(state: int) -> None:
    """Off, or on its way: each read is of its own moment, and the owner's statement is named."""
    recorder = server(state, open_transactions=0)
    torn = opened(recorder)
    assert torn.torn.endswith("ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON")
    assert recorder.calls[-1] == "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
    assert not set(snapshot.BEGIN) & set(recorder.calls)
    assert torn.count(Scan(table=NAME, schema=SMALL)) == 3


def test_a_snapshot_that_ended_is_not_read_on() -> None:
    """A read left early rolls it back, and what came after would be of another moment."""
    with pytest.raises(RetryableError, match="left early"):
        opened(server(open_transactions=0)).count(Scan(table=NAME, schema=SMALL))


@pytest.mark.parametrize(
    ("fenced", "updateability", "refused"),
    [(True, "READ_ONLY", True), (True, WRITABLE, False), (False, "READ_ONLY", False)],
)
def test_a_replica_is_not_read_after_a_primarys_fence(
    monkeypatch: pytest.MonkeyPatch, *, fenced: bool, updateability: str, refused: bool
) -> None:
    """What was committed at the fence may not be there yet; the session is left as it came."""
    recorder = server(updateability=updateability)
    monkeypatch.setattr(session, "connect", lambda *_, **__: recorder)
    expected = pytest.raises(RetryableError, match="replica") if refused else nullcontext()
    with expected, open_snapshot(session.readers("mssql://h/x"), "database 'x'", fenced=fenced):
        pass
    assert (recorder.calls[-2:] == [*session.REST]) is not refused  # ended, or laid to rest


def test_every_statement_is_tsql() -> None:
    """But for the isolation level SNAPSHOT."""
    for statement in (
        snapshot.HERE, snapshot.FORK, snapshot.FIRST_TABLE, snapshot.MARK, snapshot.COMMITTED,
        snapshot.BEGIN[1], snapshot.STANDS, *session.REST,
    ):  # fmt: skip
        parsed(statement)
