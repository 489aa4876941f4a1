"""The command line without any server: what it teaches, how it answers, how it fails."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer.main
from rich.console import Console
from typer.testing import CliRunner

from naviglio import errors
from naviglio.cli import app, show
from naviglio.cli.answers import Answer, answering
from naviglio.cli.demo import Step
from naviglio.cli.work import Carried
from naviglio.demo.seed import SeedReport
from naviglio.flows.embedded import ServerReport
from naviglio.flows.history import BatchEntry, History, VersionEntry
from naviglio.flows.plan import TablePlan
from naviglio.flows.reconcile import Verdict
from naviglio.flows.status import AttemptStatus, PipelineStatus, TableStatus
from naviglio.flows.validate import TableCheck
from naviglio.landing.landing import Landing
from naviglio.model import Question
from naviglio.storage.local import LocalStore

ROOT = Path(__file__).parents[2]
KINDS: list[type[errors.NaviglioError]] = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.NaviglioError)
]
DOCUMENTED = {
    "start": (ServerReport,),
    "demo seed": (SeedReport,),
    "demo run": (Step,),
    "validate": (TableCheck,),
    "plan": (TablePlan,),
    "run": (Carried,),
    "status": (PipelineStatus, TableStatus, AttemptStatus),
    "history": (History, BatchEntry, VersionEntry),
    "reconcile": (Verdict,),
    "accept": (Question,),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with the repository's pipelines."""
    monkeypatch.setenv("NAVIGLIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NAVIGLIO_PIPELINES", str(ROOT / "include" / "pipelines"))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path / "home"


def naviglio(*words: str) -> Any:
    """Run a command and return what came of it."""
    return CliRunner().invoke(app, words)


def commands(group: Any = None, prefix: str = "") -> dict[str, Any]:
    """Return every command by its words."""
    found: dict[str, Any] = {}
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= commands(command, f"{prefix}{name} ") if inner else {prefix + name: command}
    return found


def sections() -> dict[str, str]:
    """Return the page's sections by the command that each is about."""
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    parts = re.split(r"^## `naviglio ([a-z ]+)`$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# --- documentation --------------------------------------------------------------------------------


def test_the_page_has_every_command_and_no_other() -> None:
    """A command without a section, or a section without its command, fails."""
    assert set(sections()) == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_teaches(name: str) -> None:
    """`--help` says what it does and shows an example; the page names its own options."""
    answer = naviglio(*name.split(), "--help")
    assert answer.exit_code == 0
    assert f"Example: naviglio {name}" in " ".join(answer.stdout.split())
    shared = {"--json", "--verbose", "--traceback", "--help"}
    options = {o for p in commands()[name].params for o in p.opts if o.startswith("--")}
    options -= shared | ({"--limit"} if name != "history" else set())
    assert [o for o in options if f"`{o}`" not in sections()[name]] == []


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_every_json_field_is_on_the_page(name: str) -> None:
    """The fields of an answer stand in its command's section."""
    named = set(re.findall(r"`([a-z_]+)", sections()[name]))
    missing = [f.name for kind in DOCUMENTED[name] for f in fields(kind) if f.name not in named]
    assert missing == []


def test_the_exit_codes_on_the_page_are_those_of_the_errors() -> None:
    """Each error class stands beside its own code."""
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for code, name in re.findall(r"^\| (\d+) \| ([A-Z]\w+) \|", text, flags=re.MULTILINE):
        assert getattr(errors, name).exit_code == int(code)
    said = set(re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE))
    assert {str(kind.exit_code) for kind in KINDS if kind is not errors.NaviglioError} <= said


# --- answers --------------------------------------------------------------------------------------


def answered(answer: Answer | BaseException, *words: str) -> Any:
    """Run one command that answers so."""
    one = typer.Typer(pretty_exceptions_enable=False)

    @one.command()
    @answering
    def command() -> Answer:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return CliRunner().invoke(one, words)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_a_message_and_a_code(kind: type[errors.NaviglioError]) -> None:
    """No traceback, nothing on stdout; as JSON the document tells kind, message and code."""
    found = answered(kind("what happened. What to do."))
    assert (found.exit_code, found.stdout) == (kind.exit_code, "")
    assert found.stderr == f"{kind.__name__}: what happened. What to do.\n"
    told = json.loads(answered(kind("it"), "--json").stdout)["error"]
    assert told == {"kind": kind.__name__, "message": "it", "exit_code": kind.exit_code}


def test_a_home_that_is_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any place that can't be read or written, wherever a command comes upon it."""
    (tmp_path / "home").touch()
    monkeypatch.setenv("NAVIGLIO_HOME", str(tmp_path / "home"))
    found = naviglio("airflow", "password")
    assert (found.exit_code, found.stdout) == (5, "")
    assert found.stderr.startswith(f"StorageError: {tmp_path / 'home'}")
    assert "Not a directory" in found.stderr


