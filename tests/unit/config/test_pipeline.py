"""Pipelines as YAML: what is read, and what every kind of mistake is answered with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from naviglio.config.pipeline import load_pipeline, load_pipelines, read_folder
from naviglio.errors import ConfigError
from naviglio.model import Deletes, Guard, Runs, TableName, Watch

ROOT = Path(__file__).parents[3]

HEAD = "source: operations\ntarget: warehouse\n"  # lines 1 and 2
DIFF = HEAD + "tables: {planes: {capture: diff}}\n"  # line 3


def _write(folder: Path, text: str, name: str = "p.yaml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def _error(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        load_pipeline(path)
    return str(raised.value)


def test_the_demo_pipeline_is_what_its_comments_say() -> None:
    """The demo's file reads as two streams with sweeps and one registry group by diff."""
    pipeline = load_pipeline(ROOT / "include/pipelines/flights.yaml")
    assert pipeline.time_zone == "America/New_York"
    assert {group.name: [t.name for t in group.tables] for group in pipeline.groups} == {
        "flights": ["flights"],
        "weather": ["weather"],
        "registry": ["planes", "airports", "airlines"],
    }
    assert {table.name: table.way for table in pipeline.tables} == {
        "flights": "stream",
        "weather": "stream",
        "planes": "diff",
        "airports": "diff",
        "airlines": "diff",
    }
    flights = pipeline.groups[0].table("flights")
    assert (flights.modified, flights.event_time) == ("modified_at", "time_hour")
    assert flights.deletes == Deletes(way="sweep")
    assert flights.target == TableName(schema="flights", table="flights")


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    """Three lines are a pipeline: named after its file, UTC, table names as at the source."""
    pipeline = load_pipeline(_write(tmp_path, DIFF, "my-planes.yaml"))
    planes = pipeline.tables[0]
    assert (pipeline.name, pipeline.time_zone) == ("my-planes", "UTC")
    assert (pipeline.fence_margin_s, pipeline.safety_lag_s) == (1.0, None)
    assert planes.source == TableName(schema="", table="planes")
    assert planes.target == TableName(schema="public", table="planes")
    assert (planes.key, planes.nulls, planes.adopt, planes.guard) == ((), "refuse", False, Guard())


def test_everything_that_can_be_said_is_heard(tmp_path: Path) -> None:
    """Every key reaches the model; a table's limit beats the pipeline's, one by one."""
    text = """\
pipeline: sales
description: Orders
source: a
target: b
time_zone: Europe/Rome
fence_margin: 500ms
safety_lag: 1.5h
target_schema: dwh
mass_delete: {fraction: 0.5, rows: 7}
tables:
  orders:
    source: shop.Orders
    target: mart.fact_orders
    key: [id, line]
    capture: {where: changed}
    nulls: read
    event_time: day
    deletes: {sweep: 1d}
    adopt: true
    mass_delete: {rows: 9}
  marked: {capture: {where: changed}, deletes: {column: gone}, target: other}
  unseen: {capture: {where: changed}, deletes: none}
  days: {capture: windows, event_time: at, since: 2013-01-01}
  quoted: {capture: windows, event_time: at, since: "2013-01-01"}
  dotted: {capture: diff, source: {schema: a.b, table: c.d}}
"""
    pipeline = load_pipeline(_write(tmp_path, text))
    tables = {table.name: table for table in pipeline.tables}
    orders = tables["orders"]
    assert (pipeline.name, pipeline.description, pipeline.source) == ("sales", "Orders", "a")
    assert (pipeline.fence_margin_s, pipeline.safety_lag_s) == (0.5, 5400.0)
    assert str(orders.source) == "shop.Orders"
    assert str(orders.target) == "mart.fact_orders"
    assert (orders.key, orders.nulls, orders.adopt) == (("id", "line"), "read", True)
    assert orders.deletes == Deletes(way="sweep", every_s=86400.0)
    assert orders.guard == Guard(fraction=0.5, rows=9)
    assert tables["marked"].deletes == Deletes(way="column", column="gone")
    assert str(tables["marked"].target) == "dwh.other"
    assert tables["unseen"].deletes == Deletes()
    assert tables["days"].since == tables["quoted"].since == "2013-01-01"
    assert tables["dotted"].source == TableName(schema="a.b", table="c.d")


