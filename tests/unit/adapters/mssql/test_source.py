"""SQL Server as a source: what each type is carried as, and what is refused.

What only a server can show is in tests/contract/test_mssql_source.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from naviglio.adapters.mssql import fence, fit, source
from naviglio.adapters.mssql.carried import read
from naviglio.adapters.mssql.fit import Found, FoundColumn
from naviglio.adapters.mssql.source import MssqlSource, schema_of
from naviglio.adapters.mssql.statements import highest
from naviglio.capture.columns import order_of
from naviglio.errors import ConfigError
from naviglio.model import BEYOND, TableSchema
from naviglio.ports import LOWEST
from tests.unit.adapters.mssql.described import NAME, TYPES, column, found
from tests.unit.adapters.mssql.recorder import Recorder
from tests.unit.adapters.mssql.tsql import parsed


@pytest.mark.parametrize(("spelled", "carried"), TYPES.items())
def test_each_type_has_its_carrier(spelled: str, carried: tuple[str, str]) -> None:
    """As declared; its reading is T-SQL."""
    made = column("c", spelled)
    assert (made.kind, made.carrier, made.source_type) == (*carried, spelled)
    parsed(f"SELECT {read(made)} FROM [t] AS t")


def test_what_has_no_carrier_is_refused_by_name() -> None:
    """So are reserved names, keys that aren't there, and keys without an order."""

    def described(columns: tuple[FoundColumn, ...], *key: str) -> TableSchema:
        table = Found(
            id=1, kind="U", comment="", lacking_rights=(), folds=False, columns=columns,
            unique=(frozenset({"id"}),),
        )  # fmt: skip
        return schema_of(NAME, table, key, ("id",))

    plain = (found("id", "int", nullable=False), found("x", "xml"))
    assert described(plain).key_is_unique
    assert not described(plain, "id", "x"[:0] or "id").columns[0].nullable
    with pytest.raises(ConfigError, match="'g' of type geography"):
        described((*plain, found("g", "geography")))
    with pytest.raises(ConfigError, match="reserved"):
        described((*plain, found(BEYOND, "int")))
    with pytest.raises(ConfigError, match="reserved"):
        described((*plain, found(BEYOND.upper(), "int")))
    with pytest.raises(ConfigError, match="reserved"):
        described((*plain, found("_Change_Type", "int")))
    with pytest.raises(ConfigError, match="only in case"):
        described((*plain, found("X", "int")))
    with pytest.raises(ConfigError, match="no column 'no'"):
        described(plain, "no")
    with pytest.raises(ConfigError, match=r"'x' \(xml\)"):
        described(plain, "x")


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({source.IN_MEMORY: [(True,)]}, "memory-optimized"),
        ({source.HIDDEN: [("pay", "masked"), ("ssn", "encrypted")]},
         r"'pay' \(masked\), 'ssn' \(encrypted\).*UNMASK"),
    ],
)  # fmt: skip
def test_what_the_server_would_not_show_as_it_is_is_refused(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], told: str
) -> None:
    """Masked values look like real ones, and a table in memory has no snapshot to be read in."""
    known = {fit.TABLE: [(1, "U", "", 0, 1, 0, 0, 0, 0)], **answers}
    recorder = Recorder(lambda said: known.get(said, ()))
    monkeypatch.setattr(source, "connect", lambda *_, **__: recorder)
    with pytest.raises(ConfigError, match=told):
        MssqlSource("mssql://h/x").describe(NAME, ())


def test_each_stream_asks_for_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rowversion the server's, an integer its column; neither asks who has what open."""
    id_, version = column("id", "int"), column("v", "timestamp")
    said: dict[str, Any] = {
        fence.CLOCK: [(0, fence.WRITABLE, 3, 13, "a", "b")], fence.VERSION: [(2001,)],
        highest(NAME, id_): [(41,)],
    }  # fmt: skip
    recorder = Recorder(lambda statement: said.get(statement, ()))
    monkeypatch.setattr(source, "connect", lambda *_, **__: recorder)
    asked = MssqlSource("mssql://h/x")
    assert (asked.above(NAME, id_), asked.above(NAME, version)) == (42, 2001)
    said[highest(NAME, id_)] = [(None,)]
    assert asked.above(NAME, id_) == LOWEST
    assert fence.OLDEST not in recorder.calls
    traits = asked.traits
    assert order_of(version, traits) == "version"
    assert order_of(column("t", "smalldatetime"), traits) is None
    assert order_of(column("t", "datetime2(7)"), traits) == "time"


def test_every_statement_is_tsql() -> None:
    """Over the catalogue."""
    for statement in (source.PRIMARY, source.TABLES, source.IN_MEMORY, source.HIDDEN):
        parsed(statement)