def test_a_developer_may_see_the_traceback() -> None:
    """`--traceback` shows where it was raised; the code stays."""
    found = answered(errors.DataError("it"), "--traceback")
    assert found.exit_code == 6
    assert "Traceback" in found.stderr
    assert "raise answer" in found.stderr


def test_the_first_error_of_several_gives_the_code() -> None:
    """All are told; what was done is told as well."""
    wrong = [errors.TargetError("one"), errors.SourceError("two")]
    found = answered(Answer(data={"a": 1}, show=lambda out: out.print("done"), errors=wrong))
    assert found.exit_code == 4
    assert found.stdout == "done\n"
    assert found.stderr == "TargetError: one\nSourceError: two\n"


def test_an_interruption_ends_with_130() -> None:
    """Ctrl-C says what stays, without a traceback."""
    found = answered(KeyboardInterrupt())
    assert found.exit_code == 130
    assert "What was committed stays" in found.stderr


def test_a_real_interruption_ends_the_process_with_130() -> None:
    """The signal reaches a command at work.

    A shell starts its background jobs with the signal ignored, and children inherit that.
    """
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import time, typer; from naviglio.cli.answers import Answer, answering\n"
        "app = typer.Typer()\n"
        "@app.command()\n@answering\n"
        "def command() -> Answer:\n"
        "    print('at work', flush=True); time.sleep(60)\n"
        "app()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT / "include",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert process.returncode == 130
    assert told.startswith("Interrupted. ")
    assert "Traceback" not in told


def test_log_lines_go_to_stderr_only_when_asked_for() -> None:
    """Without `-v` the core's log is silent; JSON on stdout stays one document."""
    script = (
        "import logging, typer; from naviglio.cli.answers import Answer, answering\n"
        "app = typer.Typer()\n"
        "@app.command()\n@answering\n"
        "def command() -> Answer:\n"
        "    logging.getLogger('naviglio.x').info('a line')\n"
        "    return Answer(data={}, show=lambda out: None)\n"
        "app()"
    )

    def said(*words: str) -> tuple[str, str]:
        ran = subprocess.run(
            [sys.executable, "-c", script, *words],
            capture_output=True, text=True, check=True, cwd=ROOT / "include",
        )  # fmt: skip
        return ran.stdout, ran.stderr

    assert said("--json") == ("{}\n", "")
    out, err = said("--json", "-v")
    assert out == "{}\n"
    assert "INFO naviglio.x a line" in err