def test_words_of_yaml_1_1_stay_words(tmp_path: Path) -> None:
    """A table called `no` or `on` is a table, not a truth value."""
    text = HEAD + "tables: {no: {capture: diff}, on: {capture: diff}}\n"
    assert [one.name for one in load_pipeline(_write(tmp_path, text)).tables] == ["no", "on"]


UNREADABLE = {
    "empty": ("", r"p\.yaml: the file is empty"),
    "only a comment": ("# nothing\n", "empty"),
    "a list": ("- a\n- b\n", r"p\.yaml:1: expected keys and values, found a list"),
    "a value": ("\nhello\n", r"p\.yaml:2: .* found a single value"),
    "syntax": ("source: [a, b\ntarget: c\n", r"p\.yaml:2: not valid YAML"),
    "a tab": ("tables:\n\tplanes: 1\n", r"p\.yaml:2: not valid YAML: .*tab; indent with spaces"),
    "an unknown alias": ("source: *x\n", r"p\.yaml:1: not valid YAML: .*alias 'x'"),
    "two documents": ("a: 1\n---\nb: 2\n", r"p\.yaml:2: not valid YAML: .*document"),
    "a control character": ("a: 1\nb: \x01\n", r"p\.yaml:2: .*control character"),
    "deep": ("[" * 5000, "nested deeper than 20"),
    "large": ("a: 1\n" * 250_000, "larger than 1,000,000 bytes"),
    "an alias bomb": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)),
        r"p\.yaml:\d+: more than 200,000 values",
    ),
    "an alias of itself": ("a: &a [*a]\n", r"p\.yaml:1: more than .* 20 levels"),
}


