"""Nothing secret leaks: one story of runs and failures, then a sweep of all that it left and said.

The passwords hold a token that no encoding changes, between characters that every URL must escape.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from naviglio.adapters.postgres.embedded import Cluster
from naviglio.cli import app
from naviglio.connections.connections import variable_of
from naviglio.transform import jars
from tests.integration.lines import DIFF, SWEPT, Line, drop_schemas, new_line

TOKEN = f"Sesame{secrets.token_hex(8)}"
PASSWORD = f"p@s/s:{TOKEN} ?#%w'"
WRONG = f"Wrong{secrets.token_hex(8)}"
SECRETS = (TOKEN, WRONG)
SIDES = {"operations": "naviglio_source", "warehouse": "naviglio_target"}
PROGRAM = "SELECT to_date(modified_at) AS day, count(*) AS n FROM t GROUP BY 1\n"
HEAD = """fence_margin: 0s
transforms:
  days: {program: days.sql, key: [day], day: day, inputs: {t: day}}
"""


@dataclass
class Story:
    """What was seen while the commands ran, each beside the words that name where."""

    line: Line
    environ: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)  # output, by command and case
    codes: dict[str, int] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)
    commands: set[str] = field(default_factory=set)  # of processes that were started
    environments: set[str] = field(default_factory=set)

    def run(self, case: str, words: str, **urls: str) -> None:
        """Run a command as its user does, all told that can be told."""
        environ = {**self.environ, **{variable_of(name): url for name, url in urls.items()}}
        ran = CliRunner(env=environ).invoke(app, [*words.split(), "-vv", "--traceback"])
        name = f"{case}: {words}"
        self.said[name] = f"{ran.stdout}\n{ran.stderr}\n{ran.exception!r}"
        self.codes[name] = ran.exit_code


class _Recorder(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.NOTSET)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{record.getMessage()} {record.args!r} {record.exc_info!r}")


@contextmanager
def recorded(story: Story) -> Iterator[None]:
    """Hear every logger at its most talkative, and see every process that is started."""
    root, handler, ended = logging.getLogger(), _Recorder(story.logged), threading.Event()
    before = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)

    def watch() -> None:
        me = psutil.Process()
        while not ended.wait(0.1):
            for child in me.children(recursive=True):
                _look(story, child)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        root.removeHandler(handler)
        root.setLevel(before)


def _look(story: Story, process: psutil.Process) -> None:
    try:
        if "pginstall" not in process.exe():  # the test's own server
            story.commands.add(" ".join(process.cmdline()))
            story.environments.add("\n".join(f"{k}={v}" for k, v in process.environ().items()))
    except psutil.Error:
        pass


@pytest.fixture(scope="module")
def story(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """All steps with passwords that would be recognised, then every failure with them."""
    folder = tmp_path_factory.mktemp("secrets")
    line = new_line(cluster, folder)
    with with_password(cluster, line.name) as urls:
        line.urls |= urls
        environ = {variable_of(name): url for name, url in urls.items()}
        environ |= {
            "NAVIGLIO_HOME": str(line.home.root),
            "NAVIGLIO_PIPELINES": str(line.home.pipelines),
            "TMPDIR": str(folder / "tmp"),
        }
        (folder / "tmp").mkdir()
        made = Story(line, environ)
        try:
            with recorded(made), pytest.MonkeyPatch.context() as patch:
                patch.setattr("tempfile.tempdir", str(folder / "tmp"))
                for name, value in environ.items():
                    patch.setenv(name, value)
                tell(made)
            yield made
        finally:
            drop_schemas(line)


@contextmanager
def with_password(cluster: Cluster, name: str) -> Iterator[dict[str, str]]:
    """Make logins of the password, with the rights of those that capture and load."""
    admin = cluster.urls()["admin"]
    urls = {}
    for conn_id, role in SIDES.items():
        login = f"{name}_{conn_id}"
        with psycopg.connect(admin, autocommit=True) as connection:
            made = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
            connection.execute(made.format(sql.Identifier(login), PASSWORD, sql.Identifier(role)))
        old = cluster.urls()[conn_id]
        urls[conn_id] = f"postgresql://{login}:{quote(PASSWORD, safe='')}@{old.split('@', 1)[1]}"
    try:
        yield urls
    finally:
        for conn_id in SIDES:
            for database in ("operations", "warehouse"):
                with psycopg.connect(admin, dbname=database, autocommit=True) as connection:
                    owner = sql.Identifier(f"{name}_{conn_id}")
                    connection.execute(sql.SQL("DROP OWNED BY {}").format(owner))
            with psycopg.connect(admin, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP ROLE {}").format(owner))


def tell(story: Story) -> None:
    """Run what a user runs, then let everything go wrong that has to do with a connection."""
    line = story.line
    line.source(
        "CREATE TABLE t (id int PRIMARY KEY, name text, modified_at timestamptz DEFAULT now())",
        "CREATE TABLE d (id int PRIMARY KEY, name text)",
        "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 9) n",
        "INSERT INTO d SELECT n, 'a' FROM generate_series(1, 9) n",
    )
    line.declare(HEAD, t=SWEPT.replace("}, d", "}, event_time: modified_at, d"), d=DIFF)
    name = line.pipeline.name  # writes the file
    (line.home.pipelines / "days.sql").write_text(PROGRAM)
    jars.fetch(jars.folder_of(os.environ, line.home.root), os.environ)
    for words in ("validate {} --connect", "plan {}", "run {}"):
        story.run("fine", f"{words.format(name)} --json")
    line.source("UPDATE d SET name = 'b' WHERE id = 1", "DELETE FROM d WHERE id = 2")
    for words in (
        *("run {}", "accept {} --list", "status {}", "history {} t", "reconcile {}", "maintain {}"),
        *("rebuild {} d", "resnapshot {} d"),
    ):
        story.run("fine", f"{words.format(name)} --json")
    for case, urls in broken(line.urls).items():
        for words in ("validate {} --connect --json", "run {} --table t", "status {} --json"):
            story.run(case, words.format(name), **urls)


def broken(urls: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return what may be wrong with a connection; each URL holds a secret."""
    wrong: dict[str, dict[str, str]] = {}
    for side in SIDES:
        account, place = urls[side].split("@", 1)
        login = account.rsplit(":", 1)[0]
        other = {
            "wrong password": f"{login}:{WRONG}@{place}",
            "server away": f"{account}@127.0.0.1:1/shop",
            "socket away": f"{account}@/shop?host=/nowhere&port=5432",
            "no such database": f"{account}@/nowhere?{place.split('?', 1)[1]}",
            "not escaped": f"{login}:{PASSWORD}@{place}",
            "half escaped": f"{login}:{TOKEN}/x@127.0.0.1:1/shop",
            "port is a password": f"postgresql://ann@localhost:{WRONG}/shop",
            "unknown option": f"{account}@{place}&pass={WRONG}",
            "unknown kind": f"oracle://ann:{WRONG}@db/shop",
            "no URL": f"host=db password={WRONG}",
        }
        wrong |= {f"{side}: {case}": {side: url} for case, url in other.items()}
    return wrong | {"SQL Server away": {"warehouse": f"mssql://ann:{WRONG}@127.0.0.1:1/shop"}}


