"""One real Airflow, which ends with this package's tests."""
