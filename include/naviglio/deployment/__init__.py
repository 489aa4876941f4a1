"""Run what a deployment needs on this machine: an embedded Airflow over the embedded server."""
