"""The dashboard in a real browser: no fault of accessibility, by keyboard alone, without JavaScript, and live."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text

from outbox import subscriptions
from outbox.control.filters import Filters
from relay.operations.bulk.operations import add_bulk, list_bulk, start_bulk
from relay.operations.bulk.request import BulkRequest
from tests.support import databases, posted_pages, seeding
from tests.support.browser import chromium, faults_of, faults_of_posted, sign_in
from tests.support.dashboard import Scene, seed, served
from tests.support.loopback import allow_loopback

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.xdist_group("dashboard")
WIDTHS = (360, 1280)


@pytest.fixture(scope="module")
def stage(server_url: str, migrated_template: str) -> Iterator[tuple[str, Scene, Engine]]:
    """The address of a dashboard, its scene and its database."""
    allow_loopback()
    with databases.database(server_url, template=migrated_template) as url, databases.engine_on(url) as engine:
        with engine.begin() as connection:
            scene = seed(connection)
        with served(url) as address:
            yield address, scene, engine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser, stage: tuple[str, Scene, Engine]) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=stage[0], viewport={"width": 1280, "height": 800})
    yield context
    context.close()


def pages_of(scene: Scene) -> list[str]:
    return [
        "/", "/findings", "/subscriptions", "/subscriptions/new", f"/subscriptions/{scene.failing}",
        f"/subscriptions/{scene.subscription}/edit",
        f"/subscriptions/{scene.subscription}/secret", f"/subscriptions/{scene.subscription}/test", "/events",
        "/types", "/types/order.created",
        f"/events/{scene.dead_event}", "/deliveries", f"/deliveries/{scene.dead_delivery}",
        f"/deliveries/{scene.delivered_delivery}/request", "/dead-letters", "/attempts", "/bulk", "/bulk/new",
        f"/bulk/{scene.bulk}", "/audit", "/tokens", "/preferences",
        "/events/evt_0",
    ]  # fmt: skip


@pytest.mark.slow
def test_axe_finds_nothing_on_any_page_and_nothing_is_wider_than_the_screen(context, stage) -> None:
    """In dark and light, on a narrow and a wide screen."""
    _, scene, _ = stage
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.goto("/sign-in")
    faults = judge(page, "/sign-in")
    sign_in(page, scene.operator)
    for path in pages_of(scene):
        page.goto(path)
        faults += judge(page, path)
    assert faults == []
    assert [line for line in said if "404" not in line] == []  # nothing was refused by the policy


@pytest.mark.slow
def test_axe_finds_nothing_on_pages_that_a_post_leads_to(context, stage) -> None:
    """Questions, secrets and tokens just made, results, and forms with errors."""
    address, scene, _ = stage
    page = context.new_page()
    page.goto("/sign-in")
    page.get_by_label("Token").fill("rtk_none")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("text=The token is unknown")
    faults = faults_of_posted(page, "sign-in-wrong")
    sign_in(page, scene.operator)
    for name in posted_pages.of_dashboard(page, scene, address):
        faults += faults_of_posted(page, name)
    assert faults == []


@pytest.mark.slow
def test_the_explorer_sends_a_request_and_shows_its_answer(context, stage) -> None:
    """With the token that was typed, and without it. A link opens its operation."""
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.goto("/api/v1/docs#get_own_token")
    form = page.locator("#get_own_token form")
    form.get_by_role("button", name="Send").click()
    form.get_by_text("401 Unauthorized").wait_for()
    page.get_by_label("Token, kept on this page only").fill(stage[1].reader)
    form.get_by_role("button", name="Send").click()
    form.get_by_text("200 OK").wait_for()
    answer = form.locator(".answer").inner_text()
    assert '"name": "reader of the shop"' in answer
    assert "content-type: application/json" in answer
    assert faults_of(page, opens=False) == []
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert [line for line in said if "401" not in line] == []  # nothing was refused by the policy


def judge(page: Page, path: str) -> list[str]:
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{path} at {width}: wider than the screen")
        for scheme, rules in (("light", ()), ("dark", ("color-contrast",))):  # nothing but colours is another
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            found += [f"{path} at {width}, {scheme}: {fault}" for fault in faults_of(page, *rules)]
    return found


def test_a_subscription_is_added_and_tested_by_keyboard_alone(context, stage) -> None:
    """From the first page on: skip link, keys of the pages, fields and buttons by Tab and Enter."""
    page = context.new_page()
    page.goto("/sign-in")
    page.keyboard.press("Tab")  # the skip link
    tab_to(page, "Token")
    page.keyboard.type(stage[1].operator)
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Overview')")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_selector("h1:has-text('Subscriptions')")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert focused(page).startswith("https://billing.acme.example")
    tab_to(page, "Add a subscription", back=True)
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Add a subscription')")
    tab_to(page, "URL")
    page.keyboard.type("http://127.0.0.1:8999/by-keyboard")
    page.keyboard.press("Tab")
    page.keyboard.type("order.*")
    tab_to(page, "Add")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('The subscription is there')")
    assert page.inner_text("[data-secret]").startswith("whsec_")
    tab_to(page, "Send a test")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Test and preview')")
    tab_to(page, "Send a test")
    page.keyboard.press("Enter")
    page.wait_for_selector("#t-result")
    assert "127.0.0.1 refuses connections" in page.inner_text("main")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")


def focused(page: Page) -> str:
    """The name of what has the focus: its label, or its text."""
    return str(page.evaluate(
        "() => { const e = document.activeElement; return (e.labels?.[0]?.innerText ?? e.innerText ?? '').trim(); }"
    ))  # fmt: skip


def tab_to(page: Page, name: str, *, back: bool = False) -> None:
    """Press Tab until it is there; where the focus is must be seen."""
    for _ in range(80):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if focused(page) == name:
            outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", name
            return
    pytest.fail(f"Tab never comes to {name}")


@pytest.mark.slow
def test_keys_do_nothing_in_a_field_and_once_they_are_switched_off(context, stage) -> None:
    page = context.new_page()
    sign_in(page, stage[1].operator)
    page.goto("/events")
    page.get_by_label("Type").press_sequentially("gs?")
    assert page.get_by_label("Type").input_value() == "gs?"
    page.goto("/preferences")
    page.get_by_label("Keyboard shortcuts").uncheck()
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("text=Saved in this browser")
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.keyboard.press("?")
    assert page.url.endswith("/preferences?done=preferences")
    assert page.locator("dialog[open]").count() == 0


def test_everything_works_without_javascript(browser, stage) -> None:
    """The same walk that an operator takes at three in the morning: what is stuck, pause, retry, put back."""
    address, scene, engine = stage
    context = browser.new_context(base_url=address, java_script_enabled=False, viewport={"width": 360, "height": 800})
    page = context.new_page()
    sign_in(page, scene.operator)
    page.click("text=Menu")
    page.click("nav >> text=Subscriptions")
    page.click(f"a[href='/subscriptions/{scene.subscription}']")
    page.get_by_role("button", name="Pause", exact=True).click()
    page.wait_for_selector("text=Paused: deliveries gather and wait.")
    with engine.begin() as connection:
        assert subscriptions.get(connection, scene.subscription, tenant="acme").state == "paused"
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector("text=Resumed")
    page.goto(f"/deliveries/{scene.waiting_delivery}")
    page.click("text=Retry now")
    page.wait_for_selector("text=1 due now")
    page.goto("/dead-letters")
    others = f"input[name=id]:not([value='{scene.dead_delivery}'])"  # that one's page is walked by another test
    page.locator(others).first.check()
    page.click("text=Put back what is ticked")
    page.wait_for_selector("text=1 put back")
    page.locator(others).first.check()
    page.click("text=Delete what is ticked")
    page.click("text=Delete 1 dead letter >> nth=-1")
    page.wait_for_selector("text=1 deleted for good")
    page.click("text=Menu")
    page.get_by_role("button", name="Dark").click()
    assert page.get_attribute("html", "data-theme") == "dark"
    page.click("text=Menu")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_selector("text=You are signed out.")
    context.close()


@pytest.mark.slow
def test_a_description_of_several_lines_stays_where_another_field_is_changed(context, stage) -> None:
    """A field of one line loses the line ends in the browser, and what comes back looks like a change."""
    _, scene, engine = stage
    noted = "Paused while\nthey migrate"
    with engine.begin() as connection:
        made = subscriptions.add(connection, "https://example.com/noted", ["order.*"], tenant="acme", description=noted)
    page = context.new_page()
    sign_in(page, scene.operator)
    page.goto(f"/subscriptions/{made.id}/edit")
    page.get_by_label("Timeout in seconds", exact=True).fill("7")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(f"**/subscriptions/{made.id}?done=changed")
    with engine.begin() as connection:
        kept = subscriptions.get(connection, made.id, tenant="acme")
    assert (kept.timeout_seconds, kept.description) == (7, noted)


@pytest.mark.slow
def test_a_page_renews_itself_when_something_changes_but_not_under_a_persons_hands(context, stage) -> None:
    _, scene, engine = stage
    page = context.new_page()
    sign_in(page, scene.operator)
    page.goto("/events?type=live.*")
    page.wait_for_selector("[data-live-sign][data-state=on]")
    with engine.begin() as connection:
        first = seeding.record(connection, type="live.first", tenant="acme")
    page.wait_for_selector(f"text={first}", timeout=20_000)
    page.locator(f"a[href='/events/{first}']").focus()
    with engine.begin() as connection:
        second = seeding.record(connection, type="live.second", tenant="acme")
    page.wait_for_timeout(5_000)
    assert page.locator(f"text={second}").count() == 0
    assert page.evaluate("() => document.activeElement.textContent") == "live.first"


@pytest.mark.slow
def test_what_changed_while_the_stream_was_away_is_shown_when_it_is_back(context, stage) -> None:
    """It ends every ten minutes, and whenever the server is restarted; the browser opens it anew some seconds later."""
    _, scene, engine = stage
    page = context.new_page()
    sign_in(page, scene.operator)
    page.route("**/live", lambda route: route.abort())
    page.goto("/events?type=away.*")
    page.wait_for_selector("[data-live-sign][data-state=off]")
    with engine.begin() as connection:
        missed = seeding.record(connection, type="away.missed", tenant="acme")
    page.unroute("**/live")
    page.wait_for_selector(f"text={missed}", timeout=20_000)


@pytest.mark.slow
def test_the_progress_of_every_running_bulk_operation_is_live(context, stage) -> None:
    """Also of an older one, beside one that was planned after it and stands still."""
    _, scene, engine = stage
    with engine.begin() as connection:
        request = BulkRequest(kind="redrive", tenant="globex")
        older, newer = (start_bulk(connection, None, add_bulk(connection, None, request).id) for _ in range(2))
    page = context.new_page()
    sign_in(page, scene.operator)
    with page.expect_response(lambda answer: "x-refresh" in answer.request.headers):  # when the stream is open
        page.goto(f"/bulk/{older.id}")
    page.evaluate("() => { window.isTheSame = true; }")
    with engine.begin() as connection:
        connection.execute(text("update outbox.bulk_operations set done = 3 where id = :id"), {"id": older.id})
    page.wait_for_selector(f"text=3 of {older.planned}", timeout=20_000)
    assert page.evaluate("() => window.isTheSame") is True
    with engine.begin() as connection:
        running = list_bulk(connection, None, Filters(limit=2), state="running")
    assert [item.id for item in running] == [newer.id, older.id]


@pytest.mark.slow
def test_a_chart_says_its_figures_to_a_mouse_and_to_a_screen_reader(context, stage) -> None:
    _, scene, _ = stage
    page = context.new_page()
    sign_in(page, scene.operator)
    page.goto(f"/subscriptions/{scene.failing}")
    chart = page.locator("svg.chart:visible").first
    told = chart.evaluate(
        "e => e.getAttribute('aria-labelledby').split(' ').map(id => document.getElementById(id).innerHTML).join(': ')"
    )
    assert re.fullmatch(r"Attempts: [\d,]+ attempts delivered and [\d,]+ failed from .* UTC on\.", told)
    tips = chart.locator("rect.tip title").all_text_contents()
    assert len(tips) in (48, 49)  # the first step is a whole one
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\dZ: [\d,]+ delivered, [\d,]+ failed", tip) for tip in tips)
    page.click("text=The same as a table")
    rows = page.locator("details table tbody tr").count()
    assert rows == len([tip for tip in tips if not tip.endswith("0 delivered, 0 failed")])


BROKEN = """selector => [...document.querySelectorAll(selector)].filter(one => {
    const range = document.createRange();
    range.selectNodeContents(one);
    return !one.textContent.trim().includes(" ") && new Set([...range.getClientRects()].map(r => r.top)).size > 1;
}).map(one => one.textContent)"""


def test_a_narrow_screen_shows_findings_first_and_breaks_no_word(context, stage) -> None:
    _, scene, engine = stage
    with engine.begin() as connection:
        seeding.record(connection, type="retail.subscription.disabled", tenant="acme")
    page = context.new_page()
    page.set_viewport_size({"width": 360, "height": 800})
    sign_in(page, scene.operator)
    top = "selector => document.querySelector(selector).getBoundingClientRect().top"
    assert page.evaluate(top, "#t-findings") < page.evaluate(top, ".figures")
    page.goto("/events")
    page.wait_for_selector("text=retail.subscription.disabled")
    assert page.evaluate(BROKEN, "td a bdi") == []
    page.goto(f"/subscriptions/{scene.subscription}")
    page.wait_for_selector("text=Authentication")
    assert page.evaluate(BROKEN, ".facts dt") == []
