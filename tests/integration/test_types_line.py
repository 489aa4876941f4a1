"""Every supported type and every odd name through the whole line, as a stream and as a diff."""

# ruff: noqa: E501 - values are listed a type a line

from __future__ import annotations

import pytest

from tests.integration.lines import DIFF, STREAM, Line
from tests.values import POSTGRES

EQUAL = {  # not identical, and most equal
    "numeric": ("1.0", "1.00"), "double precision": ("0", "-0"), "real": ("0", "-0"),
    "json": ('{"a":1}', '{ "a": 1}'), "jsonb": ("1.0", "1.00"), "interval": ("1 day", "24 hours"),
    "timetz": ("12:00+00", "13:00+01"), "text": ("\u00e9", "e\u0301"), "varchar(5)": ("a", "a "),
    "numeric[]": ("{1.0}", "{1.00}"), "integer[]": ("{1}", "[2:2]={1}"),
    "point": ("(0,0)", "(-0,0)"), "bytea": ("\\x", "\\x00"),
}  # fmt: skip


def sql(text: str) -> str:
    """Spell a value."""
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize("way", [STREAM, DIFF])
def test_every_type_and_extreme_value_arrives(line: Line, way: str) -> None:
    """As inserted, after an update of everything to its neighbour's value, and as NULL."""
    names = {f"c{n}": kind for n, kind in enumerate(POSTGRES)}
    defined = ", ".join(f"{name} {kind}" for name, kind in names.items())
    most = max(map(len, POSTGRES.values()))

    def row(number: int) -> str:
        return ", ".join(sql(v[number % len(v)]) for v in POSTGRES.values())

    line.declare(t=way)
    line.source(
        "CREATE TYPE mood AS ENUM ('sad', 'happy 😀', '')",
        "CREATE DOMAIN positive AS numeric(9,2) CHECK (VALUE > 0)",
        f"CREATE TABLE t (id int PRIMARY KEY, {defined}, modified_at timestamptz DEFAULT now())",
        "INSERT INTO t (id) VALUES (1000)",
        *(f"INSERT INTO t VALUES ({n}, {row(n)})" for n in range(most)),
    )
    line.run()
    assert line.agrees()
    listed = ", ".join(names)
    line.source(
        *(
            f"UPDATE t SET ({listed}) = ({row(n + 1)}), modified_at = now() WHERE id = {n}"
            for n in range(most)
        ),
        f"UPDATE t SET ({listed}) = ({row(3)}), modified_at = now() WHERE id = 1000",
        "INSERT INTO t (id) VALUES (1001)",
    )
    line.run()
    assert line.ledger().why_whole == ""
    assert line.agrees()


@pytest.mark.parametrize("way", [STREAM, DIFF])
def test_equal_values_that_are_not_identical_arrive(line: Line, way: str) -> None:
    """1.0 becomes 1.00, 0 becomes -0, a day 24 hours: in the lake and in the target too."""
    names = {f"c{n}": kind for n, kind in enumerate(EQUAL)}
    defined = ", ".join(f"{name} {kind}" for name, kind in names.items())
    line.declare(t=way)
    line.source(
        f"CREATE TABLE t (id int PRIMARY KEY, {defined}, modified_at timestamptz DEFAULT now())",
        f"INSERT INTO t VALUES (0, {', '.join(sql(a) for a, _ in EQUAL.values())})",
        *(
            f"INSERT INTO t SELECT {n} + 1, {', '.join(names)} FROM t WHERE id = 0"
            for n in range(len(names))
        ),
    )
    line.run()
    touched = "" if way == DIFF else ", modified_at = now()"
    for number, (name, (_, other)) in enumerate(zip(names, EQUAL.values(), strict=True)):
        line.source(f"UPDATE t SET {name} = {sql(other)}{touched} WHERE id = {number + 1}")
    line.run()
    assert line.batches()[-1].parts[0].upserts == len(names)
    assert line.ledger().updated == len(names)
    assert line.agrees()


KEYS = {
    "text": ["a", "", "A", "a ", "😀", "'\"", "\\", "e\u0301", "\u00e9"],
    "numeric": ["1.5", "NaN", "123456789012345678901234567890123456789012345678901"],
    "double precision": ["1.1", "NaN", "Infinity", "-0"],
    "timestamptz": ["2013-01-05 12:00+00", "0001-01-01+00", "9999-12-31 23:59:59.999999+00"],
    "date": ["2013-01-05", "0001-01-01"],
    "bytea": ["\\x", "\\x00"],
    "boolean": ["true", "false"],
    "char(5)": ["a", "ab"],
    "jsonb": ["{}", "1.5"],
}


