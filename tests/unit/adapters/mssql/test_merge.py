"""The SQL of a merge: its text, that it is T-SQL, and what its logic does.

The logic runs in DuckDB after sqlglot has translated it: that shows which rows are inserted,
updated and deleted, not that SQL Server does the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import duckdb
import pytest
import sqlglot

from naviglio.adapters.mssql.flaws import flawed_key, flaws, survey, twins
from naviglio.adapters.mssql.merge import (
    Merge,
    add_columns,
    create_target,
    folded,
    insert,
    is_empty,
    mark_target,
    merge_batch,
    merge_statement,
    staged,
    value,
)
from naviglio.adapters.mssql.ranges import count_range, cuts
from naviglio.errors import TargetError
from naviglio.model import Column, TableName, TableSchema
from tests.contract.target import AMOUNT, ID, NAME, PEOPLE, SEEN
from tests.unit.adapters.mssql.tsql import COLLATION, found, merge, parsed

BARE = TableSchema(columns=(ID, AMOUNT), key=("id",))
# sqlglot reads `WITH (TABLOCK)` of an INSERT as the begin of a query: compared as text below.
HINT = " WITH (TABLOCK)"


def test_a_target_has_the_logical_types_and_a_key() -> None:
    """Only the key is NOT NULL, whatever the source says of others today; the table is marked."""
    target = TableName(schema="ma]de", table="people")
    assert create_target(target, PEOPLE) == (
        "CREATE TABLE [ma]]de].[people] ([id] bigint NOT NULL, [name] nvarchar(18) NULL,"
        " [amount] decimal(9,2) NULL, [seen] datetimeoffset(6) NULL, PRIMARY KEY ([id]))"
    )
    assert add_columns(target, [NAME, SEEN]) == (
        "ALTER TABLE [ma]]de].[people] ADD [name] nvarchar(18) NULL, [seen] datetimeoffset(6) NULL"
    )
    assert mark_target(target) == (
        "EXEC sys.sp_addextendedproperty @name = N'naviglio', @value = N'Made by Naviglio',"
        " @level0type = N'SCHEMA', @level0name = N'ma]de', @level1type = N'TABLE',"
        " @level1name = N'people'"
    )
    for one in (create_target(target, PEOPLE), mark_target(target), is_empty(target)):
        parsed(one)


def test_a_merge_of_changes() -> None:
    """Locks of a writer, one row a key, deletes, updates of rows that differ, the rest inserted."""
    assert merge_statement(merge(PEOPLE)) == (
        "MERGE [made].[people] WITH (UPDLOCK, HOLDLOCK) AS t\n"
        "USING (SELECT f.* FROM (SELECT r.*, ROW_NUMBER() OVER (PARTITION BY r.[id] ORDER BY"
        " CASE r.[_op] WHEN N'upsert' THEN 0 ELSE 1 END) AS [_place] FROM (SELECT s.[c1] AS [id],"
        f" CAST(s.[c2] COLLATE {COLLATION} AS nvarchar(18)) AS [name], s.[c3] AS [amount],"
        " s.[c4] AS [seen], s.[_op] FROM [naviglio].[s_1] AS s) AS r) AS f"
        " WHERE f.[_place] = 1) AS s\n"
        "ON t.[id] = s.[id]\n"
        "WHEN MATCHED AND s.[_op] = N'delete' THEN DELETE\n"
        "WHEN MATCHED AND EXISTS (SELECT CAST(s.[name] AS varbinary(36)), DATALENGTH(s.[name]),"
        " s.[amount], s.[seen], DATEPART(tzoffset, s.[seen]) EXCEPT SELECT"
        " CAST(t.[name] AS varbinary(36)), DATALENGTH(t.[name]), t.[amount], t.[seen],"
        " DATEPART(tzoffset, t.[seen])) THEN UPDATE SET [name] = s.[name], [amount] = s.[amount],"
        " [seen] = s.[seen]\n"
        "WHEN NOT MATCHED BY TARGET AND s.[_op] = N'upsert' THEN INSERT ([id], [name], [amount],"
        " [seen]) VALUES (s.[id], s.[name], s.[amount], s.[seen])\n"
        "OUTPUT $action INTO @done;"
    )


def test_a_merge_of_a_whole_table() -> None:
    """What is not staged is deleted; nothing is folded, as two rows of a key are refused."""
    text = merge_statement(merge(PEOPLE, whole=True))
    assert text.endswith("WHEN NOT MATCHED BY SOURCE THEN DELETE\nOUTPUT $action INTO @done;")
    assert "_op" not in text
    assert "ROW_NUMBER" not in text


def test_the_batch_counts_by_action() -> None:
    """One statement a line, counted in the server."""
    batch = merge_batch(merge(PEOPLE))
    assert batch.startswith(
        "SET NOCOUNT ON;\nDECLARE @done TABLE ([action] nvarchar(10) NOT NULL);\nMERGE "
    )
    assert batch.endswith("\nSELECT [action], COUNT_BIG(*) AS [n] FROM @done GROUP BY [action];")


def test_an_empty_target_takes_a_plain_insert() -> None:
    """In the order of its key, under a lock of the table."""
    assert insert(merge(BARE)) == (
        "INSERT INTO [made].[people] WITH (TABLOCK) ([id], [amount]) SELECT [id], [amount]"
        " FROM (SELECT s.[c1] AS [id], s.[c2] AS [amount] FROM [naviglio].[s_1] AS s"
        " WHERE s.[_op] = N'upsert') AS s ORDER BY s.[id]"
    )


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("has_beyond", [True, False])
def test_every_statement_is_tsql(*, whole: bool, has_beyond: bool) -> None:
    """Each is read as what it is."""
    one = merge(PEOPLE, whole=whole, has_beyond=has_beyond)
    suspected = flaws(one)
    statements = [staged(one), folded(one), merge_batch(one), survey(one, suspected), twins(one)]
    statements += [flawed_key(one, flaw) for flaw in suspected]
    for statement in [*statements, insert(one).replace(HINT, "")]:
        parsed(statement)


def test_a_value_beyond_its_carrier_is_cast_from_its_text() -> None:
    """Only where staging saw any, and by the column's exact name."""
    one = merge(BARE, has_beyond=True)
    assert value(one, AMOUNT) == (
        "CASE WHEN s.[beyond c2] IS NULL THEN s.[c2]"
        " ELSE TRY_CAST(s.[beyond c2] AS decimal(9,2)) END"
    )
    assert (
        "(SELECT j.[value] FROM OPENJSON(s.[_beyond]) AS j WHERE j.[key] = N'amount'"
        " COLLATE Latin1_General_100_BIN2) AS [beyond c2]"
    ) in staged(one)
    assert "_beyond" not in staged(replace(one, has_beyond=False))