def leaks(told: Mapping[str, str]) -> dict[str, str]:
    """Return where a secret stands, with the line that it stands in."""
    return {
        where: next(line for line in text.splitlines() if secret in line)
        for where, text in told.items()
        for secret in SECRETS
        if secret in text
    }


def test_what_should_work_worked_and_what_should_fail_failed(story: Story) -> None:
    """The story goes through every step and every failure: else the sweep would prove nothing."""
    fine = {name: code for name, code in story.codes.items() if name.startswith("fine")}
    assert {name: code for name, code in fine.items() if code} == {}, story.said
    failed = [name for name in story.codes if ": run " in name and not name.startswith("fine")]
    ended = {name: story.codes[name] for name in failed if "unknown option" not in name}
    assert {name: code for name, code in ended.items() if code in (0, 1)} == {}
    assert len(ended) == 19


def test_no_command_says_a_password(story: Story) -> None:
    """Neither JSON nor a table, an error, its traceback or a log at its most talkative."""
    assert leaks(story.said) == {}
    assert leaks({"log": "\n".join(story.logged)}) == {}
    assert any("naviglio" in line or "batch" in line for line in story.logged)


def test_no_file_holds_a_password(story: Story, cluster: Cluster) -> None:
    """Not landing, lake, pipelines or what is left of temporary files, nor the server's own log."""
    root = story.line.home.root.parent
    files = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
    assert {Path(name).suffix for name in files} > {".json", ".parquet", ".yaml"}
    files["server.log"] = cluster.home / "server.log"
    assert leaks({name: path.read_text("latin-1") for name, path in files.items()}) == {}


def test_no_ledger_holds_a_password(story: Story) -> None:
    """What the target keeps of the runs tells of rows, not of connections."""
    rows = story.line.target(
        "SELECT l::text FROM naviglio.ledger l", "SELECT l::text FROM naviglio.ledger l"
    )
    assert rows
    assert leaks({"ledger": repr(rows)}) == {}


def test_no_process_is_given_a_password(story: Story) -> None:
    """Spark's command lines hold none, and its environment doesn't either: it reads files."""
    assert any("naviglio_transform.py" in command for command in story.commands)
    assert any("java" in command for command in story.commands)
    assert leaks(dict.fromkeys(story.commands, "") | {c: c for c in story.commands}) == {}
    assert leaks({text[:40]: text for text in story.environments}) == {}


def test_the_sweep_would_find_it() -> None:
    """A secret is found raw and escaped."""
    assert leaks({"raw": f"a\n{PASSWORD}", "url": quote(PASSWORD, safe="")}).keys() == {
        "raw",
        "url",
    }
    assert leaks({"none": "a\nb"}) == {}
