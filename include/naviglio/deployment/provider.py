"""What this package tells Airflow of itself: the type of connection whose test button works."""

from __future__ import annotations

from typing import Any


def provider_info() -> dict[str, Any]:
    """Return it as Airflow's schema of provider information wants it."""
    return {
        "package-name": "naviglio",
        "name": "Naviglio",
        "description": "Changed rows from operational databases into a SQL warehouse.",
        "connection-types": [
            {
                "connection-type": "mssqlpython",
                "hook-class-name": "naviglio_airflow.hooks.MssqlHook",
                "hook-name": "SQL Server (Naviglio)",
                "ui-field-behaviour": {
                    "hidden-fields": [],
                    "relabeling": {"schema": "Database"},
                    "placeholders": {"port": "1433", "extra": '{"encrypt": "yes"}'},
                },
            }
        ],
    }
