"""Nobody sees or changes anything through the page without Airflow's leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from naviglio_web.app import HEADERS, make_app

ORIGIN = "http://testserver"
QUESTION = {
    "group": "g", "table": "t", "kind": "drift", "head": 1, "text": "", "found": "",
    "asked_at_utc": "2024-01-01T00:00:00Z",
}  # fmt: skip
YAML = "source: a\ntarget: b\ntables:\n  t: {capture: diff}\n"


@pytest.fixture
def app(airflow_tables: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """The application over a folder of one pipeline."""
    monkeypatch.setenv("NAVIGLIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NAVIGLIO_PIPELINES", str(tmp_path))
    (tmp_path / "shop.yaml").write_text(YAML)
    return make_app()


def client(app: FastAPI, role: str = "", *teams: str) -> TestClient:
    """Return a browser signed in as somebody of a role and teams; of nobody without one."""
    made = TestClient(app, base_url=ORIGIN)
    if role:
        user = SimpleAuthManagerUser(username=role.lower(), role=role, teams=list(teams))
        made.cookies.set("_token", create_auth_manager().generate_jwt(user))
    return made


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Return every method and path of the application."""
    assert all(isinstance(route, APIRoute) for route in app.routes)  # a mount would go unchecked
    filled = {"{dag_id}": "naviglio_shop", "{table}": "t", "{name}": "page.css"}
    found = []
    for route in app.routes:
        assert isinstance(route, APIRoute)
        path = route.path
        for name, value in filled.items():
            path = path.replace(name, value)
        found += [(method, path) for method in route.methods]
    return found


def test_every_route_refuses_the_unknown(app: FastAPI) -> None:
    """Without a token each route, the style sheet's too, answers 401."""
    create_auth_manager()
    said = {r: client(app).request(*r, json=QUESTION).status_code for r in routes(app)}
    assert said
    assert set(said.values()) == {401}


def test_a_pipeline_nobody_granted_is_absent(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without rights on its DAG gets 403, and a page that doesn't name it."""
    manager = create_auth_manager()
    monkeypatch.setattr(manager, "is_authorized_dag", lambda **_: False)
    browser = client(app, "VIEWER")
    for method, path in routes(app):
        if path.startswith("/dags/"):
            assert browser.request(method, path, json=QUESTION).status_code == 403
    assert "shop" not in browser.get("/").text


@pytest.fixture
def teams(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pipeline's DAG belongs to team `sea`, as Airflow's database says."""
    del app
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    from airflow.models.dag import DagModel  # noqa: TID251 - the api-server is no task
    from airflow.models.dagbundle import DagBundleModel  # noqa: TID251 - the same
    from airflow.models.team import Team  # noqa: TID251 - the same
    from airflow.utils.session import create_session

    with create_session() as session:
        bundle, team = DagBundleModel(name="ships"), Team(name="sea")
        bundle.teams.append(team)
        dag = DagModel(dag_id="naviglio_shop", bundle_name="ships")  # type: ignore[no-untyped-call]
        session.add_all([bundle, team])
        session.flush()
        session.add(dag)
        session.commit()
        DagModel.get_team_name.cache_clear()  # Airflow remembers teams for a while
        yield
        DagModel.get_team_name.cache_clear()
        for made in (dag, bundle, team):
            session.delete(made)


@pytest.mark.parametrize(("team", "refused"), [("sea", 0), ("land", 3)])
def test_another_teams_pipeline_is_absent(
    app: FastAPI, teams: None, team: str, refused: int
) -> None:
    """By Airflow's own auth manager: no name, no figures, no answer, though the role would do."""
    del teams
    browser = client(app, "USER", team)
    assert ("naviglio_shop" not in browser.get("/").text) == bool(refused)
    said = [
        browser.request(*route, json=QUESTION, headers={"origin": ORIGIN}).status_code
        for route in routes(app)
        if route[1].startswith("/dags/")
    ]
    assert (len(said), said.count(403)) == (3, refused)


def test_a_viewer_sees_but_may_not_answer(app: FastAPI) -> None:
    """The page and the pipeline are there; the answer is refused."""
    browser = client(app, "VIEWER")
    assert "naviglio_shop" in browser.get("/").text
    shown = browser.get("/dags/naviglio_shop")
    assert shown.status_code == 200
    assert "target gives no answer" in shown.text.replace("</b>", "")
    assert "Accept …" not in shown.text
    answer = browser.post("/dags/naviglio_shop/accept", json=QUESTION, headers={"origin": ORIGIN})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": ORIGIN, "sec-fetch-site": "cross-site"}, 403),
        ({"origin": ORIGIN, "content-type": "text/plain"}, 415),
        ({"origin": ORIGIN, "content-type": "application/x-www-form-urlencoded"}, 415),
        ({"origin": ORIGIN, "sec-fetch-site": "same-origin"}, 409),
    ],
)
def test_only_the_page_itself_changes_anything(
    app: FastAPI, headers: dict[str, str], status: int
) -> None:
    """No form, no foreign page; the last one comes through, to a question that isn't open."""
    browser = client(app, "USER")
    answer = browser.post("/dags/naviglio_shop/accept", json=QUESTION, headers=headers)
    assert answer.status_code == status
    assert browser.get("/dags/naviglio_shop/accept").status_code == 405


def test_a_broken_file_is_told_with_its_line(app: FastAPI, tmp_path: Path) -> None:
    """Beside the pipelines that can be read; and what is written there is text, never markup."""
    (tmp_path / "bad.yaml").write_text(YAML + "  <b>: 1\n")
    said = client(app, "VIEWER").get("/")
    assert "bad.yaml:5" in said.text
    assert "&lt;b&gt;" in said.text
    assert "<b>" not in said.text
    assert "naviglio_shop" in said.text


def test_answers_carry_a_strict_policy(app: FastAPI) -> None:
    """Nothing is loaded from elsewhere and nothing inline runs."""
    said = client(app, "VIEWER").get("/")
    assert all(said.headers[name] == value for name, value in HEADERS.items())
    assert "unsafe" not in said.headers["content-security-policy"]
