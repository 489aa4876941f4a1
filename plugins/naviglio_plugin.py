"""The one file of this folder that Airflow scans: it registers what the packages beside it hold."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class NaviglioPlugin(AirflowPlugin):
    """Naviglio in Airflow's UI."""

    name = "naviglio"
    external_views = [  # noqa: RUF012 - as Airflow declares it
        {
            "name": "Naviglio",
            "href": "naviglio/",  # relative: Airflow's UI knows below which path it is served
            "destination": "nav",
            "url_route": "naviglio",
            "category": "browse",
        }
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # asked for in the api-server alone
        """The page and what it asks."""
        from naviglio_web.app import make_app

        return [{"app": make_app(), "url_prefix": "/naviglio", "name": "naviglio"}]
