"""Who may see a pipeline, and who may answer its questions: Airflow's auth manager decides."""

from collections.abc import Collection
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import (
    AccessView,
    DagAccessEntity,
    DagDetails,
)
from airflow.models.dag import DagModel  # noqa: TID251 - the api-server is no task
from fastapi import HTTPException, Request

from naviglio_airflow.names import dag_id_of


def readable(names: Collection[str], user: BaseUser) -> list[str]:
    """Return the pipelines whose DAG the user may read."""
    teams = DagModel.get_dag_id_to_team_name_mapping([dag_id_of(name) for name in names])
    manager = get_auth_manager()
    return [
        name
        for name in names
        for dag_id in [dag_id_of(name)]
        if manager.is_authorized_dag(
            method="GET", details=DagDetails(id=dag_id, team_name=teams.get(dag_id)), user=user
        )
    ]


def may_run(dag_id: str, user: BaseUser) -> bool:
    """Whether the user may trigger the DAG, and so answer its questions."""
    return get_auth_manager().is_authorized_dag(
        method="POST",
        access_entity=DagAccessEntity.RUN,
        details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
        user=user,
    )


def sees_problems(user: BaseUser) -> bool:
    """Whether the user may see why files of DAGs can't be read."""
    return get_auth_manager().is_authorized_view(access_view=AccessView.IMPORT_ERRORS, user=user)


def same_origin_json(request: Request) -> None:
    """Refuse what another site's page could have sent: a form, a foreign or unnamed origin."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "Send JSON.")
    origin = urlsplit(request.headers.get("origin", ""))
    site = request.headers.get("sec-fetch-site", "same-origin")
    if not origin.netloc or origin.netloc != request.headers.get("host") or site != "same-origin":
        raise HTTPException(403, "Only the page itself may ask for this.")
