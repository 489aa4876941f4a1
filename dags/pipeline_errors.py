"""Shows, as this file's import error, what is wrong in pipelines' YAML files; defines no DAG.

The pipelines of all other files are there nonetheless: dags/pipelines.py leaves these out.
"""

from __future__ import annotations

import os

from airflow.sdk import get_parsing_context

from naviglio.config.home import Home
from naviglio_airflow.files import refuse_broken_files

if get_parsing_context().dag_id is None:  # a task has no use for it
    refuse_broken_files(Home.find(os.environ).pipelines)
