"""One file's data against its forms: every problem of the file, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from naviglio.config import schema
from naviglio.config.problems import Place, Problem
from naviglio.config.schema import (
    FORMS,
    Form,
    TableForm,
    ThroughForm,
    TransformForm,
    keys_of,
)
from naviglio.known import known

F = TypeVar("F", bound=Form)

_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list, such as [a, b]",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "date_type": "a day as YYYY-MM-DD",
    "date_parsing": "a day as YYYY-MM-DD",
    "date_from_datetime_parsing": "a day as YYYY-MM-DD",
    "date_from_datetime_inexact": "a day as YYYY-MM-DD",
}
_EXAMPLES = {
    "source": "Name the connection to read from, e.g. `source: operations`",
    "target": "Name the connection to write to, e.g. `target: warehouse`",
    "tables": "Name at least one table, e.g. `tables: {planes: {capture: diff}}`",
    "capture": "Choose how changes are found: `{where: COLUMN}`, `windows` or `diff`",
    "where": "Name the column with the modification time: `{where: COLUMN}`",
    "table": "Write `{schema: SCHEMA, table: TABLE}`",
    "program": "Name a `.py` or `.sql` file, relative to this one",
    "day": "Name the column of the output that holds its day, a date",
    "key": "Name the columns that tell the output's rows apart, e.g. `key: [day, carrier]`",
    "inputs": "Name the tables that it reads, e.g. `inputs: {flights: day}`",
}
_WORDS = {
    "capture": ("windows", "diff", "{where: COLUMN}"),
    "deletes": ("none", "sweep", "{sweep: DURATION}", "{column: COLUMN}"),
    "nulls": ("refuse", "read", "ignore"),
    "zone": ("UTC",),
    "visibility": ("at_once", "progressive"),
    "inputs": ("day", "all", "{through: INPUT, on: {COLUMN: COLUMN}}"),
}
_NAME = "1 to 63 {letters}, digits, `_` and `-`, a letter or a digit first"


def check(form: type[F], data: Any, place: Place) -> tuple[F | None, list[Problem]]:
    """Return the form of `data`, which stands at `place`, or what is wrong with it."""
    try:
        return form.model_validate(data), []
    except ValidationError as error:
        return None, [_problem(form, details, data, place) for details in error.errors()]


def between_tables(
    names: Iterable[str], tables: Mapping[str, TableForm | TransformForm], target_schema: str
) -> Iterator[Problem]:
    """Find tables that would meet: names but for their case, targets."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            yield Problem(
                text=f"differs from {other!r} only by case. Rename one of them",
                place=("tables", name),
            )
    taken: dict[tuple[str, str], str] = {}
    for name, form in tables.items():
        target_s, target_t = target_of(name, form, target_schema)
        other = taken.setdefault((target_s.casefold(), target_t.casefold()), name)
        if other.casefold() != name.casefold():
            yield Problem(
                text=f"target {target_s}.{target_t} is the target of table {other!r} already. "
                "Each table needs a `target` of its own",
                place=("tables", name, "target"),
            )


def between_groups(
    groups: Mapping[str, tuple[str, ...]], tables: Iterable[str], transforms: Iterable[str]
) -> Iterator[Problem]:
    """Find groups that name no table, share one, or bear the name of another or a transform."""
    names = {name.casefold(): name for name in tables}  # a table alone is a group of its name
    taken: dict[str, str] = {}
    home: dict[str, str] = {}
    for group, members in groups.items():
        table = names.get(group.casefold())
        if table is not None and table not in members:
            yield _named_like(group, f"table {table!r}, which is not in it")
        for transform in transforms:  # which is a group of its name, too
            if transform.casefold() == group.casefold():
                yield _named_like(group, f"transform {transform!r}")
        if taken.setdefault(group.casefold(), group) != group:
            yield _named_like(group, f"group {taken[group.casefold()]!r}")
        for n, member in enumerate(map(str, members)):  # of another type: the form says so
            text = _misplaced(group, member, home, list(names.values()))
            if text:
                yield Problem(text=text, place=("groups", group, n))
            home.setdefault(member, group)


