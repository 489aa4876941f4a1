"""From a command line's words to pipelines, groups, tables and the site where they work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from naviglio.errors import ConfigError
from naviglio.model import Group, Pipeline, TableSpec, Transform

if TYPE_CHECKING:
    from naviglio.config.home import Home
    from naviglio.flows.site import Site, Tell


def home() -> Home:
    """Return the folders that the environment names."""
    from naviglio.config.home import Home

    return Home.find(os.environ)


def pipeline_named(name: str) -> Pipeline:
    """Return a pipeline by its name, or by the path of its file."""
    from naviglio.config.pipeline import SUFFIXES, load_pipeline, read_folder
    from naviglio.known import known_all

    if "/" in name or name.endswith(SUFFIXES):
        return load_pipeline(Path(name))
    folder = home().pipelines
    read = read_folder(folder)
    if name in read.pipelines:
        return read.pipelines[name]
    for path, error in read.errors.items():
        if path.stem == name:
            raise error
    raise ConfigError(
        f"no pipeline is called {name!r} in {folder}; {known_all(read.pipelines, name)} "
        "Name one of them, or a file."
    )


def all_pipelines() -> list[Pipeline]:
    """Return every pipeline of the home; a ConfigError tells of all files that can't be read."""
    from naviglio.config.pipeline import load_pipelines

    return list(load_pipelines(home().pipelines).values())


@contextmanager
def site_of(pipeline: Pipeline, tell: Tell | None = None) -> Iterator[Site]:
    """Open the site of a pipeline and close what it opened."""
    from naviglio.connections.connections import Connections
    from naviglio.flows.site import open_site

    at = home()
    connections = Connections(os.environ, at.connections)
    with open_site(pipeline, at, connections, *([tell] if tell else [])) as site:
        yield site


def unknown_connections(pipelines: Iterable[Pipeline]) -> list[str]:
    """Return the ids that pipelines name and this machine doesn't know; Airflow may."""
    from naviglio.connections.connections import Connections

    known = Connections(os.environ, home().connections)
    named = {conn_id: None for one in pipelines for conn_id in (one.source, one.target)}
    return [conn_id for conn_id in named if known.find(conn_id) is None]


def spark_url() -> str:
    """Return where Spark runs: the connection `spark_default`, NAVIGLIO_SPARK_MASTER, or here."""
    from naviglio.connections.connections import Connections
    from naviglio.transform.cluster import HERE, SPARK

    known = Connections(os.environ, home().connections).find(SPARK)
    return known or os.environ.get("NAVIGLIO_SPARK_MASTER") or HERE


def table_of(pipeline: Pipeline, name: str) -> tuple[Group, TableSpec]:
    """Return a table and its group."""
    for group in pipeline.landings:
        for table in group.tables:
            if table.name == name:
                return group, table
    names = [table.name for group in pipeline.landings for table in group.tables]
    raise _unknown(pipeline, name, "table", names)


def group_of(pipeline: Pipeline, name: str) -> Group:
    """Return the group of that name, or of the table of that name."""
    for group in pipeline.groups:
        if name == group.name or name in {table.name for table in group.tables}:
            return group
    names = {g.name: None for g in pipeline.groups} | {t.name: None for t in pipeline.tables}
    raise _unknown(pipeline, name, "table or group", list(names))


def groups_of(pipeline: Pipeline, tables: Iterable[str]) -> tuple[Group, ...]:
    """Return the groups of these tables in the pipeline's order; all when none is named.

    The transforms' groups stand at the end.
    """
    wanted = {table_of(pipeline, table)[0].name for table in tables}
    return tuple(group for group in pipeline.landings if not wanted or group.name in wanted)


def parted(
    pipeline: Pipeline, tables: Iterable[str]
) -> tuple[tuple[Group, ...], tuple[Transform, ...]]:
    """Return the groups to capture and the transforms to compute for these tables."""
    names = {group.name for group in groups_of(pipeline, tables)}
    return (
        tuple(group for group in pipeline.groups if group.name in names),
        tuple(one for one in pipeline.transforms if one.name in names),
    )


def beside(groups: Iterable[Group], tables: Iterable[str]) -> list[str]:
    """Say which tables come along with the named ones, because they are captured together."""
    named = set(tables)
    notes = []
    for group in groups:
        others = [table.name for table in group.tables if table.name not in named]
        if named and others:
            notes.append(f"group {group.name!r} is captured together: {', '.join(others)} as well")
    return notes


def _unknown(pipeline: Pipeline, name: str, what: str, names: list[str]) -> ConfigError:
    from naviglio.known import known_all

    return ConfigError(
        f"pipeline {pipeline.name!r} has no {what} {name!r}; {known_all(names, name)} "
        "Name one of them."
    )