@pytest.mark.parametrize("way", [STREAM, DIFF])
def test_keys_of_many_types(line: Line, way: str) -> None:
    """Composite keys of odd types are matched, changed and deleted exactly."""
    line.declare(**{f"k{n}": way for n in range(len(KEYS))})
    for n, (kind, values) in enumerate(KEYS.items()):
        line.source(
            f"CREATE TABLE k{n} (k {kind}, part int, v text, modified_at timestamptz DEFAULT now(), PRIMARY KEY (k, part))",
            *(
                f"INSERT INTO k{n} SELECT {sql(v)}, p, 'v' FROM generate_series(1, 2) p"
                for v in values
            ),
        )
    line.run()
    for n in range(len(KEYS)):
        line.source(f"UPDATE k{n} SET v = 'changed', modified_at = now() WHERE part = 1")
    if way == DIFF:
        for n in range(len(KEYS)):
            line.source(
                f"DELETE FROM k{n} WHERE part = 2 AND k = (SELECT min(k::text) FROM k{n})::{list(KEYS)[n]}"
            )
    line.run()
    for n, kind in enumerate(KEYS):
        expected = line.source_rows(f"k{n}")
        assert line.lake_rows(f"k{n}") == expected, kind
        assert line.target_rows(f"k{n}") == expected, kind
    assert [v for v in line.reconcile() if not v.ok or v.in_flight.count] == []


NAMES = [
    "select",
    "Upper",
    "with space",
    "dot.ted",
    'quo"te',
    "tick`",
    "ünïcödé",
    "😀",
    "a,b;{c}",
    "(x)=y",
    "100%",
    "x" * 63,
    "ctid_",
    "_op_",
    "'",
    "$1",
    "s",
    "t",
]


@pytest.mark.parametrize("way", [STREAM, DIFF])
def test_columns_may_be_called_anything(line: Line, way: str) -> None:
    """Reserved words, dots, blanks, quotes, 63 characters, emoji: keys, values and watermark."""
    quoted = ['"' + name.replace('"', '""') + '"' for name in NAMES]
    key, modified = quoted[4], quoted[3]
    columns = ", ".join(f"{name} text" for name in quoted if name not in (key, modified))
    line.declare(t=way.replace("modified_at", '"dot.ted"'))
    line.source(
        f'CREATE TABLE t ({key} int, {columns}, {modified} timestamptz DEFAULT now(), PRIMARY KEY ({key}, "select"))',
        f"INSERT INTO t ({key}, \"select\", \"Upper\", \"😀\") SELECT n, 'k', 'u', 'e' FROM generate_series(1, 5) n",
    )
    line.run()
    line.source(
        f"UPDATE t SET \"with space\" = 'w', \"a,b;{{c}}\" = 'x', {modified} = now() WHERE {key} = 2",
        f"INSERT INTO t ({key}, \"select\", \"'\") VALUES (9, 's', 'q')",
        *([f"DELETE FROM t WHERE {key} = 1"] if way == DIFF else []),
        "ALTER TABLE t ADD COLUMN \"new column.😀\" text DEFAULT 'd'",
    )
    line.run()
    assert line.agrees()


@pytest.mark.parametrize(
    "name", ["select", "Upper Case", "dot.ted", 'quo"te', "ünïcödé😀", "x" * 63, "a/b", "100%"]
)
def test_tables_may_be_called_anything(line: Line, name: str) -> None:
    """The source's and the target's tables; only the name in the pipeline is plain."""
    quoted = '"' + name.replace('"', '""') + '"'
    said = "'" + name.replace("'", "''") + "'"
    line.declare(
        t=f"{{capture: {{where: modified_at}}, deletes: sweep, source: {{schema: {line.name}, table: {said}}}, "
        f"target: {{schema: {line.name}, table: {said}}}}}"
    )
    line.source(
        f"CREATE TABLE {quoted} (id int PRIMARY KEY, modified_at timestamptz DEFAULT now())",
        f"INSERT INTO {quoted} SELECT generate_series(1, 5)",
    )
    line.run()
    line.source(f"INSERT INTO {quoted} VALUES (9)", f"DELETE FROM {quoted} WHERE id = 1")
    line.run()
    assert line.agrees()
