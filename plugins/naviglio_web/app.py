"""The page's application. Every route asks Airflow's auth manager; no route is left out."""

# No `from __future__ import annotations`: FastAPI would take the user for a query parameter.
import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, get_user, requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, FileSystemLoader
from pydantic import BaseModel

from naviglio.cli.show import cell, moment, size, span
from naviglio.errors import NaviglioError
from naviglio.model import Pipeline, Question
from naviglio_airflow.names import dag_id_of
from naviglio_web import access, reading
from naviglio_web.shared import Shared

LIMIT_S = 15.0
KEEP_S = 4.0  # less than the page's own pause between two looks
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HERE = Path(__file__).parent
_READ = Depends(requires_access_dag("GET"))
_RUN = Depends(requires_access_dag("POST", DagAccessEntity.RUN))
_log = logging.getLogger(__name__)
_shared = Shared(KEEP_S)
_templates = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True)
_templates.filters.update(cell=cell, moment=moment, size=size, span=span)
_templates.filters["json"] = lambda question: msgspec.json.encode(question).decode()


class Answered(BaseModel):
    """The question that a person saw and accepts."""

    group: str
    table: str
    kind: Literal["mass delete", "drift", "identity"]
    head: int
    text: str
    found: str
    asked_at_utc: datetime


def make_app() -> FastAPI:
    """Return the application that Airflow mounts."""
    app = FastAPI(dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_with_headers)
    app.get("/", response_class=HTMLResponse)(page)
    app.get("/static/{name}")(static)
    app.get("/dags/{dag_id}", response_class=HTMLResponse, dependencies=[_READ])(pipeline)
    app.get("/dags/{dag_id}/tables/{table}", response_class=HTMLResponse, dependencies=[_READ])(
        table_history
    )
    app.post("/dags/{dag_id}/accept", dependencies=[_RUN, Depends(access.same_origin_json)])(accept)
    return app


def page(user: GetUserDep) -> str:
    """Return the frame: which pipelines there are, and which files can't be read."""
    folder = reading.folder()
    names = access.readable(folder.pipelines, user)
    shown = set(access.readable([path.stem for path in folder.errors], user))
    problems = (
        [str(error) for path, error in folder.errors.items() if path.stem in shown]
        if access.sees_problems(user)
        else []
    )
    return _render(
        "page.html",
        pipelines=[(dag_id_of(name), folder.pipelines[name]) for name in names],
        problems=problems,
    )


def static(name: Literal["page.css", "page.js"]) -> FileResponse:
    """Return a file of the page."""
    return FileResponse(_HERE / "static" / name)


async def pipeline(dag_id: str, user: GetUserDep) -> str:
    """Return how far a pipeline is."""
    declared = await asyncio.to_thread(_declared, dag_id)
    found = await _in_time(reading.status_of, declared)
    return _render(
        "pipeline.html",
        declared=declared,
        found=found,
        may_answer=await asyncio.to_thread(access.may_run, dag_id, user),
    )


async def table_history(dag_id: str, table: str) -> str:
    """Return the last batches and lake versions of a table."""
    declared = await asyncio.to_thread(_declared, dag_id)
    if table not in {one.name for group in declared.landings for one in group.tables}:
        raise HTTPException(404, "No such table.")
    return _render("history.html", found=await _in_time(reading.history_of, declared, table))


async def accept(dag_id: str, answered: Answered, user: GetUserDep) -> dict[str, str]:
    """Accept one question, exactly as it was seen."""
    question = Question(**answered.model_dump())
    declared = await asyncio.to_thread(_declared, dag_id)
    was_open = await asyncio.to_thread(reading.answer, declared, question, user.get_name())
    _shared.forget((reading.status_of.__name__, declared.name))
    if not was_open:
        raise HTTPException(409, "This question is no longer open. Look again.")
    _log.info("%s accepted: %s, %s", user.get_name(), dag_id, question.text)
    return {"accepted": question.table}


def _declared(dag_id: str) -> Pipeline:
    for name, declared in reading.folder().pipelines.items():
        if dag_id_of(name) == dag_id:
            return declared
    raise HTTPException(404, "No such pipeline.")


async def _in_time(ask: Callable[..., Any], declared: Pipeline, *arguments: str) -> Any:
    try:
        key = (ask.__name__, declared.name, *arguments)
        return await asyncio.wait_for(_shared.ask(key, ask, declared, *arguments), LIMIT_S)
    except TimeoutError:
        raise HTTPException(
            504, f"No answer in {LIMIT_S:.0f} s: landing, lake, source or target hangs."
        ) from None
    except NaviglioError as error:
        raise HTTPException(502, str(error)) from None


def _render(template: str, **values: object) -> str:
    return _templates.get_template(template).render(values)


async def _with_headers(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response