@pytest.mark.parametrize(("text", "told"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_yaml_mapping_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """The answer names the file, the line and what was expected, and takes no time or memory."""
    assert re.match(rf"{re.escape(str(tmp_path))}.*{told}", _error(_write(tmp_path, text)))


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder and a file in another encoding are told apart."""
    path = tmp_path / "p.yaml"
    assert "can't be read: No such file" in _error(path)
    path.write_bytes(b"source: a\ntarget: caf\xe9\n")
    assert f"{path}:2: not UTF-8" in _error(path)
    (tmp_path / "folder.yaml").mkdir()
    assert "not a file" in _error(tmp_path / "folder.yaml")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Editors of Windows put one before UTF-8."""
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + DIFF.encode())
    assert load_pipeline(path).source == "operations"


def _table(text: str) -> str:
    return f"{HEAD}tables:\n  planes:\n    {text}\n"  # the text stands on line 5


WRONG = {
    # --- keys and types
    "key twice": (DIFF + "source: x\n", "4: source: the key stands on line 1 already"),
    "unknown key": (DIFF + "sourse: x\n", "4: sourse: unknown key; known: pipeline, description"),
    "close key": (DIFF + "time_zon: x\n", "Did you mean 'time_zone'?"),
    "table's unknown key": (
        _table("capture: diff\n    delets: none"),
        "6: tables.planes.delets: unknown key; known: capture, source, target, key, event_time, "
        "since, nulls, deletes, adopt, mass_delete, run_as, load. Did you mean 'deletes'?",
    ),
    "way's unknown key": (
        _table("capture: {wher: x}"),
        "5: tables.planes.capture.wher: unknown key; known: where, zone, lag. Did you mean "
        "'where'?",
    ),
    "deletes' unknown key": (
        _table("deletes: {colum: x}\n    capture: {where: m}"),
        "5: tables.planes.deletes.colum: unknown key; known: column, sweep. Did you mean 'column'?",
    ),
    "guard's unknown key": (
        DIFF + "mass_delete: {row: 1}\n",
        "4: mass_delete.row: unknown key; known: fraction, rows. Did you mean 'rows'?",
    ),
    "merge key": (DIFF + "<<: {source: x}\n", "4: <<: unknown key"),
    "key that is no text": (DIFF + "? [a]\n: 1\n", "4: a key must be a plain text"),
    "missing source": ("target: b\ntables: {t: {capture: diff}}\n", "1: source: is missing"),
    "missing tables": (HEAD, "1: tables: is missing. Name at least one table"),
    "no tables": (HEAD + "tables: {}\n", "3: tables: must not be empty"),
    "tables as a list": (HEAD + "tables: [a]\n", "3: tables: must be keys and values, not a list"),
    "table without a word": (HEAD + "tables:\n  planes:\n", "4: tables.planes: must be keys and"),
    "number for a text": ("source: 5\ntarget: b\n", "1: source: must be text, not 5"),
    "empty text": ("source: ''\ntarget: b\n", "1: source: must be a name of one or more"),
    "text for a truth": (
        _table("capture: diff\n    adopt: yes"),
        "6: tables.planes.adopt: must be",
    ),
    "text for a list": (
        _table("capture: diff\n    key: id"),
        "6: tables.planes.key: must be a list, such as [a, b], not 'id'",
    ),
    "empty key": (_table("capture: diff\n    key: []"), "6: tables.planes.key: must not be empty"),
    "column twice": (_table("capture: diff\n    key: [a, a]"), "a stands there twice"),
    "number in a list": (_table("capture: diff\n    key: [a, 1]"), "tables.planes.key[1]: must be"),
    "unreadable value": (DIFF + "description: 2013-99-99\n", "4: description: '2013-99-99' can't"),
    "unknown tag": (DIFF + "description: !x a\n", "4: description: 'a' can't be read as !x"),
    "not finite": (DIFF + "mass_delete: {fraction: .nan}\n", "4: mass_delete.fraction: must be a"),
    "too large": (DIFF + "mass_delete: {fraction: 2}\n", "less than or equal to 1, not 2"),
    # --- values
    "duration without a unit": (DIFF + "fence_margin: 5\n", "5 is no duration. Write one as 500ms"),
    "strange duration": (DIFF + "safety_lag: 5 weeks\n", "4: safety_lag: '5 weeks' is no duration"),
    "no lag at all": (DIFF + "safety_lag: 0s\n", "4: safety_lag: Input should be greater than 0"),
    "bad zone": (
        DIFF + "time_zone: America/New York\n",
        "4: time_zone: no time zone is called 'America/New York'. Did you mean 'America/New_York'?",
    ),
    "a folder of zones": (DIFF + "time_zone: America\n", "no time zone is called 'America'"),
    "a path as zone": (DIFF + "time_zone: ../UTC\n", "no time zone is called '../UTC'"),
    "pipeline's name": (DIFF + "pipeline: My Flights\n", "4: pipeline: 'My Flights' is no name"),
    "table's name": (HEAD + "tables: {a b: {capture: diff}}\n", "3: tables.a b: 'a b' is no name"),
    "path as a name": (HEAD + "tables: {../x: {capture: diff}}\n", "'../x' is no name"),
    "three parts": (
        _table("capture: diff\n    source: a.b.c"),
        "6: tables.planes.source: 'a.b.c' is neither TABLE nor SCHEMA.TABLE",
    ),
    "another zone": (
        _table("capture: {where: m, zone: Europe/Rome}\n    deletes: none"),
        "tables.planes.capture.zone: 'Europe/Rome' is none of the ways; known: UTC",
    ),
    "negative lag": (
        _table("capture: {where: m, lag: -1}\n    deletes: none"),
        "tables.planes.capture.lag: ",
    ),
    "own column": (_table("capture: {where: _op}"), "'_op' is a column of Naviglio's own"),
    "own schema": (DIFF + "target_schema: Naviglio\n", "4: target_schema: schema 'Naviglio' holds"),
    "own schema, a table's": (
        _table("capture: diff\n    target: naviglio.x"),
        "6: tables.planes.target: schema 'naviglio' holds",
    ),
    # --- ways of capture
    "no way": (_table("key: [id]"), "4: tables.planes.capture: is missing. Choose how changes"),
    "unknown way": (
        _table("capture: windoes"),
        "5: tables.planes.capture: 'windoes' is none of the ways; known: windows, diff, "
        "{where: COLUMN}. Did you mean 'windows'?",
    ),
    "where without deletes": (
        _table("capture: {where: changed}"),
        "4: tables.planes.deletes: `capture: {where: changed}` can't see deletes: a deleted row "
        "has no modification time. Choose `none` (deletes stay unseen), `sweep` or",
    ),
    "unknown deletes": (
        _table("deletes: columns\n    capture: {where: m}"),
        "5: tables.planes.deletes: 'columns' is none of the ways; known: none, sweep, "
        "{sweep: DURATION}, {column: COLUMN}",
    ),
    "two ways to see deletes": (
        _table("deletes: {column: c, sweep: 1d}\n    capture: {where: m}"),
        "5: tables.planes.deletes: takes one of {column: COLUMN} and {sweep: DURATION}",
    ),
    "deletes of a diff": (
        _table("capture: diff\n    deletes: {column: gone}"),
        "6: tables.planes.deletes: `capture: diff` sees every delete. Remove `deletes`",
    ),
    "nulls of a diff": (_table("capture: diff\n    nulls: read"), "Remove `nulls`"),
    "unknown nulls": (
        _table("nulls: skip\n    capture: diff"),
        "5: tables.planes.nulls: 'skip' is none of the ways; known: refuse, read, ignore",
    ),
    "windows without event time": (
        _table("capture: windows\n    since: 2013-01-01"),
        "4: tables.planes.event_time: `capture: windows` needs `event_time`",
    ),
    "windows without a beginning": (
        _table("capture: windows\n    event_time: at"),
        "4: tables.planes.since: `capture: windows` needs `since`",
    ),
    "no day": (
        _table("capture: windows\n    since: tomorrow\n    event_time: at"),
        "6: tables.planes.since: must be a day as YYYY-MM-DD, not 'tomorrow'",
    ),
    "no day but a year": (
        _table("capture: windows\n    since: 2013\n    event_time: at"),
        "6: tables.planes.since: must be a day as YYYY-MM-DD, not 2013",
    ),
    "a beginning of a diff": (_table("capture: diff\n    since: 2013-01-01"), "Remove `since`"),
    # --- between tables and groups
    "names but for case": (
        HEAD + "tables:\n  a: {capture: diff}\n  A: {capture: diff}\n",
        "5: tables.A: differs from 'a' only by case",
    ),
    "two tables on one target": (
        HEAD + "tables:\n  a: {capture: diff}\n  b: {capture: diff, target: public.A}\n",
        "5: tables.b.target: target public.A is the target of table 'a' already",
    ),
    "group of an unknown table": (
        DIFF + "groups:\n  g: [plains]\n",
        "5: groups.g[0]: no table is called 'plains'; known: planes. Did you mean 'planes'?",
    ),
    "table in two groups": (
        DIFF + "groups:\n  g: [planes]\n  h: [planes]\n",
        "6: groups.h[0]: table 'planes' is in group 'g' already",
    ),
    "table twice in a group": (DIFF + "groups: {g: [planes, planes]}\n", "stands there twice"),
    "number in a group": (DIFF + "groups: {g: [5]}\n", "4: groups.g[0]: must be text, not 5"),
    "empty group": (DIFF + "groups: {g: []}\n", "4: groups.g: must not be empty"),
    "group of a text": (DIFF + "groups: {g: planes}\n", "4: groups.g: must be a list"),
    "group named like another table": (
        HEAD + "tables: {a: {capture: diff}, b: {capture: diff}}\ngroups:\n  A: [b]\n",
        "5: groups.A: has the name of table 'a', which is not in it. Rename the group",
    ),
    "group named like a transform": (
        HEAD + "tables:\n  a: {capture: {where: m}, deletes: none, event_time: at}\n"
        "  b: {capture: diff}\n"
        "transforms:\n  both: {program: p.sql, key: [d], day: d, inputs: {a: day}}\n"
        "groups: {both: [b]}\n",
        "groups.both: has the name of transform 'both'",
    ),
    "groups but for case": (
        HEAD + "tables: {a: {capture: diff}, b: {capture: diff}}\ngroups: {g: [a], G: [b]}\n",
        "4: groups.G: has the name of group 'g'",
    ),
}


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG)
def test_every_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    """File, line, key and known values stand in the answer; each promise is one of `WRONG`."""
    path = _write(tmp_path, text)
    said = _error(path)
    assert told in said
    assert all(re.match(rf"{re.escape(str(path))}:\d+: ", line) for line in said.splitlines())


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Nobody has to correct a file mistake by mistake; they are told from the top down."""
    text = """\
