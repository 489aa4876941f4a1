"""The documentation names what exists, and what exists is documented."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer.main

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "include" / "naviglio"
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
FOLDER = re.compile(r"(?:benchmarks|dags|docs|include|plugins|tests)/(?:[\w.-]+/)*")
CALL = re.compile(r"^\s*(?:\$ )?(?:\.venv/bin/)?naviglio ((?:[a-z][a-z-]*(?: |$))+)", re.MULTILINE)


def _pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def _quoted(text: str) -> Iterator[str]:
    yield from QUOTED.findall(FENCE.sub("", text))


def _exists(name: str) -> bool:
    """Whether a path exists below the root or the package; a bare file name, anywhere in them."""
    if "/" in name:
        return any((base / name).exists() for base in (ROOT, ROOT / "include", PACKAGE))
    folders = ("benchmarks", "dags", "include", "plugins", "tests")
    return any(next((ROOT / folder).rglob(name), None) for folder in folders)


def _commands() -> Mapping[str, object]:
    if importlib.util.find_spec("naviglio.cli") is None:
        return {}
    group = typer.main.get_command(importlib.import_module("naviglio.cli").app)
    commands: Mapping[str, object] = getattr(group, "commands", {})
    return commands


def _unknown(words: list[str], commands: Mapping[str, object]) -> str | None:
    """Return the first word that names no command, or nothing.

    Words after a command without commands of its own are its arguments.
    """
    for word in words:
        if word not in commands:
            return word
        commands = getattr(commands[word], "commands", {})
        if not commands:
            return None
    return None


def test_every_python_file_and_folder_named_in_the_docs_exists() -> None:
    """A reader who follows a path in backticks finds a file there."""
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in _pages()
        for name in _quoted(page.read_text("utf-8"))
        if re.fullmatch(r"[\w./-]+\.py", name) or FOLDER.fullmatch(name)
        if not _exists(name)
    ]
    assert missing == []


def test_every_link_between_pages_leads_somewhere() -> None:
    """A relative link in a page opens a file of the repository."""
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in _pages()
        for target in re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", page.read_text("utf-8")))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


def test_every_adapter_is_documented() -> None:
    """Each package below `adapters/` is named in the architecture or the adapters' own page."""
    pages = [ROOT / "docs" / name for name in ("architecture.md", "adapters.md")]
    text = "".join(page.read_text("utf-8") for page in pages if page.exists())
    adapters = [init.parent.name for init in (PACKAGE / "adapters").glob("*/__init__.py")]
    assert [name for name in adapters if text and f"adapters/{name}" not in text] == []


def test_every_command_in_the_readme_exists() -> None:
    """Each `naviglio <command>` that the README tells to type is a command."""
    text = (ROOT / "README.md").read_text("utf-8")
    code = [*FENCE.findall(text), *_quoted(text)]
    calls = [call.split() for part in code for call in CALL.findall(part)]
    commands = _commands()
    unknown = [" ".join(words) for words in calls if _unknown(words, commands)]
    assert unknown == []