def test_a_reader_who_goes_away_ends_it_quietly() -> None:
    """`naviglio ... | head` neither fails nor complains."""
    script = (
        "from naviglio.cli.answers import Answer, answering; import typer\n"
        "app = typer.Typer()\n"
        "@app.command()\n@answering\n"
        "def command() -> Answer:\n"
        "    return Answer(data=['x' * 9] * 99999, show=lambda out: None)\n"
        "app()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT / "include",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_help_imports_nothing_heavy() -> None:
    """The engines and drivers are not paid for by who only asks for help."""
    script = (
        "import sys; from naviglio.cli import app\n"
        "heavy = {'pyarrow', 'duckdb', 'deltalake', 'psycopg', 'pydantic', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, cwd=ROOT / "include",
    )  # fmt: skip
    assert ran.stdout == "[]\n"


def test_a_command_never_imports_pandas() -> None:
    """Neither do the drivers and engines that it works with: half of an idle run would go there."""
    script = (
        "import sys; sys.argv = ['naviglio', '--version']; from naviglio.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "import adbc_driver_postgresql.dbapi, deltalake, duckdb, pgpq, pyarrow.dataset\n"
        "print(pyarrow.table({'a': [1, None]}).to_pylist(), 'pandas' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, cwd=ROOT / "include",
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1] == "[{'a': 1}, {'a': None}] False"


# --- commands that need no server -----------------------------------------------------------------


def test_validate_touches_no_database() -> None:
    """The repository's own pipelines are fine, and nothing was connected or made."""
    found = naviglio("validate")
    assert found.exit_code == 0
    assert "flights: 5 tables and 2 transforms from operations to warehouse: fine" in found.stdout
    told = json.loads(naviglio("validate", "flights", "--json").stdout)
    assert told["errors"] == []
    assert [t["table"] for t in told["pipelines"][0]["tables"]][:2] == ["flights", "weather"]
    assert {t["columns"] for t in told["pipelines"][0]["tables"]} == {None}


def test_validate_tells_who_may_not_run_as_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without asking a database: the deployment's list is enough."""
    path = tmp_path / "shop.yaml"
    path.write_text("source: o\ntarget: w\nrun_as: boss\ntables: {a: {capture: diff}}\n")
    found = naviglio("validate", str(path))
    assert found.exit_code == 2
    assert "pipeline 'shop', table 'a': `run_as: boss` is not allowed" in found.stderr
    monkeypatch.setenv("NAVIGLIO_RUN_AS", "{shop: {w: [boss]}}")
    monkeypatch.setenv("NAVIGLIO_CONN_O", "duckdb:///o.duckdb")
    found = naviglio("validate", str(path))
    assert (found.exit_code, found.stdout.count("No connection is called")) == (0, 1)
    assert "No connection is called 'w' here." in found.stdout


def test_validate_tells_of_a_file_of_connections_that_is_unfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipelines are told of all the same."""
    (tmp_path / "connections.yaml").write_text("operations: postgresql:///o\n")
    (tmp_path / "connections.yaml").chmod(0o644)
    monkeypatch.setenv("NAVIGLIO_HOME", str(tmp_path))
    found = naviglio("validate", "flights")
    assert found.exit_code == 2
    assert "flights: 5 tables" in found.stdout
    assert "others may read its passwords" in found.stderr


def test_validate_tells_of_every_wrong_file(tmp_path: Path) -> None:
    """A wrong file ends with 2 and names its line; the right ones are shown all the same."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("pipeline: wrong\nsorce: a\n")
    found = naviglio("validate", "flights", str(wrong))
    assert found.exit_code == 2
    assert "flights: 5 tables" in found.stdout
    assert f"{wrong}:2" in found.stderr


def test_an_empty_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pipelines is no error."""
    monkeypatch.setenv("NAVIGLIO_PIPELINES", str(tmp_path))
    for command in ("validate", "status"):
        found = naviglio(command)
        assert found.exit_code == 0
        assert "No pipelines in" in found.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "flight"), r"'flight'.*known: flights.*Did you mean 'flights'"),
        (("run", "no.yaml"), r"no\.yaml"),
        (("plan", "flights", "--table", "x"), r"no table 'x'; known: flights, weather"),
        (("resnapshot", "flights", "regis"), r"no table or group 'regis'.*'registry'"),
        (("history", "flights", "x"), r"no table 'x'"),
        (("run", "flights", "--from", "2013-01-01"), r"both ends"),
        (("run", "flights", "--partition", "2013-13-01"), r"names no day"),
        (("plan", "flights", "--partition", "9999-12-31"), r"outside of the years"),
        (("history", "flights", "weather", "--limit", "9" * 30), r"--limit"),
        (("run", "flights", "--from", "2013-01-02", "--to", "2013-01-01"), r"is empty"),
        (("run", "flights", "--partition", "2013-01-01", "--to", "2013-01-01"), r"Give one"),
        (("run", "flights", "--partition", "2013-01-01", "--verify"), r"--verify"),
        (("run", "flights", "--partition", "2013-01-01", "--table", "planes"), r"no event time"),
        (("accept", "flights"), r"--table"),
        (("plan", "flights"), r"no connection is called"),
        (("demo", "seed"), r"operations_app.*naviglio start"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_configuration_error(
    words: tuple[str, ...], message: str, home: Path
) -> None:
    """The message says the known values; nothing is made on disk."""
    found = naviglio(*words)
    assert found.exit_code == 2
    assert re.search(message, found.stderr, re.DOTALL)
    assert "Traceback" not in found.stderr
    assert not home.exists()


BROKEN = {
    "home is a file": "",
    "landing is a file": "landing",
    "group is a file": "landing/flights/weather",
    "identity": "landing/flights/weather/landing.json",
    "manifest": "landing/flights/weather/manifests/0000000001.json",
    "question": "landing/flights/weather/questions/0000000000-x.json",
    "attempt": "landing/flights/weather/data/0000000001-a/intent.json",
    "lake is a file": "lake",
    "lake table is a file": "lake/flights/weather",
    "log is a file": "lake/flights/weather/_delta_log",
    "log": f"lake/flights/weather/_delta_log/{0:020}.json",
    "server is a file": "postgres",
    "passwords": "postgres/passwords.json",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_home_is_told_without_a_traceback(what: str, home: Path) -> None:
    """Whatever stands where it does not belong: a message, and the code of who acts next."""
    path = home / BROKEN[what]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0not ours")
    for command in ("run", "status", "plan", "reconcile", "maintain", "history", "rebuild", "stop"):
        table = ["weather"] if command in ("history", "rebuild") else []
        found = naviglio(command, *([] if command == "stop" else ["flights"]), *table)
        assert found.exit_code in (0, 2, 5, 6, 8), (command, found.exception)
        assert found.exception is None or isinstance(found.exception, SystemExit), command


def test_a_run_without_connections_fails_each_group_once() -> None:
    """Every group is tried; the list stands at the end."""
    found = naviglio("run", "flights", "--json")
    told = json.loads(found.stdout)
    assert found.exit_code == 2
    groups = ["flights", "weather", "registry", "daily_delays", "aircraft_use"]
    assert [error["kind"] for error in told["errors"]] == ["ConfigError"] * 5
    assert [error["group"] for error in told["errors"]] == groups
    assert {row["kind"] for row in told["tables"]} == {"failed"}
    text = naviglio("run", "flights")
    assert f"Failed: {', '.join(groups)}." in text.stdout
    assert text.stderr.count("no connection is called") == 1


def test_status_works_before_anything_is_there() -> None:
    """Source and target are away; the answer says so and how to begin."""
    found = naviglio("status", "flights")
    assert found.exit_code == 0
    assert "source gives no answer" in found.stdout
    assert "target gives no answer" in found.stdout
    assert "Begin with `naviglio run flights`" in found.stdout


def test_a_question_about_a_transforms_target_can_be_answered(home: Path) -> None:
    """Its landing is asked like any other's."""
    store = LocalStore(str(home / "landing" / "flights" / "daily_delays"))
    landing = Landing(store, "daily_delays")
    asked = Question(
        group="daily_delays", table="daily_delays", kind="identity", head=0, text="of another",
        found="x", asked_at_utc=datetime.now(UTC),
    )  # fmt: skip
    landing.ask(asked)
    assert "of another" in naviglio("accept", "flights", "--list").stdout
    told = json.loads(
        naviglio("accept", "flights", "--table", "daily_delays", "--yes", "--json").stdout
    )
    assert told["accepted"] is True
    assert landing.answered(asked)


def test_history_and_accept_have_empty_states() -> None:
    """Nothing captured, nothing to answer: said so, no error."""
    assert "nothing was captured yet" in naviglio("history", "flights", "planes").stdout
    assert naviglio("accept", "flights", "--list").stdout == "No open questions.\n"
    told = json.loads(naviglio("accept", "flights", "--table", "planes", "--json").stdout)
    assert told == {"pipeline": "flights", "questions": [], "accepted": False}


def test_stop_may_be_said_to_a_server_that_never_was(home: Path) -> None:
    """Nothing is made for it."""
    assert naviglio("stop").stdout == "PostgreSQL was not running.\n"
    assert not home.exists()


# --- how values look ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"), (-0.2, "0.0 s"), (0.42, "0.4 s"), (42, "42 s"), (125, "2 min 5 s"),
        (120, "2 min"), (3_600, "1 h"), (100_000, "1 d 3 h"), (86_405, "1 d 5 s"),
    ],
)  # fmt: skip
def test_spans_name_their_two_largest_units(seconds: float | None, said: str) -> None:
    """Units are said; what is zero is left out."""
    assert show.span(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (61_600, "61.6 kB"), (5 * 10**15, "5000.0 TB")],
)
def test_sizes_name_their_unit(count: int, said: str) -> None:
    """Powers of ten, one digit."""
    assert show.size(count) == said