target: 5
source: operations
source: twice
time_zone: Mars
tables:
  a: {capture: {where: m}, kee: [id]}
  b: {capture: windows, nulls: read}
groups:
  g: [c]
"""
    lines = [line.split(":")[1:3] for line in _error(_write(tmp_path, text)).splitlines()]
    assert [(number, key.strip()) for number, key in lines] == [
        ("1", "target"),
        ("3", "source"),
        ("4", "time_zone"),
        ("6", "tables.a.deletes"),
        ("6", "tables.a.kee"),
        ("7", "tables.b.event_time"),
        ("7", "tables.b.since"),
        ("7", "tables.b.nulls"),
        ("9", "groups.g[0]"),
    ]


def test_a_file_name_that_is_no_name_asks_for_one(tmp_path: Path) -> None:
    """Without `pipeline:` the file's name must be fit to be one."""
    assert "'My Flights' is no name" in _error(_write(tmp_path, DIFF, "My Flights.yaml"))


def test_one_broken_file_takes_no_other_down(tmp_path: Path) -> None:
    """The good pipelines of a folder are read, and each bad file has its own error."""
    _write(tmp_path, DIFF, "good.yaml")
    bad = _write(tmp_path, "- 1\n", "bad.yml")
    _write(tmp_path, "- 1\n", ".hidden.yaml")
    _write(tmp_path, "no pipeline", "notes.txt")
    found = read_folder(tmp_path)
    assert list(found.pipelines) == ["good"]
    assert list(found.errors) == [bad]
    with pytest.raises(ConfigError, match=r"bad\.yml:1: expected keys and values"):
        load_pipelines(tmp_path)


