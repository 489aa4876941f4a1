"""The shape of a pipeline's YAML: every key, its type and its default. docs/pipelines.md explains.

A validator looks only at its own key and those declared above it, so that one mistake doesn't hide
another.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from croniter import croniter
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from naviglio.known import known
from naviglio.model import RESERVED, reserved

NAVIGLIO_SCHEMA = "naviglio"  # holds the ledger and the staging tables of a target
WORD, MAPPING = "<word>", "<mapping>"  # branches of a union, as pydantic puts them into a place

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)\Z")
_CRON_FIELDS = 5
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> float:
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is no duration. Write one as 500ms, 1s, 5m, 2h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def _day(value: object) -> object:
    """Read a quoted day too; YAML itself reads one without quotes."""
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value  # refused as no date


def _identifier(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError("must be a name of one or more printable characters")
    return value


def _column(value: str) -> str:
    if reserved([value]):
        raise ValueError(f"{value!r} is a column of Naviglio's own ({', '.join(RESERVED)})")
    return _identifier(value)


def _different(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands there twice")
    return values


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        close = known(available_timezones(), value).partition(". ")[2]
        example = "Write a name of the IANA database, such as UTC or America/New_York."
        raise ValueError(f"no time zone is called {value!r}. {close or example}") from None
    return value


def _table_name(value: object) -> object:
    """Read `schema.table` or `table`."""
    if not isinstance(value, str):
        return value
    schema, dot, table = value.rpartition(".")
    if "." in schema or (dot and not schema) or not table:
        raise ValueError(
            f"{value!r} is neither TABLE nor SCHEMA.TABLE. "
            "Write a name with dots in it as {schema: SCHEMA, table: TABLE}"
        )
    return {"schema": schema, "table": table}


def _cron(value: str) -> str:
    if len(value.split()) != _CRON_FIELDS or not croniter.is_valid(value):
        raise ValueError(
            f"{value!r} is no cron expression. Write minute, hour, day of month, month and day of "
            "week, e.g. '0 6 * * *' for every day at six"
        )
    return value


def _either(value: object) -> str:
    return MAPPING if isinstance(value, dict) else WORD


def _asset(value: str) -> str:
    connection, slash, table = value.partition("/")
    if not (connection and slash and table) or not value.isprintable():
        raise ValueError(
            f"{value!r} names no table as Airflow knows it. Write CONNECTION/SCHEMA.TABLE for a "
            "target, or lake/PIPELINE/TABLE for a lake table"
        )
    return value


AssetName = Annotated[str, AfterValidator(_asset)]
Duration = Annotated[float, BeforeValidator(_seconds)]
Identifier = Annotated[str, AfterValidator(_identifier)]
ColumnName = Annotated[str, AfterValidator(_column)]
Day = Annotated[date, BeforeValidator(_day)]
Zone = Annotated[str, AfterValidator(_zone)]
PipelineName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
# Folders, file names and command line arguments are made of it.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class Form(BaseModel):
    """A mapping of the YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TableNameForm(Form):
    """A table of a database; as text, `schema.table`."""

    schema_: Identifier | Literal[""] = Field(default="", alias="schema")
    table: Identifier


Table = Annotated[TableNameForm, BeforeValidator(_table_name)]


class WhereForm(Form):
    """The capture way that reads rows by their modification time, or by numbers that grow."""

    where: ColumnName
    zone: Literal["UTC"] | None = None
    lag: Annotated[int, Field(ge=0)] | None = None


