"""The portal in a real browser: no fault of accessibility, by keyboard, without JavaScript, and inside another page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine

import outbox
from outbox import subscriptions
from tests.support import databases, posted_pages
from tests.support.browser import chromium, faults_of, faults_of_posted
from tests.support.dashboard import Scene, seed, served
from tests.support.loopback import allow_loopback

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.xdist_group("dashboard")
WIDTHS = (360, 1280)


@contextmanager
def pages_with_a_frame() -> Iterator[tuple[str, list[str]]]:
    """Serve pages on localhost, another site than 127.0.0.1, which show the last of the addresses in a frame."""
    framed: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(f"<title>x</title><iframe src='{framed[-1]}'></iframe>".encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}", framed
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass(frozen=True)
class Stage:
    """The address of a portal, its scene and its database; a page that may frame it, and one that may not."""

    address: str
    scene: Scene
    engine: Engine
    application: tuple[str, list[str]]
    stranger: tuple[str, list[str]]

    def link(self) -> str:
        with self.engine.begin() as connection:
            return outbox.portal_url(connection, "globex", f"{self.address}/portal", rights="manage", person="carol")


@pytest.fixture(scope="module")
def stage(server_url: str, migrated_template: str) -> Iterator[Stage]:
    allow_loopback()
    with (
        databases.database(server_url, template=migrated_template) as url,
        databases.engine_on(url) as engine,
        pages_with_a_frame() as application,
        pages_with_a_frame() as stranger,
    ):
        with engine.begin() as connection:
            scene = seed(connection)
        settings = {"portal_frame_ancestors": (application[0],), "portal_colours": ("#ffd400",)}
        with served(url, portal_filters=True, portal_descriptions=True, **settings) as address:
            yield Stage(address, scene, engine, application, stranger)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def pages_of(scene: Scene) -> list[str]:
    one = f"/portal/endpoints/{scene.failing}"
    return [
        "/portal/", one, f"{one}/edit", f"{one}/secret", f"{one}/test", "/portal/deliveries",
        "/portal/deliveries?show=given_up", f"/portal/deliveries/{scene.dead_delivery}", "/portal/types",
        "/portal/types/order.created", "/portal/endpoints/none", "/portal/open?link=none",
    ]  # fmt: skip


@pytest.mark.slow
def test_axe_finds_nothing_on_any_page_and_nothing_is_wider_than_the_screen(browser, stage) -> None:
    """In dark and light, on a narrow and a wide screen, in a colour that alone could not be read."""
    context = browser.new_context(base_url=stage.address)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(stage.link())
    assert page.url == f"{stage.address}/portal/?begun=1"
    faults = []
    for path in pages_of(stage.scene):
        page.goto(path)
        faults += judge(page, path)
    assert faults == []
    assert [line for line in said if "404" not in line and "403" not in line] == []  # nothing was refused by the policy
    context.close()


@pytest.mark.slow
def test_axe_finds_nothing_on_pages_that_a_post_leads_to(browser, stage) -> None:
    """Questions, a secret just made, the result of a test, and a form with errors."""
    context = browser.new_context(base_url=stage.address)
    page = context.new_page()
    page.goto(stage.link())
    faults = []
    for name in posted_pages.of_portal(page, stage.scene, stage.address):
        faults += faults_of_posted(page, name)
    assert faults == []
    context.close()


def judge(page: Page, path: str) -> list[str]:
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{path} at {width}: wider than the screen")
        page.emulate_media(color_scheme="light")
        found += [f"{path} at {width}, light: {fault}" for fault in faults_of(page)]
    page.emulate_media(color_scheme="dark")  # where nothing but colours is another
    return found + [f"{path}, dark: {fault}" for fault in faults_of(page, "color-contrast")]


@pytest.mark.slow
def test_a_customers_tasks_without_javascript_on_a_telephone(browser, stage) -> None:
    """Add an endpoint, try it, exchange its secret, find what failed, send it again, leave."""
    scene, engine = stage.scene, stage.engine
    context = browser.new_context(
        base_url=stage.address, java_script_enabled=False, viewport={"width": 360, "height": 800}
    )
    page = context.new_page()
    page.goto(stage.link())
    page.get_by_role("link", name="Add an endpoint").click()
    page.get_by_label("URL").fill("http://127.0.0.1:8999/mine")
    page.get_by_label("Description").fill("Our own")
    page.get_by_label("order.created").check()
    page.get_by_role("button", name="Add").press("Enter")
    page.wait_for_selector("h1:has-text('The endpoint is there')")
    assert page.inner_text("[data-secret]").startswith("whsec_")
    page.get_by_role("link", name="Send a test").click()
    page.get_by_role("button", name="Send the test").click()
    page.wait_for_selector("text=The endpoint did not take it.")
    page.goto(f"/portal/endpoints/{scene.failing}/secret")
    page.get_by_label("The old secret signs along").select_option("hour")
    page.get_by_role("button", name="Exchange the secret").click()
    page.wait_for_selector("h1:has-text('The new secret')")
    page.get_by_role("link", name="Deliveries").click()
    page.get_by_label("Show").select_option("given_up")
    page.get_by_role("button", name="Search").click()
    page.locator("tbody summary").first.click()  # equal failures are one row
    page.locator("tbody details a").first.click()
    page.get_by_role("button", name="Send again").click()
    page.wait_for_selector("text=Sent again now: 1.")
    page.get_by_role("button", name="Dark").click()
    assert page.get_attribute("html", "data-theme") == "dark"
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_selector("h1:has-text('You are signed out')")
    page.goto("/portal/")
    page.wait_for_selector("h1:has-text('Your session has ended')")
    with engine.begin() as connection:
        made = {item.url: item.description for item in subscriptions.list(connection, tenant="globex")}
    assert made["http://127.0.0.1:8999/mine"] == "Our own"
    context.close()


@pytest.mark.slow
def test_a_customers_words_for_an_endpoint_are_text_and_fit_the_screen(browser, stage) -> None:
    """Hostile ones, of one word without an end, on the list, its page and its form; what is not touched stays."""
    words = "<img src=x onerror=alert(1)><b>bold</b>" + "endless" * 30
    noted = "Ask Carol first:\nthey migrate"
    with stage.engine.begin() as connection:
        made = subscriptions.add(connection, "https://example.com/x", ["order.created"], tenant="globex")
        old = subscriptions.add(
            connection, "https://example.com/y", ["order.created"], tenant="globex", description=noted
        )
    context = browser.new_context(base_url=stage.address, viewport={"width": WIDTHS[0], "height": 800})
    page = context.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(stage.link())
    page.goto(f"/portal/endpoints/{made.id}/edit")
    page.get_by_label("Description").fill(words)
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("text=The changes are saved.")
    assert page.locator("h1 bdi").inner_text() == words
    assert page.locator("h1 + p").inner_text() == "https://example.com/x"
    faults = []
    for path in (f"/portal/endpoints/{made.id}", f"/portal/endpoints/{made.id}/edit", "/portal/"):
        page.goto(path)
        faults += judge(page, path)
        assert page.locator("main img, main b, table b").count() == 0
    assert faults == []
    page.get_by_role("link", name="<img src=x").click()
    page.wait_for_url(f"**/portal/endpoints/{made.id}")
    page.goto(f"/portal/endpoints/{old.id}/edit")
    page.get_by_label("URL").fill("https://example.com/z")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("text=The changes are saved.")
    with stage.engine.begin() as connection:
        kept = subscriptions.get(connection, old.id, tenant="globex")
    assert (kept.url, kept.description) == ("https://example.com/z", noted)
    assert dialogs == []
    context.close()


@pytest.mark.slow
def test_it_works_inside_the_pages_that_are_named_and_in_no_other(browser, stage) -> None:
    """In a frame on another site, with a cookie that is kept for that site alone."""
    context = browser.new_context(extra_http_headers={"X-Forwarded-Proto": "https"})
    page = context.new_page()
    (application, framed), (stranger, framed_there) = stage.application, stage.stranger
    framed.append(stage.link())
    page.goto(application)
    inner = page.frame_locator("iframe")
    inner.get_by_role("heading", name="Endpoints").wait_for()
    inner.get_by_role("button", name="Dark").click()
    inner.locator("html[data-theme=dark]").wait_for()
    page.reload()  # the link was opened: the session goes on
    inner.get_by_role("heading", name="Endpoints").wait_for()
    kept = [one for one in context.cookies() if one["name"] == "__Host-relay_portal"]
    assert [(one["secure"], one["httpOnly"], one["sameSite"]) for one in kept] == [(True, True, "None")]
    alone = context.new_page()
    alone.goto(f"{stage.address}/portal/")
    alone.get_by_role("heading", name="Your session has ended").wait_for()  # the frame's cookie is the frame's
    framed_there.append(stage.link())
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.goto(stranger)
    assert page.frame_locator("iframe").get_by_role("heading").count() == 0
    context.close()
