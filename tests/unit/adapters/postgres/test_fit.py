"""Which column types hold which values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from naviglio.adapters.postgres.fit import Found, FoundColumn, holds, misfits
from naviglio.model import Column, Kind, TableSchema

CARRIERS: dict[Kind, str] = {
    "int16": "int16", "int32": "int32", "int64": "int64", "float32": "float", "float64": "double",
    "decimal": "decimal128(9, 2)", "date": "date32[day]", "timestamp": "timestamp[us]",
    "timestamptz": "timestamp[us, tz=UTC]", "bytes": "binary", "bool": "bool",
}  # fmt: skip


def column(
    kind: Kind, *, length: int | None = None, digits: tuple[int, int] | None = None
) -> Column:
    """Return a column of a kind."""
    precision, scale = digits or (None, None)
    return Column(
        name="c", kind=kind, carrier=CARRIERS.get(kind, "string"), source_type="?", length=length,
        precision=precision, scale=scale,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "wide", "narrow"),
    [
        (column("int16"), ["smallint", "bigint", "numeric(5,0)"], ["numeric(5,1)", "real"]),
        (column("int64"), ["bigint", "numeric(19,0)"], ["integer", "numeric(18,0)", "text"]),
        (column("float32"), ["real", "double precision"], ["numeric", "integer"]),
        (column("float64"), ["double precision"], ["real"]),
        (
            column("decimal", digits=(9, 2)),
            ["numeric", "numeric(9,2)", "numeric(12,4)"],
            ["numeric(9,1)", "numeric(9,3)", "numeric(8,2)", "bigint", "double precision"],
        ),
        (column("number"), ["numeric", "text"], ["numeric(38,10)", "double precision"]),
        (column("text"), ["text", "character varying"], ["character varying(99)", "character(9)"]),
        (
            column("text", length=9),
            ["text", "character varying(9)", "character varying(10)"],
            ["character varying(8)", "character(9)", "bytea"],
        ),
        (column("date"), ["date"], ["timestamp without time zone"]),
        (
            column("timestamptz"),
            ["timestamp with time zone", "timestamp(6) with time zone"],
            ["timestamp(3) with time zone", "timestamp without time zone", "date"],
        ),
        (
            column("time"),
            ["time without time zone", "text"],
            ["time(0) without time zone", "time with time zone"],
        ),
        (
            column("time", digits=(7, 0)),
            ["text", "character varying"],
            ["time without time zone", "timestamp without time zone"],
        ),
        (column("interval"), ["interval"], ["interval day to second", "interval(3)"]),
        (column("uuid"), ["uuid", "text"], ["bytea"]),
        (column("jsonb"), ["jsonb", "text"], ["json"]),
        (column("bytes"), ["bytea"], ["text"]),
        (column("bool"), ["boolean"], ["smallint", "text"]),
    ],
)  # fmt: skip
def test_a_type_holds_every_value_or_is_refused(
    wanted: Column, wide: list[str], narrow: list[str]
) -> None:
    """As wide or wider is taken; what would cut, round or change a single value is not."""
    assert [actual for actual in wide if not holds(actual, wanted)] == []
    assert [actual for actual in narrow if holds(actual, wanted)] == []


def test_a_shorter_time_at_the_source_fits_a_shorter_time() -> None:
    """The digits of the second are compared."""
    wanted = Column(
        name="c", kind="timestamp", carrier="timestamp[us]", source_type="?", precision=3
    )
    assert holds("timestamp(3) without time zone", wanted)
    assert not holds("timestamp(0) without time zone", wanted)


def test_a_type_that_only_shares_its_name_with_anothers_is_not_the_same() -> None:
    """`money` of SQL Server has four digits behind the point, PostgreSQL's two and a locale."""
    money = replace(column("decimal", digits=(19, 4)), source_type="money")
    key = replace(column("int32"), name="id", source_type="integer")
    schema = TableSchema(columns=(key, money), key=("id",))

    def found(spelled: str) -> Found:
        columns = [
            FoundColumn(name=name, spelled=type_, base=type_, required=False, computed=False)
            for name, type_ in (("id", "integer"), ("c", spelled))
        ]
        return Found(
            kind="r", comment="", owned=True, lacking_rights=(), unique=(frozenset({"id"}),),
            columns=tuple(columns),
        )  # fmt: skip

    assert misfits(found("numeric(19,4)"), schema) == []
    (problem,) = misfits(found("money"), schema)
    assert "'c' is money, narrower than numeric(19,4)" in problem