def test_a_folder_without_mistakes_is_read_whole(tmp_path: Path) -> None:
    """Pipelines come by their names."""
    _write(tmp_path, DIFF, "a.yaml")
    _write(tmp_path, DIFF + "target_schema: other\npipeline: z\n", "b.yaml")
    assert sorted(load_pipelines(tmp_path)) == ["a", "z"]


def test_two_files_of_one_name_are_both_refused(tmp_path: Path) -> None:
    """Which of the two is meant, only a person can say; both files are named."""
    one = _write(tmp_path, DIFF + "pipeline: same\n", "a.yaml")
    two = _write(tmp_path, DIFF + "pipeline: same\ntarget_schema: other\n", "b.yaml")
    _write(tmp_path, DIFF + "target_schema: third\n", "c.yaml")
    found = read_folder(tmp_path)
    assert list(found.pipelines) == ["c"]
    assert {str(error) for error in found.errors.values()} == {
        f"{one} and {two}: both are called 'same'. Change one of them."
    }


def test_two_files_on_one_target_are_both_refused(tmp_path: Path) -> None:
    """One pipeline a target: the same connection and table, whatever its case."""
    one = _write(tmp_path, DIFF, "a.yaml")
    two = _write(tmp_path, DIFF.replace("planes", "PLANES"), "b.yaml")
    with pytest.raises(ConfigError) as raised:
        load_pipelines(tmp_path)
    assert str(raised.value) == (
        f"{one} and {two}: both write public.PLANES of connection 'warehouse'. Change one of them."
    )


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """The answer says what to set."""
    with pytest.raises(ConfigError, match=r"no such folder of pipelines.*NAVIGLIO_PIPELINES"):
        read_folder(tmp_path / "none")