def of_transform(
    name: str, form: TransformForm, tables: Mapping[str, TableForm]
) -> Iterator[Problem]:
    """Find inputs that are no tables, or whose way doesn't fit them."""
    for table, way in form.inputs.items():
        text = _misread(table, way, form, tables)
        if text:
            yield Problem(text=text, place=("transforms", name, "inputs", table))


def _misread(
    table: str, way: ThroughForm | str, form: TransformForm, tables: Mapping[str, TableForm]
) -> str:
    if table not in tables:
        return f"no table is called {table!r}; {known(tables, table)}"
    if way == "day" and tables[table].event_time is None:
        return (
            "has no `event_time`, which tells a row's day. Write {through: INPUT, on: ...} or all"
        )
    if isinstance(way, ThroughForm) and form.inputs.get(way.through) != "day":
        by_day = [name for name, other in form.inputs.items() if other == "day"]
        return f"`through` names no input by day: {way.through!r}; {known(by_day, way.through)}"
    return ""


def target_of(name: str, form: TableForm | TransformForm, target_schema: str) -> tuple[str, str]:
    """Return schema and name of a table's target."""
    if form.target is None:
        return target_schema, name
    return form.target.schema_ or target_schema, form.target.table


def _named_like(group: str, other: str) -> Problem:
    return Problem(text=f"has the name of {other}. Rename the group", place=("groups", group))


def _misplaced(group: str, member: str, home: Mapping[str, str], tables: list[str]) -> str:
    if member not in tables:
        return f"no table is called {member!r}; {known(tables, member)}"
    if member not in home:
        return ""
    if home[member] == group:
        return f"table {member!r} stands there twice"
    return f"table {member!r} is in group {home[member]!r} already; a table has one group"


def _problem(form: type[Form], details: ErrorDetails, data: Any, above: Place) -> Problem:
    inner = tuple(part for part in details["loc"] if part not in (schema.WORD, schema.MAPPING))
    bad_key = inner[-1:] == ("[key]",)
    inner = inner[:-1] if bad_key else inner
    return Problem(text=_text(form, details, inner), place=(*above, *inner))


def _text(form: type[Form], details: ErrorDetails, inner: Place) -> str:
    """Say it in the words of the YAML, not in pydantic's."""
    kind, given, key = details["type"], details["input"], str(inner[-1]) if inner else ""
    owner = FORMS.get(str(inner[-2]), form) if len(inner) > 1 else form
    told: dict[str, Callable[[], str]] = {
        "extra_forbidden": lambda: f"unknown key; {known(keys_of(owner), key)}",
        "missing": lambda: f"is missing. {_EXAMPLES[key]}",
        "literal_error": lambda: _not_a_word(key, given),
        "too_short": lambda: "must not be empty",
        "string_pattern_mismatch": lambda: _not_a_name(key, given),
        "value_error": lambda: str(details["ctx"]["error"]),
        **{wrong: lambda: f"must be {_WANTED[kind]}, not {_shown(given)}" for wrong in _WANTED},
    }
    return told.get(kind, lambda: f"{details['msg']}, not {_shown(given)}")()


def _not_a_name(key: str, given: object) -> str:
    letters = "small letters" if key == "pipeline" else "letters"
    return f"{given!r} is no name: {_NAME.format(letters=letters)}"


def _not_a_word(key: str, given: object) -> str:
    return f"{_shown(given)} is none of the ways; {known(_WORDS[key], str(given))}"


def _shown(given: object) -> str:
    if given is None:
        return "nothing"
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, dict):
        return "keys and values"
    if isinstance(given, tuple):
        return "a list"
    return repr(given) if isinstance(given, str) else str(given)
