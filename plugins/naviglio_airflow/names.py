"""Names in Airflow, shared by operators, DAGs and pages."""

from __future__ import annotations


def dag_id_of(pipeline: str) -> str:
    """Return the id of the DAG that runs a pipeline."""
    return f"naviglio_{pipeline}"
