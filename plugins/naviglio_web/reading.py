"""What the page asks of the flows."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from naviglio.config.home import Home
from naviglio.config.pipeline import Folder, read_folder
from naviglio.connections.connections import Connections
from naviglio.errors import ConfigError
from naviglio.flows.accept import accept, open_questions
from naviglio.flows.history import History, history
from naviglio.flows.site import Site, open_site
from naviglio.flows.status import PipelineStatus, status
from naviglio.model import Pipeline, Question
from naviglio_airflow.connections import AirflowConnections

LAST = 10
_KEEP_S = 30.0


def folder() -> Folder:
    """Return the folder of pipelines as it stands; where there is none, there are no pipelines."""
    path = Home.find(os.environ).pipelines
    return _read(path, tuple(_states(path)), int(time.monotonic() / _KEEP_S))


def _states(path: Path) -> Iterator[tuple[str, int, int]]:
    for file in sorted(path.glob("*")):
        with suppress(OSError):  # it has just gone
            found = file.stat()
            yield file.name, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1)
def _read(path: Path, state: tuple[object, ...], moment: int) -> Folder:
    """Read the folder once for each state: browsers ask every ten seconds for each pipeline."""
    del state, moment  # what the files name, such as programs, may change without them
    try:
        return read_folder(path)
    except ConfigError as error:
        return Folder(paths={}, errors={path: error}) if path.exists() else _nothing()


def status_of(pipeline: Pipeline) -> PipelineStatus:
    """Tell how far the pipeline is."""
    with _site(pipeline) as site:
        return status(site)


def history_of(pipeline: Pipeline, table: str) -> History:
    """Return the last batches of a table; KeyError when the pipeline has no such table."""
    group, spec = {t.name: (g, t) for g in pipeline.landings for t in g.tables}[table]
    with _site(pipeline) as site:
        return history(site, group, spec, LAST)


def answer(pipeline: Pipeline, asked: Question, by: str) -> bool:
    """Accept a question if it is still open as it was seen; the name of who did is kept."""
    with _site(pipeline) as site:
        for group in site.pipeline.landings:
            if asked in open_questions(site, group):
                accept(site, group, [asked], by)
                return True
    return False


@contextmanager
def _site(pipeline: Pipeline) -> Iterator[Site]:
    """Open a pipeline over Airflow's connections, as its tasks do."""
    home = Home.find(os.environ)
    connections = AirflowConnections(Connections(os.environ, home.connections))
    with open_site(pipeline, home, connections) as site:
        yield site


def _nothing() -> Folder:
    return Folder(paths={}, errors={})
