"""Who may run as whom: the deployment lists it, never a pipeline's own file."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naviglio.config import reader
from naviglio.errors import ConfigError
from naviglio.known import known_all
from naviglio.model import Pipeline

VARIABLE = "NAVIGLIO_RUN_AS"
_FORM = "{PIPELINE: {CONNECTION: [PRINCIPAL, ...]}}"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class RunAs:
    """The principals that each pipeline may take on each connection.

    `said` is the variable's text; without it the file says, and without both nobody may.
    """

    def __init__(self, said: str, file: Path) -> None:
        self._said = said
        self._file = file

    def check(self, pipeline: Pipeline) -> None:
        """Refuse a pipeline that names a principal it may not take; one ConfigError tells all."""
        wanted = {
            table.run_as: table.name
            for group in pipeline.landings
            for table in group.tables
            if table.run_as
        }
        if not wanted:
            return
        allowed = self._allowed(pipeline.name, pipeline.target)
        problems = [
            f"pipeline {pipeline.name!r}, table {table!r}: `run_as: {principal}` is not allowed on "
            f"connection {pipeline.target!r}; {known_all(sorted(allowed), principal)} Have whoever "
            f"runs this deployment list it in {self._place}: {pipeline.name}: "
            f"{{{pipeline.target}: [{principal}]}}; or remove `run_as`."
            for principal, table in wanted.items()
            if principal not in allowed
        ]
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def _place(self) -> str:
        return VARIABLE if self._said else str(self._file)

    def _allowed(self, pipeline: str, conn_id: str) -> tuple[str, ...]:
        principals = self._listed().get(pipeline, {}).get(conn_id, ())
        return tuple(map(str, principals))

    def _listed(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        if not self._said and not self._file.exists():
            return {}
        try:
            document = reader.parse(self._said) if self._said else self._read()
        except reader.UnreadableError as error:
            raise self._wrong(error.problem.line) from None
        if document.problems:
            raise self._wrong(document.problems[0].line)
        for pipeline, connections in document.data.items():
            if not _fits(connections):
                raise self._wrong(document.line((pipeline,)))
        return document.data

    def _read(self) -> reader.Document:
        mode = stat.S_IMODE(self._file.stat().st_mode)
        if mode & _OTHERS_WRITE:
            raise ConfigError(
                f"{self._file}: others may change who runs as whom (mode {mode:04o}). "
                f"Run: chmod go-w {self._file}"
            )
        return reader.read(self._file)

    def _wrong(self, line: int) -> ConfigError:
        where = f"{self._place}:{line}" if line and not self._said else self._place
        return ConfigError(f"{where}: expected {_FORM} in YAML. Correct it.")


def _fits(connections: Any) -> bool:
    """Tell whether a value maps connections to lists of names."""
    return isinstance(connections, dict) and all(
        isinstance(principals, tuple) and all(isinstance(one, str) and one for one in principals)
        for principals in connections.values()
    )