def test_plural_forms() -> None:
    """One is singular, all else plural, with separators."""
    assert [show.plural(n, "row") for n in (0, 1, 1_234)] == ["0 rows", "1 row", "1,234 rows"]
    assert show.plural(2, "entry", "entries") == "2 entries"


def test_positions_that_are_no_moments_stay_numbers() -> None:
    """A row version is shown as it is."""
    assert show.moment("123") == "123"
    assert show.moment("2013-01-07T05:00:00.5+01:00") == "2013-01-07 04:00:00"
    assert show.moment(None) == "-"


def test_a_table_too_wide_for_the_terminal_goes_on_below() -> None:
    """Cells stay whole, and each part begins with the row's name; elsewhere lines are long."""
    rows = [{"table": "weather", "position": "2013-01-07 05:00:00", "rows": 1_234, "why": None}]

    def shown(width: int) -> list[list[str]]:
        out = Console(width=width, no_color=True)
        with out.capture() as captured:
            out.print(show.listing(rows, optional=("why",)))
        return [line.split("  ") for line in captured.get().split("\n") if line]

    assert [cells[0].strip() for cells in shown(80)] == ["table", "weather"]
    narrow = shown(30)
    assert [cells[0].strip() for cells in narrow] == ["table", "weather", "table", "weather"]
    assert narrow[1][1].strip() == "2013-01-07 05:00:00"
    assert "1,234" in narrow[3][1]