def test_no_aggregate_holds_a_subquery() -> None:
    """SQL Server refuses that (error 130)."""
    one = merge(PEOPLE, has_beyond=True)
    (tree,) = parsed(survey(one, flaws(one)))
    counts = list(tree.find_all(sqlglot.exp.Count))
    assert len(counts) > len(PEOPLE.columns)
    assert not [node for count in counts for node in count.find_all(sqlglot.exp.Select)]


@pytest.mark.parametrize(
    ("spelled", "compared"),
    [
        ("int", "x.[c]"),
        ("float(53)", "CAST(x.[c] AS binary(8))"),
        ("real", "CAST(x.[c] AS binary(4))"),
        ("varchar(9)", "CAST(x.[c] AS varbinary(9)), DATALENGTH(x.[c])"),
        ("nvarchar(max)", "CAST(x.[c] AS varbinary(max)), DATALENGTH(x.[c])"),
        ("varbinary(max)", "x.[c], DATALENGTH(x.[c])"),
        ("datetimeoffset(7)", "x.[c], DATEPART(tzoffset, x.[c])"),
        ("xml", "CAST(CAST(x.[c] AS nvarchar(max)) AS varbinary(max))"),
    ],
)
def test_rows_are_compared_byte_for_byte(spelled: str, compared: str) -> None:
    """Also where the server takes for equal what differs: case, blanks, -0.0, an offset."""
    text = Column(name="c", kind="text", carrier="string", source_type="text")
    schema = TableSchema(columns=(ID, text), key=("id",))
    one = merge(schema, found={"id": found(ID), "c": found(text, spelled=spelled)})
    sides = [compared.replace("x.", f"{alias}.") for alias in "st"]
    assert f"EXISTS (SELECT {sides[0]} EXCEPT SELECT {sides[1]})" in merge_statement(one)


