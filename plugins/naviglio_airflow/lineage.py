"""What the tasks of a pipeline read and write, as OpenLineage's datasets: table-level lineage.

Names follow OpenLineage's naming conventions: a database's namespace is its address, never a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import Dataset

from naviglio.flows.site import Site
from naviglio.model import Group, TableName, TableSpec

_NAMESPACES = {"postgresql": "postgres"}
_PORTS = {"postgresql": 5432, "mssql": 1433}
Datasets = Iterator[Dataset]


def lineage_of(site: Site, step: str, groups: Sequence[Group]) -> OperatorLineage[Any, Any]:
    """Return the inputs and outputs of a step (`capture`, `apply`, ...) over some groups."""
    tables = [(group, table) for group in groups for table in group.tables]
    inputs, outputs = _ENDS[step]
    return OperatorLineage(
        inputs=[one for group, table in tables for one in inputs(site, group, table)],
        outputs=[one for group, table in tables for one in outputs(site, group, table)],
    )


def dataset_of(url: str, table: TableName) -> Dataset:
    """Return a table of a database by the URL of its connection."""
    parts = urlsplit(url)
    if not parts.netloc and parts.path and parts.scheme not in _PORTS:  # a database in one file
        return Dataset(namespace="file", name=f"{parts.path}/{table}")
    options = parse_qs(parts.query)
    host = parts.hostname or options.get("host", ["localhost"])[0]
    port = parts.port or options.get("port", [_PORTS.get(parts.scheme, "")])[0]
    namespace = f"{_NAMESPACES.get(parts.scheme, parts.scheme)}://{host}:{port}"
    return Dataset(namespace=namespace, name=f"{parts.path.strip('/')}.{table}")


def _source(site: Site, group: Group, table: TableSpec) -> Datasets:
    del group
    yield dataset_of(site.connections.url(site.pipeline.source), table.source)


def _target(site: Site, group: Group, table: TableSpec) -> Datasets:
    del group
    yield dataset_of(site.connections.url(site.pipeline.target), table.target)


def _landing(site: Site, group: Group, table: TableSpec) -> Datasets:
    yield _folder(str(Path(site.landing(group).store.root, table.name)))


def _lake(site: Site, group: Group, table: TableSpec) -> Datasets:
    del group
    yield _folder(site.lake(table).uri)


def _inputs(site: Site, group: Group, table: TableSpec) -> Datasets:
    del group
    named = {one.name: one for one in site.pipeline.tables}
    for one in site.pipeline.transforms:
        if one.name == table.name:
            yield from (_folder(site.lake(named[wanted.table]).uri) for wanted in one.inputs)


def _compared(site: Site, group: Group, table: TableSpec) -> Datasets:
    if group in site.pipeline.groups:
        yield from _source(site, group, table)
    yield from _lake(site, group, table)
    yield from _target(site, group, table)


def _none(site: Site, group: Group, table: TableSpec) -> Datasets:
    del site, group, table
    return iter(())


def _folder(path: str) -> Dataset:
    return Dataset(namespace="file", name=path)


_End = Callable[[Site, Group, TableSpec], Datasets]
_ENDS: Mapping[str, tuple[_End, _End]] = {
    "capture": (_source, _landing),
    "apply": (_landing, _lake),
    "transform": (_inputs, _landing),
    "load": (_lake, _target),
    "reconcile": (_compared, _none),
    "maintain": (_lake, _lake),
}
