"""YAML text to plain data, with the line on which each key stands. ruamel.yaml parses."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from naviglio.config.problems import Place, Problem

MAX_BYTES = 1_000_000
MAX_VALUES = 200_000  # after aliases are followed: a few lines of them can stand for billions
MAX_DEPTH = 20


class UnreadableError(Exception):
    """The file holds no mapping that could be checked; `problem` says where and why."""

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.problem = Problem(text=text, line=line)


@dataclass
class Document:
    """The mapping of one YAML file.

    Sequences are tuples, keys are texts; what may stay readable despite a mistake (a key given
    twice) is in `problems`.
    """

    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest one above it that is in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read(path: Path) -> Document:
    """Read a file of one YAML mapping; UnreadableError when there is none in it."""
    return parse(_text(path))


def parse(text: str) -> Document:
    """Read the text of one YAML mapping; UnreadableError when there is none in it."""
    root = _parse(text)
    if root is None:
        raise UnreadableError("the file is empty")
    if not isinstance(root, MappingNode):
        raise UnreadableError(f"expected keys and values, found {_kind(root)}", _line(root))
    builder = _Builder()
    builder.document.data = builder.build(root, ())
    return builder.document


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UnreadableError("not a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableError(f"can't be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UnreadableError(f"larger than {MAX_BYTES:,} bytes. Split it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UnreadableError("not UTF-8. Save the file as UTF-8.", line) from None


def _parse(text: str) -> Node | None:
    try:
        root: Node | None = YAML(typ="safe", pure=True).compose(text)
    except RecursionError:
        raise UnreadableError(f"nested deeper than {MAX_DEPTH} levels") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        if "\\t" in said:
            said += " (a tab; indent with spaces)"
        raise UnreadableError(f"not valid YAML: {said}", mark.line + 1 if mark else 0) from None
    except YAMLError as error:  # a character that YAML doesn't allow; it knows only its position
        line = text[: getattr(error, "position", 0)].count("\n") + 1
        raise UnreadableError("not valid YAML: a control character", line) from None
    return root


class _Builder:
    """Follows the parsed nodes."""

    def __init__(self) -> None:
        self.document = Document()
        self._scalars = YAML(typ="safe", pure=True).constructor
        self._values = 0

    def build(self, node: Node, place: Place) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or len(place) > MAX_DEPTH:
            raise UnreadableError(
                f"more than {MAX_VALUES:,} values or {MAX_DEPTH} levels once its aliases are "
                "followed",
                _line(node),
            )
        self.document.lines.setdefault(place, _line(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, place)
        if isinstance(node, SequenceNode):
            return tuple(self.build(item, (*place, n)) for n, item in enumerate(node.value))
        return self._scalar(node, place)

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._problem("a key must be a plain text", key, place)
                continue
            inner = (*place, key.value)
            if key.value in found:
                first = self.document.lines[inner]
                self._problem(f"the key stands on line {first} already", key, inner)
                continue
            self.document.lines[inner] = _line(key)
            found[key.value] = self.build(value, inner)
        return found

    def _scalar(self, node: Node, place: Place) -> Hashable:
        try:
            value: Hashable = self._scalars.construct_object(node)
        except (YAMLError, ValueError, ArithmeticError):  # 2013-99-99, !!int abc, !unknown
            self._problem(
                f"{node.value!r} can't be read as {str(node.tag).split(':')[-1]}", node, place
            )
            return str(node.value)
        return value

    def _problem(self, text: str, node: Node, place: Place) -> None:
        self.document.problems.append(Problem(text=text, place=place, line=_line(node)))


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(node: Node) -> str:
    return "a list" if isinstance(node, SequenceNode) else "a single value"
