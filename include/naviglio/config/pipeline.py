"""Pipelines from YAML files to the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from naviglio.config import reader
from naviglio.config.checks import (
    between_groups,
    between_tables,
    check,
    of_transform,
    target_of,
)
from naviglio.config.problems import Problem, config_error
from naviglio.config.schema import (
    DeletesForm,
    GuardForm,
    PipelineForm,
    TableForm,
    TableNameForm,
    ThroughForm,
    TransformForm,
    WhereForm,
)
from naviglio.errors import ConfigError
from naviglio.model import (
    Deletes,
    Group,
    Guard,
    Input,
    Pipeline,
    Runs,
    TableName,
    TableSpec,
    Transform,
    Watch,
)

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a folder of pipelines holds: those that can run, and why the other files can't."""

    paths: dict[Path, Pipeline]
    errors: dict[Path, ConfigError]

    @property
    def pipelines(self) -> dict[str, Pipeline]:
        """The pipelines by their names."""
        return {one.name: one for one in self.paths.values()}


def load_pipeline(path: Path) -> Pipeline:
    """Read one file; the ConfigError tells all that is wrong in it, one problem on a line."""
    try:
        document = reader.read(path)
    except reader.UnreadableError as error:
        raise config_error(path, [error.problem]) from None
    document.data.setdefault("pipeline", path.stem)
    pipeline, found = _pipeline(document.data, path.parent)
    problems = [
        Problem(text=one.text, place=one.place, line=one.line or document.line(one.place))
        for one in (*document.problems, *found)
    ]
    if pipeline is None or problems:
        raise config_error(path, problems)
    return pipeline


def load_pipelines(folder: Path) -> dict[str, Pipeline]:
    """Read all files of a folder by the pipelines' names; one ConfigError tells of all files."""
    found = read_folder(folder)
    if found.errors:
        raise ConfigError("\n".join(dict.fromkeys(map(str, found.errors.values()))))
    return found.pipelines