def test_a_key_that_may_be_spelled_otherwise_is_updated_too() -> None:
    """`Ada` and `ada ` are one key to a collation that ignores case; the newer spelling stays."""
    schema = TableSchema(columns=(NAME,), key=("name",))
    assert "THEN UPDATE SET [name] = s.[name]" in merge_statement(merge(schema))
    only = TableSchema(columns=(ID,), key=("id",))
    assert "UPDATE" not in merge_statement(merge(only)).replace("UPDLOCK", "")


def test_keys_are_folded_as_the_target_compares_them() -> None:
    """Its own collation and type, not the staging table's."""
    schema = TableSchema(columns=(NAME,), key=("name",))
    told = found(NAME, spelled="varchar(9)", collation="French_CI_AI")
    assert twins(merge(schema, found={"name": told})) == (
        "SELECT TOP (2) CAST(q.[name] AS nvarchar(max)) FROM (SELECT r.[name], COUNT_BIG(*) OVER"
        " (PARTITION BY r.[name]) AS [_twins] FROM (SELECT CAST(s.[c1] COLLATE French_CI_AI AS"
        " varchar(9)) AS [name] FROM [naviglio].[s_1] AS s WHERE s.[_op] = N'upsert') AS r) AS q"
        " WHERE q.[_twins] > 1 ORDER BY q.[name]"
    )


def test_a_collation_is_a_word() -> None:
    """It stands in the statement unquoted."""
    for collation in ("a AS int)--", None, ""):
        with pytest.raises(TargetError, match="no collation"):
            staged(merge(PEOPLE, found={
                **{c.name: found(c) for c in PEOPLE.columns},
                "name": found(NAME, collation=collation),
            }))  # fmt: skip


def conditions(column: Column, **told: object) -> list[str]:
    """Return what could be wrong with a column's values."""
    schema = TableSchema(columns=(ID, column), key=("id",))
    one = merge(
        schema, has_beyond=True, found={"id": found(ID), column.name: found(column, **told)}
    )
    return [flaw.condition for flaw in flaws(one) if flaw.column == column.name]


def test_what_is_looked_for_before_anything_is_written() -> None:
    """Too long, not in the code page, no such value, rounded, NULL where none may be."""
    assert conditions(NAME) == [
        "DATALENGTH(s.[c2]) > 36",
        "LEN((s.[c2] + N'.') COLLATE Latin1_General_100_CS_AS_SC) - 1 > 9",
    ]
    assert conditions(NAME, spelled="varchar(9)")[:2] == [
        f"CAST(CAST(s.[c2] COLLATE {COLLATION} AS varchar(max)) AS nvarchar(max))"
        " COLLATE Latin1_General_100_BIN2 <> s.[c2] COLLATE Latin1_General_100_BIN2",
        f"DATALENGTH(CAST(s.[c2] COLLATE {COLLATION} AS varchar(max))) > 9",
    ]
    uuid = Column(name="u", kind="uuid", carrier="string", source_type="uuid")
    assert conditions(uuid) == [
        "(s.[c2] IS NOT NULL AND TRY_CAST(s.[c2] AS uniqueidentifier) IS NULL)"
        " OR (DATALENGTH(s.[c2]) <> 72)"
    ]
    assert conditions(AMOUNT) == [
        "(s.[beyond c2] IS NOT NULL AND TRY_CAST(s.[beyond c2] AS decimal(9,2)) IS NULL)"
        " OR (CHARINDEX(N'.', s.[beyond c2]) > 0 AND LEN(s.[beyond c2])"
        " - CHARINDEX(N'.', s.[beyond c2]) > 2)"
    ]
    assert conditions(SEEN)[0].endswith(
        "(TRY_CAST(s.[beyond c2] AS datetimeoffset(7))"
        " <> TRY_CAST(s.[beyond c2] AS datetimeoffset(6)))"
    )
    assert conditions(replace(ID, name="n"), nullable=False) == ["s.[c2] IS NULL"]


def test_a_delete_is_never_cast_with_an_error() -> None:
    """Of a delete only the key counts: nobody looked at its other values."""
    time = Column(name="t", kind="time", carrier="string", source_type="time")
    schema = TableSchema(columns=(ID, time), key=("id",))
    assert "TRY_CAST(s.[c2] AS time(6))" in merge_statement(merge(schema))


# --- the logic, in another engine ----------------------------------------------------------------

