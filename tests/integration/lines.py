"""A line of one's own: a schema in the source, one in the target, a home, and eyes of its own.

What the three sides hold is read by SQL and Arrow, never by the product's own comparison.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import psycopg
import pyarrow as pa
from deltalake import DeltaTable
from psycopg.rows import dict_row

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.adapters.postgres.sql import literal, quote, table
from naviglio.capture.table import Wish
from naviglio.config.home import Home
from naviglio.config.pipeline import load_pipeline
from naviglio.connections.connections import Connections, variable_of
from naviglio.errors import NaviglioError
from naviglio.flows.accept import accept, open_questions
from naviglio.flows.plan import TablePlan, plan
from naviglio.flows.reconcile import Verdict, reconcile
from naviglio.flows.replicate import Report, replicate
from naviglio.flows.site import Site, open_site
from naviglio.model import BEYOND, LedgerRow, Manifest, Pipeline, Question, TableSpec
from naviglio.partitions import window_of, windows_between

Rows = set[tuple[str | None, ...]]
STREAM = "{capture: {where: modified_at}, deletes: none}"
SWEPT = "{capture: {where: modified_at}, deletes: sweep}"
DIFF = "{capture: diff}"


@dataclass(kw_only=True)
class Line:
    """One pipeline between two schemas of the same random name; YAML says the rest."""

    home: Home
    name: str
    urls: dict[str, str]  # operations, warehouse, and operations_app, which changes the source
    tables: str = ""
    head: str = "fence_margin: 0s"
    reports: list[Report] = field(default_factory=list)

    # --- what a user does -----------------------------------------------------------------------

    def declare(self, head: str = "", **tables: str) -> None:
        """Say what the pipeline's tables are, each in YAML's flow style."""
        said = [
            f"  {name}: {form if 'source:' in form else _with(form, f'source: {self.name}.{name}')}"
            for name, form in tables.items()
        ]
        self.tables = "\n".join(said)
        self.head = head or self.head

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline as its file says."""
        path = self.home.pipelines / f"{self.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"source: operations\ntarget: warehouse\ntarget_schema: {self.name}\n{self.head}\n"
            f"tables:\n{self.tables}\n"
        )
        return load_pipeline(path)

    def site(self) -> Site:
        """Return a fresh site; close it."""
        environ = {variable_of(name): url for name, url in self.urls.items()}
        return Site(pipeline=self.pipeline, home=self.home, connections=Connections(environ, None))

    def try_run(self, wish: Wish | None = None) -> dict[str, Report]:
        """Run every group once; errors stand in the reports."""
        site = self.site()
        with open_site(site.pipeline, site.home, site.connections) as opened:
            self.reports = [
                replicate(opened, group, wish or Wish()) for group in opened.pipeline.groups
            ]
        return {report.group: report for report in self.reports}

    def run(self, wish: Wish | None = None) -> Report:
        """Run every group once and return the last one's report; whatever fails raises."""
        for report in self.try_run(wish).values():
            if report.error is not None:
                raise report.error
        return self.reports[-1]

    def plan(self, wish: Wish | None = None) -> TablePlan:
        """Return what a run would do with the first table."""
        site = self.site()
        with open_site(site.pipeline, site.home, site.connections) as opened:
            return plan(opened, opened.pipeline.groups[0], wish or Wish())[0]

    def partitions(self, first: str, last: str = "") -> Report:
        """Run days, one batch a day, as the command line does."""
        zone = ZoneInfo(self.pipeline.time_zone)
        for window in windows_between(first, last or first, zone).values():
            self.run(Wish(windows=(window,)))
        return self.reports[-1]

    def verify(self) -> Report:
        """Read windows again that changed."""
        return self.run(Wish(verify=True))

    def resnapshot(self) -> Report:
        """Read all tables whole."""
        return self.run(Wish(whole="asked by resnapshot"))

    def questions(self) -> list[Question]:
        """Return the open questions of all groups."""
        site = self.site()
        return [q for group in site.pipeline.groups for q in open_questions(site, group)]

    def accept(self) -> None:
        """Answer every open question."""
        site = self.site()
        for group in site.pipeline.groups:
            accept(site, group, open_questions(site, group), by="a tester")

    def reconcile(self, name: str = "") -> list[Verdict]:
        """Return the product's own verdicts (on the group of one table)."""
        site = self.site()
        with open_site(site.pipeline, site.home, site.connections) as opened:
            groups = opened.pipeline.groups
            named = [g for g in groups if name in [table.name for table in g.tables]]
            return [v for group in named or groups for v in reconcile(opened, group)]

    # --- the source and the target, from outside ------------------------------------------------

    def source(self, *statements: str) -> list[tuple[Any, ...]]:
        """Change the source, or ask it, as its application; each statement commits."""
        return _all(self.urls["operations_app"], self.name, statements)

    def target(self, *statements: str) -> list[tuple[Any, ...]]:
        """Change the target, or ask it."""
        return _all(self.urls["warehouse"], self.name, statements)

    def open_source(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a session of the application, not committing by itself."""
        connection = psycopg.connect(self.urls["operations_app"])
        connection.execute(f"SET search_path = {quote(self.name)}, pg_catalog".encode())
        connection.commit()
        return connection

    # --- what stands where ----------------------------------------------------------------------

    def table(self, name: str = "t") -> TableSpec:
        """Return a table of the pipeline."""
        return {spec.name: spec for spec in self.pipeline.tables}[name]

    def landing_of(self, group: str = "t") -> Path:
        """Return the folder of a group's landing."""
        return self.home.landing / self.name / group

    def lake_of(self, name: str = "t") -> Path:
        """Return the folder of a lake table."""
        return self.home.lake / self.name / name

    def batches(self, group: str = "t") -> list[Manifest]:
        """Return all batches of a group."""
        site = self.site()
        [found] = [g for g in site.pipeline.landings if g.name == group]
        return list(site.landing(found).after(0))

    def ledger(self, name: str = "t") -> LedgerRow:
        """Return a target's ledger row."""
        with psycopg.connect(self.urls["warehouse"], row_factory=dict_row) as connection:
            found = connection.execute(
                "SELECT * FROM naviglio.ledger WHERE target = %s", (str(self.table(name).target),)
            ).fetchone()
        assert found is not None
        return LedgerRow(**found)

    def traces(self) -> dict[str, str]:
        """Return all files of landing and lake, ledger rows and target rows, each by a digest.

        Questions are left out (asking one writes it down), and the id that a landing begins with.
        """
        found = {
            str(path.relative_to(self.home.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for root in (self.home.landing, self.home.lake)
            for path in sorted(root.rglob("*"))
            if path.is_file()
            and path.parent.name not in ("questions", "answers")
            and path.name != "landing.json"
        }
        with psycopg.connect(self.urls["warehouse"]) as connection:
            for name in _tables_of(connection, self.name):
                rows = connection.execute(f"SELECT t::text FROM {name} t ORDER BY 1".encode())
                found[name] = repr(rows.fetchall())
            if _has_ledger(connection):
                mine = "SELECT l::text FROM naviglio.ledger l WHERE pipeline = %s ORDER BY 1"
                found["ledger"] = repr(connection.execute(mine, (self.name,)).fetchall())
        return found

    # --- the rows -------------------------------------------------------------------------------

    def columns(self, name: str = "t") -> dict[str, str]:
        """Return the source's columns and their base types, in order."""
        spec = self.table(name).source
        rows = self.source(
            "SELECT attname::text, (CASE WHEN typtype = 'd' THEN typbasetype ELSE t.oid END)"
            "::regtype::text FROM pg_attribute JOIN pg_type t ON t.oid = atttypid "
            f"WHERE attrelid = {literal(table(spec))}::regclass AND attnum > 0 "
            "AND NOT attisdropped ORDER BY attnum"
        )
        return dict(rows)

    def source_rows(self, name: str = "t", where: str = "true") -> Rows:
        """Return the source's rows, each value as the server's own text."""
        columns = self.columns(name)
        found = self.source(_texts(table(self.table(name).source), columns, where))
        return _normal(found, columns)

    def target_rows(self, name: str = "t", columns: Mapping[str, str] | None = None) -> Rows:
        """Return the target's rows likewise."""
        columns = columns or self.columns(name)
        found = self.target(_texts(table(self.table(name).target), columns, "true"))
        return _normal(found, columns)

    def lake_rows(
        self, name: str = "t", columns: Mapping[str, str] | None = None, version: int | None = None
    ) -> Rows:
        """Return the lake's rows likewise, from the Delta table itself."""
        columns = columns or self.columns(name)
        lake = DeltaTable(str(self.lake_of(name)), version=version)
        rows = pa.RecordBatchReader.from_stream(lake.scan()).read_all().to_pylist()
        texts = []
        for row in rows:
            beyond = json.loads(row[BEYOND] or "{}")
            texts.append(tuple(beyond.get(c, _text(row[c], k)) for c, k in columns.items()))
        assert len(set(texts)) == len(texts) or not columns
        return _normal(texts, columns)

    def agrees(self, name: str = "t", where: str = "true") -> bool:
        """Whether source, lake and target hold the same values, and `reconcile` says so.

        `where` tells which rows of the source are meant to arrive.
        """
        expected = self.source_rows(name, where)
        columns = self.columns(name)
        assert self.lake_rows(name) == expected, _differing(self.lake_rows(name), expected, columns)
        rows = self.target_rows(name)
        assert rows == expected, _differing(rows, expected, columns)
        if where == "true":
            assert [v for v in self.reconcile(name) if not v.ok or v.in_flight.count] == []
        return True

    def lake_is_target(self, name: str = "t") -> bool:
        """Whether lake and target hold the same values."""
        assert self.lake_rows(name) == self.target_rows(name)
        return True


def new_line(cluster: Cluster, folder: Path, source: Cluster | None = None) -> Line:
    """Make a line with new schemas; `source` is another cluster than the target's."""
    home = Home(root=folder / "home", pipelines=folder / "pipelines")
    name = f"line_{uuid.uuid4().hex[:12]}"
    urls = {
        **cluster.urls(),
        **{k: v for k, v in (source or cluster).urls().items() if "operations" in k},
    }
    line = Line(home=home, name=name, urls=urls)
    make_schema(line)
    return line


def make_schema(line: Line) -> None:
    """Make the source's schema, which the capturing role may read."""
    with psycopg.connect(line.urls["operations_app"], autocommit=True) as connection:
        for statement in (
            f"CREATE SCHEMA {line.name}",
            f"GRANT USAGE ON SCHEMA {line.name} TO naviglio_source",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {line.name} GRANT SELECT ON TABLES "
            "TO naviglio_source",
        ):
            connection.execute(statement.encode())


def drop_schemas(line: Line) -> None:
    """Leave nothing behind that later tests would read past."""
    for role, ledger in (("operations_app", False), ("warehouse", True)):
        with psycopg.connect(line.urls[role], autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {line.name} CASCADE".encode())
            if ledger and _has_ledger(connection):
                connection.execute("DELETE FROM naviglio.ledger WHERE pipeline = %s", (line.name,))


def moved_aside(path: Path) -> Path:
    """Move a folder away, as an error message advises."""
    return path.rename(path.with_name(f"{path.name}.aside-{uuid.uuid4().hex[:6]}"))


def window(line: Line, day: str) -> Wish:
    """Return the wish for one partition."""
    return Wish(windows=(window_of(day, ZoneInfo(line.pipeline.time_zone)),))


def without_times(row: LedgerRow) -> LedgerRow:
    """Return a ledger row without what differs at each load."""
    return replace(row, attempt="", loaded_at_utc=datetime.min)  # noqa: DTZ901 - a blank


def error_of(reports: Mapping[str, Report], group: str = "t") -> NaviglioError:
    """Return the error of a group."""
    error = reports[group].error
    assert error is not None
    return error


def _with(form: str, more: str) -> str:
    return f"{form.rstrip().removesuffix('}')}, {more}}}"


def _all(url: str, schema: str, statements: Sequence[str]) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET search_path = {quote(schema)}, pg_catalog".encode())
        connection.execute(b"SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'")
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            done = connection.execute(statement.encode())
            rows = done.fetchall() if done.description else []
        return rows


def _differing(found: Rows, expected: Rows, columns: Mapping[str, str]) -> str:
    """Say in which columns two sides differ, and by what."""
    told = []
    for at, (name, kind) in enumerate(columns.items()):
        here, there = ({row[at] for row in rows} for rows in (found, expected))
        if here != there:
            told.append(f"{name} {kind}: {here - there or 'nothing'} for {there - here}")
    return "; ".join(told) or f"{len(found)} rows for {len(expected)}"


def _texts(name: str, columns: Mapping[str, str], where: str) -> str:
    # A cast of char(n) to text would take its blanks away; concat() writes what the type writes.
    blank = {name for name, kind in columns.items() if kind == "character"}
    listed = ", ".join(
        f"CASE WHEN {quote(c)} IS NOT NULL THEN concat({quote(c)}) END"
        if c in blank
        else f"{quote(c)}::text"
        for c in columns
    )
    return f"SELECT {listed} FROM {name} WHERE {where}"


def _normal(rows: Sequence[Sequence[str | None]], columns: Mapping[str, str]) -> Rows:
    kinds = list(columns.values())
    return {
        tuple(_one_form(value, kind) for value, kind in zip(row, kinds, strict=True))
        for row in rows
    }


def _one_form(text: str | None, kind: str) -> str | None:
    """Spell floats one way whoever wrote them; all else is compared as it stands."""
    if text is None or kind not in ("real", "double precision"):
        return text
    return str(np.float32(text)) if kind == "real" else repr(float(text))


def _text(value: Any, kind: str) -> str | None:
    """Return a carried value as PostgreSQL spells it."""
    match value:
        case None | str():
            text = value
        case bool():
            text = str(value).lower()
        case bytes():
            text = "\\x" + value.hex()
        case Decimal():
            text = format(value, "f")
        case datetime():
            text = value.isoformat(" ").replace("+00:00", "")
            text = text.rstrip("0") if "." in text else text
            text += "+00" if kind == "timestamp with time zone" else ""
        case _:
            text = str(value)
    return text


def _tables_of(connection: psycopg.Connection[Any], schema: str) -> Iterator[str]:
    for (name,) in connection.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' "
        "AND relnamespace = to_regnamespace(%s) ORDER BY 1",
        (schema,),
    ).fetchall():
        yield str(name)


def _has_ledger(connection: psycopg.Connection[Any]) -> bool:
    found = connection.execute("SELECT to_regclass('naviglio.ledger')").fetchone()
    return bool(found and found[0])
