"""Names in Airflow, shared by operators, DAGs and pages."""

from __future__ import annotations

STARTER = "watch"


def dag_id_of(pipeline: str) -> str:
    """Return the id of the DAG that runs a pipeline."""
    return f"naviglio_{pipeline}"


def starter_id_of(pipeline: str) -> str:
    """Return the id of the DAG that starts a pipeline's; no pipeline has a dot in its name."""
    return f"{dag_id_of(pipeline)}.{STARTER}"


def main_id_of(dag_id: str) -> str:
    """Return the id of the pipeline's own DAG."""
    return dag_id.removesuffix(f".{STARTER}")
