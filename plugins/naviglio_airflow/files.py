"""The folder of pipelines as DAGs: what can run, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from naviglio.config.pipeline import SUFFIXES, load_pipeline, read_folder
from naviglio.errors import ConfigError
from naviglio_airflow.names import dag_id_of

if TYPE_CHECKING:
    from airflow.sdk import DAG


def pipelines_of(folder: Path, wanted: str | None) -> Iterator[DAG]:
    """Yield the DAG of each file without mistakes; of one alone where a task wants only that."""
    from naviglio_airflow.dags import dag_of

    if wanted is not None:
        for path in _of_name(folder, wanted):
            yield dag_of(load_pipeline(path), path)
            return
    for path, pipeline in read_folder(folder).paths.items():
        if wanted in (None, dag_id_of(pipeline.name)):  # Airflow finds every DAG that was built
            yield dag_of(pipeline, path)


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