class DeletesForm(Form):
    """How deletes reach a stream, where it takes more than a word."""

    column: ColumnName | None = None
    sweep: Annotated[Duration, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> DeletesForm:
        if (self.column is None) == (self.sweep is None):
            raise ValueError("takes one of {column: COLUMN} and {sweep: DURATION}")
        return self


class GuardForm(Form):
    """Beyond which deletes a person is asked; what isn't said comes from above."""

    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    rows: Annotated[int, Field(ge=0)] | None = None


class LoadForm(Form):
    """How rows come into a target; what isn't said comes from above."""

    run_as: Identifier | None = None
    visibility: Literal["at_once", "progressive"] | None = None


Capture = Annotated[
    Annotated[WhereForm, Tag(MAPPING)] | Annotated[Literal["windows", "diff"], Tag(WORD)],
    Discriminator(_either),
]
DeletesWay = Annotated[
    Annotated[DeletesForm, Tag(MAPPING)] | Annotated[Literal["none", "sweep"], Tag(WORD)],
    Discriminator(_either),
]


KeyColumns = Annotated[tuple[ColumnName, ...], Field(min_length=1), AfterValidator(_different)]


class TableForm(Form):
    """One entry of `tables`."""

    capture: Capture
    source: Table | None = None
    target: Table | None = None
    key: KeyColumns | None = None
    event_time: ColumnName | None = Field(default=None, validate_default=True)
    since: Day | None = Field(default=None, validate_default=True)
    nulls: Literal["refuse", "read", "ignore"] | None = None
    deletes: DeletesWay | None = Field(default=None, validate_default=True)
    adopt: bool = False
    mass_delete: GuardForm = GuardForm()
    run_as: Identifier | None = None
    load: LoadForm = LoadForm()

    @field_validator("target")
    @classmethod
    def _not_ours(cls, value: TableNameForm | None) -> TableNameForm | None:
        if value:
            _foreign_schema(value.schema_)
        return value

    @field_validator("event_time", "since")
    @classmethod
    def _windows_need(cls, value: Any, info: ValidationInfo) -> Any:
        capture = info.data.get("capture")
        if capture == "windows" and value is None:
            raise ValueError(
                f"`capture: windows` needs `{info.field_name}`: it reads the days of `event_time` "
                "from the day `since` on"
            )
        if info.field_name == "since" and value and capture not in ("windows", None):
            raise ValueError("only `capture: windows` starts at a day. Remove `since`")
        return value

    @field_validator("nulls")
    @classmethod
    def _nulls_of_where(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and info.data.get("capture") in ("windows", "diff"):
            raise ValueError(
                "is about rows without a modification time, and only `capture: {where: COLUMN}` "
                "reads by one. Remove `nulls`"
            )
        return value

    @field_validator("deletes")
    @classmethod
    def _deletes_of_where(cls, value: Any, info: ValidationInfo) -> Any:
        capture = info.data.get("capture")
        if isinstance(capture, WhereForm) and value is None:
            raise ValueError(
                f"`capture: {{where: {capture.where}}}` can't see deletes: a deleted row has no "
                "modification time. Choose `none` (deletes stay unseen), `sweep` or "
                "`{sweep: 1d}` (compare all keys, at every run or now and then), or "
                "`{column: COLUMN}` (a column marks the deleted rows)"
            )
        if value and capture in ("windows", "diff"):
            raise ValueError(f"`capture: {capture}` sees every delete. Remove `deletes`")
        return value


class ThroughForm(Form):
    """How a changed row tells the days to compute again: by the rows that refer to it."""

    through: Name
    on: Annotated[dict[ColumnName, ColumnName], Field(min_length=1)]


InputWay = Annotated[
    Annotated[ThroughForm, Tag(MAPPING)] | Annotated[Literal["day", "all"], Tag(WORD)],
    Discriminator(_either),
]


class TransformForm(Form):
    """One entry of `transforms`."""

    program: Annotated[str, Field(pattern=r"^.+\.(py|sql)$")]
    target: Table | None = None
    key: KeyColumns
    day: ColumnName
    inputs: Annotated[dict[Name, InputWay], Field(min_length=1)]
    adopt: bool = False
    run_as: Identifier | None = None
    load: LoadForm = LoadForm()

    @field_validator("target")
    @classmethod
    def _not_ours(cls, value: TableNameForm | None) -> TableNameForm | None:
        if value:
            _foreign_schema(value.schema_)
        return value


class WatchForm(Form):
    """What starts a run when it happens."""

    file: Identifier | None = None
    table: Table | None = None
    column: ColumnName | None = None
    connection: Identifier | None = None
    every: Annotated[Duration, Field(gt=0)] = 30.0

    @model_validator(mode="after")
    def _one(self) -> WatchForm:
        of_table = (self.table is not None, self.column is not None)
        if (self.file is not None) == any(of_table) or any(of_table) != all(of_table):
            raise ValueError(
                "takes one of {file: PATH} and {table: TABLE, column: COLUMN}, each with `every`"
            )
        if self.file is not None and (self.connection or not self.file.startswith("/")):
            raise ValueError("`file` is an absolute path, without a `connection`")
        return self


class PoolsForm(Form):
    """Airflow's pools that bound how many tasks of a step are at work, over all pipelines."""

    capture: Identifier | None = None
    apply: Identifier | None = None
    transform: Identifier | None = None
    load: Identifier | None = None


class ScheduleForm(Form):
    """When a run starts by itself."""

    cron: Annotated[str, AfterValidator(_cron)] | None = None
    assets: (
        Annotated[tuple[AssetName, ...], Field(min_length=1), AfterValidator(_different)] | None
    ) = None
    watch: WatchForm | None = None

    @model_validator(mode="after")
    def _some(self) -> ScheduleForm:
        if self.cron and self.assets:
            raise ValueError("takes one of `cron` and `assets`, and `watch` beside it or alone")
        if not (self.cron or self.assets or self.watch):
            raise ValueError("says nothing. Write `cron`, `assets` or `watch`")
        return self


class PipelineForm(Form):
    """The file, without what each table says."""

    pipeline: PipelineName
    description: str = ""
    source: Identifier
    target: Identifier
    time_zone: Zone = "UTC"
    fence_margin: Duration = 1.0
    safety_lag: Annotated[Duration, Field(gt=0)] | None = None
    target_schema: Identifier = "public"
    mass_delete: GuardForm = GuardForm()
    run_as: Identifier | None = None
    load: LoadForm = LoadForm()
    schedule: ScheduleForm | None = None
    max_active_runs: Annotated[int, Field(ge=1)] = 1
    lanes: Annotated[int, Field(ge=1)] = 4
    pools: PoolsForm = PoolsForm()
    owner: Identifier = "naviglio"
    tags: Annotated[tuple[Identifier, ...], AfterValidator(_different)] = ()
    tables: Annotated[dict[Name, Any], Field(min_length=1)]
    groups: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    transforms: dict[Name, Any] = {}

    @field_validator("target_schema")
    @classmethod
    def _not_ours(cls, value: str) -> str:
        return _foreign_schema(value)


def _foreign_schema(value: str) -> str:
    if value.casefold() == NAVIGLIO_SCHEMA:
        raise ValueError(f"schema {value!r} holds Naviglio's ledger. Choose another")
    return value


def keys_of(form: type[Form]) -> tuple[str, ...]:
    """Return the keys of a mapping as the YAML spells them."""
    return tuple(field.alias or name for name, field in form.model_fields.items())


FORMS: dict[str, type[Form]] = {
    "capture": WhereForm,
    "deletes": DeletesForm,
    "load": LoadForm,
    "mass_delete": GuardForm,
    "pools": PoolsForm,
    "schedule": ScheduleForm,
    "watch": WatchForm,
    "source": TableNameForm,
    "target": TableNameForm,
    "inputs": ThroughForm,
}
