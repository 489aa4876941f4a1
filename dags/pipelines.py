"""One DAG for each pipeline's YAML file. Files with mistakes: see pipeline_errors.py."""

from __future__ import annotations

import os

from airflow.sdk import get_parsing_context

from naviglio.config.home import Home
from naviglio_airflow.files import pipelines_of

for _dag in pipelines_of(Home.find(os.environ).pipelines, get_parsing_context().dag_id):
    globals()[_dag.dag_id] = _dag
