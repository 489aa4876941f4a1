"""The page *Naviglio* as a person sees it: a real browser, in Airflow's own UI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect, sync_playwright

from naviglio.capture.table import Wish
from naviglio.config.pipeline import load_pipeline
from naviglio.connections.connections import Connections, variable_of
from naviglio.deployment.settings import ADMIN
from naviglio.deployment.users import password
from naviglio.flows.replicate import Report, replicate
from naviglio.flows.site import open_site
from tests.e2e.conftest import VIEWER, Running

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SHOTS = os.environ.get("NAVIGLIO_SCREENSHOTS", "")  # a folder for pictures, for people to look at
DAG = "naviglio_flights"
ACCEPTED = "Accepted for planes. It lands with the next run."
SOON_MS = 30_000

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no browser: apt-get install chromium"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser without a window."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


def signed_in(browser: Browser, running: Running, *, user: str = ADMIN, dark: bool = False) -> Page:
    """Return Airflow's UI at 1280 pixels, signed in by its own form."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.goto(running.place.url)
    page.locator("input[name=username]").fill(user)
    page.locator("input[name=password]").fill(password(running.place, user))
    page.locator("button[type=submit]").click()
    expect(page.get_by_role("button", name="Browse")).to_be_visible(timeout=SOON_MS)
    return page


def opened(page: Page) -> FrameLocator:
    """Go to the page by Airflow's own menu."""
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Naviglio").click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Naviglio", exact=True)).to_be_visible(timeout=SOON_MS)
    return frame


def shoot(page: Page, name: str) -> None:
    """Keep a picture where one is wanted."""
    if SHOTS:
        page.screenshot(path=Path(SHOTS, f"{name}.png"))


def capture_registry(running: Running) -> Report:
    """Carry the registry tables once, as a task would."""
    pipeline = load_pipeline(running.home.pipelines / "flights.yaml")
    names = ("operations", "warehouse")
    environ = {variable_of(name): running.url(name) for name in names}
    [group] = [group for group in pipeline.groups if group.name == "registry"]
    with open_site(pipeline, running.home, Connections(environ, None)) as site:
        return replicate(site, group, Wish())


def test_a_person_sees_every_table_and_answers_a_question(
    browser: Browser, running: Running
) -> None:
    """From the login to an accepted mass delete, which then lands; nothing is cut off."""
    running.drained(DAG)  # of an earlier test nothing is under way
    [(planes,)] = running.rows("operations_app", "SELECT count(*) FROM planes")
    with psycopg.connect(running.url("operations_app")) as source:
        source.execute(
            "DELETE FROM planes WHERE tailnum IN (SELECT tailnum FROM planes LIMIT 1500)"
        )
    gone = f"1500 of {planes} rows known before are gone"
    assert gone in str(capture_registry(running).error)

    watch_a_viewer(browser, running, gone)
    page = signed_in(browser, running)
    frame = opened(page)
    flights = frame.get_by_role("region", name="Tables of flights")
    for table in ("flights", "weather", "planes", "airports", "airlines"):
        expect(flights.get_by_role("rowheader", name=table, exact=True)).to_be_visible(
            timeout=SOON_MS
        )
    transforms = frame.get_by_role("region", name="Transforms of flights")
    expect(transforms.get_by_role("rowheader")).to_have_text(["daily_delays", "aircraft_use"])
    expect(frame.get_by_role("region", name="Ledger of flights")).to_contain_text("flights.weather")
    expect(frame.get_by_role("region", name="Tables of mart")).to_be_visible()
    # one of the connections is known to Airflow alone
    expect(frame.get_by_text("gives no answer:")).to_have_count(0)
    wide = frame.locator("body").evaluate("body => body.scrollWidth - body.clientWidth")
    assert wide <= 0  # tables scroll, the page doesn't
    frame.locator("summary", has_text="weather").first.click()
    manifests = running.home.landing / "flights" / "weather" / "manifests"
    batches = frame.get_by_role("region", name="Batches of weather").get_by_role("rowheader")
    expect(batches.first).to_have_text(str(len([*manifests.glob("*.json")])))
    shoot(page, "question")

    frame.get_by_role("button", name="Accept").first.click()
    asked = f"naviglio_flights, table planes: {gone}"
    expect(frame.get_by_role("dialog")).to_contain_text(asked)
    shoot(page, "dialog")
    frame.get_by_role("dialog").get_by_role("button", name="Accept").click()
    expect(frame.get_by_role("status")).to_have_text(ACCEPTED)
    expect(frame.get_by_role("button", name="Accept")).to_have_count(0, timeout=SOON_MS)
    landed = capture_registry(running)
    assert landed.error is None
    assert landed.loaded["planes"].deleted == 1500


def watch_a_viewer(browser: Browser, running: Running, gone: str) -> None:
    """A viewer sees the tables and the question, has no button, and a POST of theirs is refused."""
    page = signed_in(browser, running, user=VIEWER)
    frame = opened(page)
    tables = frame.get_by_role("region", name="Tables of flights")
    expect(tables.get_by_role("rowheader", name="planes", exact=True)).to_be_visible(
        timeout=SOON_MS
    )
    expect(frame.get_by_text(gone)).to_be_visible()
    expect(frame.get_by_text("Whoever may trigger this DAG may accept it.")).to_be_visible()
    expect(frame.get_by_role("button", name="Accept")).to_have_count(0)
    shoot(page, "viewer")
    status = page.evaluate(
        """async (dag) => (await fetch(`/naviglio/dags/${dag}/accept`, {method: "POST",
        headers: {"Content-Type": "application/json"}, body: "{}"})).status""", DAG
    )  # fmt: skip
    assert status == 403
    page.context.close()


def test_the_page_follows_airflows_dark_mode_and_tells_what_is_wrong(
    browser: Browser, running: Running
) -> None:
    """Dark when Airflow is; a broken file and a side that is away are named, the rest stays."""
    broken = running.home.pipelines / "broken.yaml"
    broken.write_text("source: operations\ntarget: warehouse\ntables: {t: {capture: dif}}\n")
    lost = running.home.pipelines / "lost.yaml"
    lost.write_text(
        "source: nowhere\ntarget: warehouse\ntables: {t: {capture: {where: at}, deletes: none}}\n"
    )
    try:
        page = signed_in(browser, running, dark=True)
        page.evaluate("document.documentElement.classList.add('dark')")
        frame = opened(page)
        expect(frame.get_by_role("alert")).to_contain_text("broken.yaml:3: tables.t.capture")
        expect(frame.get_by_text("source gives no answer:")).to_be_visible(timeout=SOON_MS)
        expect(frame.get_by_role("region", name="Tables of flights")).to_be_visible()
        assert frame.locator("html").get_attribute("data-theme") == "dark"
        shoot(page, "dark")
    finally:
        broken.unlink()
        lost.unlink()


def test_nobody_sees_the_page_without_airflows_leave(running: Running) -> None:
    """Over the network as in the unit tests: 401 without a session, for changes too."""
    with httpx.Client(base_url=running.place.url) as anyone:
        for path in ("/naviglio/", f"/naviglio/dags/{DAG}", "/naviglio/static/page.css"):
            assert anyone.get(path).status_code == 401
        assert anyone.post(f"/naviglio/dags/{DAG}/accept", json={}).status_code == 401