def read_folder(folder: Path) -> Folder:
    """Read all files of a folder; a file with an error takes no other down.

    Two files that would write one target, or bear one name, are both refused: which of them is
    meant, nobody but a person can say. Raises ConfigError when there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder of pipelines. Create it, or set NAVIGLIO_PIPELINES."
        )
    read: dict[Path, Pipeline] = {}
    errors: dict[Path, ConfigError] = {}
    for path in sorted(one for one in folder.iterdir() if one.suffix in SUFFIXES):
        if path.name.startswith("."):
            continue
        try:
            read[path] = load_pipeline(path)
        except ConfigError as error:
            errors[path] = error
    for path, meeting in _meetings(read):
        errors.setdefault(path, meeting)
    return Folder(
        paths={path: one for path, one in read.items() if path not in errors},
        errors=errors,
    )


def _meetings(read: Mapping[Path, Pipeline]) -> Iterator[tuple[Path, ConfigError]]:
    """Yield every file that shares its name or a target with another one."""
    owners: dict[tuple[str, ...], Path] = {}
    for path, pipeline in read.items():
        for claim, told in _claims(pipeline):
            other = owners.setdefault(claim, path)
            if other != path:
                error = ConfigError(f"{other} and {path}: both {told}. Change one of them.")
                yield from ((other, error), (path, error))


def _claims(pipeline: Pipeline) -> Iterator[tuple[tuple[str, ...], str]]:
    yield (pipeline.name,), f"are called {pipeline.name!r}"
    for group in pipeline.landings:
        for table in group.tables:
            claim = (pipeline.target, str(table.target).casefold())
            yield claim, f"write {table.target} of connection {pipeline.target!r}"


def _pipeline(data: dict[str, Any], folder: Path) -> tuple[Pipeline | None, list[Problem]]:
    """Check all parts, each on its own, so that all problems are found at once."""
    form, problems = check(PipelineForm, data, ())
    said, groups = _mapping(data.get("tables")), _mapping(data.get("groups"))
    tables: dict[str, TableForm] = {}
    for name, value in said.items():
        table, wrong = check(TableForm, value, ("tables", name))
        problems += wrong
        if table:
            tables[name] = table
    transforms: dict[str, TransformForm] = {}
    for name, value in _mapping(data.get("transforms")).items():
        transform, wrong = check(TransformForm, value, ("transforms", name))
        problems += wrong
        if transform:
            transforms[name] = transform
            problems += of_transform(name, transform, tables)
    target_schema = form.target_schema if form else str(data.get("target_schema", "public"))
    problems += between_tables((*said, *transforms), {**transforms, **tables}, target_schema)
    members = {name: value for name, value in groups.items() if isinstance(value, tuple)}
    problems += between_groups(members, said, list(transforms))
    if form is None or problems:
        return None, problems
    made = tuple(_transform(name, one, form, tables, folder) for name, one in transforms.items())
    return replace(_built(form, tables), transforms=made), []


def _transform(
    name: str,
    form: TransformForm,
    pipeline: PipelineForm,
    tables: Mapping[str, TableForm],
    folder: Path,
) -> Transform:
    schema, table = target_of(name, form, pipeline.target_schema)
    return Transform(
        name=name,
        program=str((folder / form.program).resolve()),
        target=TableName(schema=schema, table=table),
        key=form.key,
        day=form.day,
        inputs=tuple(_input(table, way, tables[table]) for table, way in form.inputs.items()),
        adopt=form.adopt,
        run_as=_run_as(form, pipeline),
        visibility=form.load.visibility or pipeline.load.visibility or "at_once",
    )


def _input(table: str, way: ThroughForm | Literal["day", "all"], form: TableForm) -> Input:
    if isinstance(way, ThroughForm):
        return Input(table=table, way="through", through=way.through, on=tuple(way.on.items()))
    return Input(table=table, way=way, event_time=form.event_time or "" if way == "day" else "")


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _built(form: PipelineForm, tables: Mapping[str, TableForm]) -> Pipeline:
    specs = {name: _table(name, table, form) for name, table in tables.items()}
    return Pipeline(
        name=form.pipeline,
        description=form.description,
        source=form.source,
        target=form.target,
        time_zone=form.time_zone,
        fence_margin_s=form.fence_margin,
        safety_lag_s=form.safety_lag,
        groups=tuple(_groups(form.groups, specs)),
        runs=Runs(
            cron=(form.schedule.cron if form.schedule else None) or "",
            assets=(form.schedule.assets if form.schedule else None) or (),
            watch=_watch(form),
            most_at_once=form.max_active_runs,
            lanes=form.lanes,
            pools=tuple((step, pool) for step, pool in form.pools if pool),
            owner=form.owner,
            tags=form.tags,
        ),
    )


def _watch(form: PipelineForm) -> Watch | None:
    said = form.schedule.watch if form.schedule else None
    if said is None:
        return None
    table = said.table
    return Watch(
        file=said.file or "",
        connection=(said.connection or form.source) if table else "",
        table=TableName(schema=table.schema_, table=table.table) if table else None,
        column=said.column or "",
        every_s=said.every,
    )


def _groups(
    declared: Mapping[str, Iterable[str]], specs: Mapping[str, TableSpec]
) -> Iterator[Group]:
    """Yield the groups in the order of their first tables."""
    home = {member: name for name, members in declared.items() for member in members}
    for name in dict.fromkeys(home.get(table, table) for table in specs):
        members = declared.get(name, (name,))
        yield Group(name=name, tables=tuple(specs[member] for member in members))


def _table(name: str, form: TableForm, pipeline: PipelineForm) -> TableSpec:
    schema, table = target_of(name, form, pipeline.target_schema)
    source = form.source or TableNameForm(table=name)
    where = form.capture if isinstance(form.capture, WhereForm) else None
    return TableSpec(
        name=name,
        source=TableName(schema=source.schema_, table=source.table),
        target=TableName(schema=schema, table=table),
        key=form.key or (),
        way="stream" if isinstance(form.capture, WhereForm) else form.capture,
        modified=where.where if where else "",
        zone=(where.zone if where else None) or "",
        lag=where.lag if where else None,
        event_time=form.event_time or "",
        nulls=form.nulls or "refuse",
        deletes=_deletes(form.deletes),
        since=form.since.isoformat() if form.since else None,
        adopt=form.adopt,
        guard=_guard(form.mass_delete, pipeline.mass_delete),
        run_as=_run_as(form, pipeline),
        visibility=form.load.visibility or pipeline.load.visibility or "at_once",
    )


def _run_as(form: TableForm | TransformForm, pipeline: PipelineForm) -> str:
    """Return the principal that is named nearest to the load."""
    said = (form.load.run_as, form.run_as, pipeline.load.run_as, pipeline.run_as)
    return next((one for one in said if one), "")


def _deletes(said: DeletesForm | str | None) -> Deletes:
    if isinstance(said, DeletesForm) and said.column is not None:
        return Deletes(way="column", column=said.column)
    if isinstance(said, DeletesForm):
        return Deletes(way="sweep", every_s=said.sweep or 0.0)
    return Deletes(way="sweep") if said == "sweep" else Deletes()


def _guard(*said: GuardForm) -> Guard:
    """Take each limit from the first that says it."""
    limits = Guard()
    return Guard(
        fraction=next((one.fraction for one in said if one.fraction is not None), limits.fraction),
        rows=next((one.rows for one in said if one.rows is not None), limits.rows),
    )