def test_runs_are_as_the_file_says(tmp_path: Path) -> None:
    """A schedule, limits, owner and tags arrive; without them a pipeline is run by hand."""
    path = tmp_path / "p.yaml"
    path.write_text(DIFF)
    assert load_pipeline(path).runs == Runs()
    path.write_text(
        DIFF + "schedule: {cron: '0 6 * * *'}\nmax_active_runs: 3\nlanes: 2\nowner: ann\n"
        "tags: [a, b]\npools: {load: dwh, transform: spark}\n"
    )
    runs = load_pipeline(path).runs
    assert runs == Runs(
        cron="0 6 * * *", most_at_once=3, lanes=2, owner="ann", tags=("a", "b"),
        pools=(("transform", "spark"), ("load", "dwh")),
    )  # fmt: skip
    assert (runs.pool("load"), runs.pool("capture")) == ("dwh", None)
    path.write_text(
        DIFF + "schedule: {assets: [lake/a/b, w/m.t], watch: {table: m.closed, column: day}}\n"
    )
    watch = Watch(
        connection="operations", table=TableName(schema="m", table="closed"), column="day"
    )
    assert load_pipeline(path).runs == Runs(assets=("lake/a/b", "w/m.t"), watch=watch)
    path.write_text(DIFF + "schedule: {watch: {file: /in/done, every: 2s}}\n")
    assert load_pipeline(path).runs == Runs(watch=Watch(file="/in/done", every_s=2.0))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("schedule: {cron: daily}", r":4: schedule\.cron: 'daily' is no cron expression"),
        ("schedule: {cron: '0 6 * * * *'}", "every day at six"),
        ("schedule: {every: 1d}", r"schedule\.every: unknown key; known: cron"),
        ("pools: {laod: dwh}", r"pools\.laod: unknown key"),
        ("schedule: {}", r"schedule: says nothing. Write `cron`, `assets` or `watch`"),
        ("schedule: {cron: '0 6 * * *', assets: [w/m.t]}", "takes one of `cron` and `assets`"),
        ("schedule: {assets: [orders]}", r"'orders' names no table .*CONNECTION/SCHEMA\.TABLE"),
        ("schedule: {watch: {}}", r"schedule\.watch: takes one of {file: PATH} and {table"),
        ("schedule: {watch: {table: closings}}", r"schedule\.watch: takes one of"),
        ("schedule: {watch: {file: here}}", "`file` is an absolute path"),
        ("schedule: {watch: {file: /f, often: 1s}}", r"often: unknown key; known: file, table"),
        ("lanes: 0", r":4: lanes: .*greater than or equal to 1, not 0"),
        ("max_active_runs: many", r":4: max_active_runs: must be a whole number"),
        ("tags: [a, a]", "tags: a stands there twice"),
    ],
)
def test_a_schedule_that_cannot_be_is_told(tmp_path: Path, said: str, told: str) -> None:
    """Every mistake names its line, its key and what would do."""
    path = tmp_path / "p.yaml"
    path.write_text(DIFF + said + "\n")
    with pytest.raises(ConfigError, match=told):
        load_pipeline(path)
