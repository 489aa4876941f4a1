"""The page *Naviglio* in Airflow's UI."""
