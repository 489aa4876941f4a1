"""The folder of pipelines as DAGs: what can run, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from naviglio.config.pipeline import SUFFIXES, load_pipeline, read_folder
from naviglio.errors import ConfigError
from naviglio_airflow.names import dag_id_of, main_id_of

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from naviglio.model import Pipeline


def pipelines_of(folder: Path, wanted: str | None) -> Iterator[DAG]:
    """Yield the DAGs of each file without mistakes; one alone where a task wants only that."""
    main = None if wanted is None else main_id_of(wanted)
    if main is not None:
        for path in _of_name(folder, main):
            yield from _dags_of(load_pipeline(path), path, wanted)
            return
    for path, pipeline in read_folder(folder).paths.items():
        if main in (None, dag_id_of(pipeline.name)):  # Airflow finds every DAG that was built
            yield from _dags_of(pipeline, path, wanted)


def _dags_of(pipeline: Pipeline, path: Path, wanted: str | None) -> Iterator[DAG]:
    from naviglio_airflow.dags import dag_of, starter_of

    if wanted in (None, dag_id_of(pipeline.name)):
        yield dag_of(pipeline, path)
    if wanted != dag_id_of(pipeline.name) and (starter := starter_of(pipeline)) is not None:
        yield starter


def refuse_broken_files(folder: Path) -> None:
    """Raise one ConfigError that tells of all files with mistakes."""
    errors = read_folder(folder).errors
    if errors:
        raise ConfigError("\n".join(dict.fromkeys(map(str, errors.values()))))


def _of_name(folder: Path, wanted: str) -> Iterator[Path]:
    """Yield the file that is called like the pipeline, where it says so itself."""
    for suffix in SUFFIXES:
        for path in folder.glob(f"*{suffix}"):
            if dag_id_of(path.stem) == wanted and load_pipeline(path).name == path.stem:
                yield path