# DuckDB fails on EXCEPT within a MERGE that deletes what has no source.
DIFFERS = "EXISTS (SELECT s.[amount] EXCEPT SELECT t.[amount])"
Staged = tuple[int, str | None, str]


def run(one: Merge, rows: Sequence[Staged]) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """Merge rows into (1, 1), (2, 2), (3, 3); return counts by action and what is stored."""
    database = duckdb.connect()
    database.execute("CREATE SCHEMA made; CREATE SCHEMA naviglio")
    database.execute("CREATE TABLE made.people (id BIGINT PRIMARY KEY, amount DECIMAL(9, 2))")
    database.execute("INSERT INTO made.people VALUES (1, 1), (2, 2), (3, 3)")
    database.execute("CREATE TABLE naviglio.s_1 (c1 BIGINT, c2 DECIMAL(9, 2), _op VARCHAR)")
    database.executemany("INSERT INTO naviglio.s_1 VALUES (?, ?, ?)", rows)
    text = merge_statement(one).removesuffix("\nOUTPUT $action INTO @done;")
    assert DIFFERS in text
    text = text.replace(DIFFERS, "s.[amount] IS DISTINCT FROM t.[amount]")
    (translated,) = sqlglot.transpile(text, read="tsql", write="duckdb")
    actions = database.execute(f"{translated} RETURNING merge_action").fetchall()
    counts = {action: sum(a == action for (a,) in actions) for (action,) in actions}
    stored = database.execute("SELECT id, amount::VARCHAR FROM made.people ORDER BY id").fetchall()
    database.close()
    return counts, [(number, str(amount)) for number, amount in stored]


def test_changes_are_applied_once_a_key() -> None:
    """An upsert beats a delete, equal rows stay untouched, unknown deletes do nothing."""
    rows: list[Staged] = [
        (1, "1", "upsert"), (2, None, "delete"), (2, "5", "upsert"), (3, None, "delete"),
        (3, None, "delete"), (4, "4", "upsert"), (9, None, "delete"),
    ]  # fmt: skip
    counts, stored = run(merge(BARE), rows)
    assert counts == {"UPDATE": 1, "DELETE": 1, "INSERT": 1}
    assert stored == [(1, "1.00"), (2, "5.00"), (4, "4.00")]


def test_a_whole_table_makes_equal() -> None:
    """NULL differs from a value, and what is not staged goes."""
    counts, stored = run(merge(BARE, whole=True), [(1, "1", ""), (2, None, ""), (4, "4", "")])
    assert counts == {"UPDATE": 1, "DELETE": 1, "INSERT": 1}
    assert re.sub(r"\s", "", str(stored)) == "[(1,'1.00'),(2,'None'),(4,'4.00')]"


def test_a_range_touches_its_keys_only() -> None:
    """Ranges one after the other make what a whole merge makes, and delete within themselves."""
    rows: list[Staged] = [(0, "7", ""), (2, "5", ""), (4, "4", "")]
    low = merge(BARE, whole=True, high="2")
    assert run(low, rows) == (
        {"INSERT": 1, "DELETE": 1}, [(0, "7.00"), (2, "2.00"), (3, "3.00")],
    )  # fmt: skip
    high = merge(BARE, whole=True, low="2")
    assert run(high, rows) == (
        {"UPDATE": 1, "DELETE": 1, "INSERT": 1}, [(1, "1.00"), (2, "5.00"), (4, "4.00")],
    )  # fmt: skip


def test_cuts_part_the_staged_keys_evenly() -> None:
    """In order; the same logic in another engine."""
    database = duckdb.connect()
    database.execute("CREATE SCHEMA naviglio; CREATE TABLE naviglio.s_1 (c1 BIGINT, _op VARCHAR)")
    database.execute("INSERT INTO naviglio.s_1 SELECT n * 10, 'upsert' FROM range(40) AS r(n)")
    (query,) = sqlglot.transpile(cuts(merge(BARE), 4), read="tsql", write="duckdb")
    query = query.replace("/", "//")  # T-SQL divides whole numbers wholly
    query = re.sub(r"\(max\)", "", query, flags=re.IGNORECASE)
    assert database.execute(query).fetchall() == [("100",), ("210",), ("320",)]
    parsed(count_range(merge(BARE, low="1", high="x'")))
    assert "CAST(N'x''' AS bigint)" in count_range(merge(BARE, low="1", high="x'"))
    database.close()
