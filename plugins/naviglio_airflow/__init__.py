"""The core's flows as Airflow operators and DAGs."""
