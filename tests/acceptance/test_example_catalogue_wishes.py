"""examples/catalogue: each of the ten wishes of S2-16, with real processes, and `relay serve` for its pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

import outbox
from examples.running import Example
from tests.support import databases
from tests.support.examples import Caller, running
from tests.support.far_end import FarEnd, answering, waits
from tests.support.visiting import Visitor, words
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.xdist_group("example-catalogue-wishes"), pytest.mark.timeout(120), pytest.mark.slow,
    pytest.mark.requirement("S2-16"),
]  # fmt: skip
WEBHOOKS, PRODUCTS = "/api/v1/webhooks", "/api/v1/products"
EVENTS = ["product.created", "product.updated"]


@pytest.fixture(scope="module")
def catalogue(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    with running("catalogue", server_url, tmp_path_factory.mktemp("catalogue")) as example:
        yield example


@pytest.fixture
def far_end() -> Iterator[FarEnd]:
    with answering() as receiver:
        yield receiver


@pytest.fixture
def engine(catalogue: Example) -> Iterator[Engine]:
    with databases.engine_on(catalogue.database_url) as engine:
        yield engine


@pytest.fixture
def shop(catalogue: Example) -> Iterator[Caller]:
    """Whoever manages the catalogue, where no event of an earlier test waits; what a test makes is removed after it."""
    caller = Caller(catalogue)
    caller.await_resolved()
    yield caller
    for one in caller.ask("GET", f"{WEBHOOKS}?limit=100")["items"]:
        caller.ask("DELETE", f"{WEBHOOKS}/{one['id']}", status=204)
    caller.close()


@pytest.fixture(scope="module")
def serve(catalogue: Example) -> str:
    """The address of `relay serve`."""
    process = catalogue.start("serve", ["relay", "serve", "--listen", "127.0.0.1:0"])
    wait_until(lambda: process.said("serving on ") or not process.alive, message="does not serve", timeout_seconds=60)
    return re.findall(r"serving on (http://\S+)", process.text + process.complaints.read_text("utf-8"))[0]


@pytest.fixture
def pages(serve: str, engine: Engine) -> Iterator[Visitor]:
    """A customer on the pages of `relay serve`, by a link that the application makes."""
    with engine.begin() as connection:
        link = outbox.portal_url(connection, "", f"{serve}/portal", rights="manage")
    with httpx.Client(base_url=serve, timeout=30, verify=False, trust_env=False) as client:
        visitor = Visitor(client)
        visitor.open(link)
        yield visitor


def add(shop: Caller, url: str, **more: Any) -> str:
    return str(shop.ask("POST", WEBHOOKS, {"url": url, "events": EVENTS, "secret": "s", **more}, status=201)["id"])


def update(engine: Engine, hook: str, **fields: Any) -> None:
    with Session(engine) as session, session.begin():
        outbox.subscriptions.update(session, hook, **fields)


def create(shop: Caller, sku: str, **more: Any) -> str:
    return str(shop.ask("POST", PRODUCTS, {"sku": sku, "name": sku, **more}, status=201)["id"])


def await_received(far_end: FarEnd, path: str, count: int) -> list[Any]:
    """Return what a path received as JSON, once that is so many."""
    wait_until(lambda: len(far_end.received[path]) >= count, message=f"fewer than {count} came", timeout_seconds=40)
    return [json.loads(one.body) for one in far_end.received[path]]


def test_a_second_algorithm_signs(shop: Caller, far_end: FarEnd, engine: Engine) -> None:
    hook = add(shop, far_end.url("ed25519"))
    with Session(engine) as session, session.begin():
        outbox.subscriptions.rotate_secret(session, hook, scheme="standard", key_type="ed25519")
        (public,) = outbox.subscriptions.get(session, hook).public_keys
    create(shop, "E-1")
    await_received(far_end, "ed25519", 1)
    (request,) = far_end.received["ed25519"]
    assert request.headers["webhook-signature"].startswith("v1a,")
    assert outbox.verify(public, request.headers, request.body.encode()).json()["data"]["sku"] == "E-1"
    with pytest.raises(outbox.SignatureError):
        outbox.verify(public, request.headers, request.body.replace("E-1", "E-2").encode())


def test_a_webhook_has_a_rate(shop: Caller, far_end: FarEnd, engine: Engine) -> None:
    update(engine, add(shop, far_end.url("slow")), rate_limit="2/s", rate_burst=1)
    add(shop, far_end.url("fast"))
    for number in range(5):
        create(shop, f"R-{number}")
    await_received(far_end, "slow", 5)
    await_received(far_end, "fast", 5)
    assert sum(waits(far_end.received["slow"])) > 1.5, "two seconds, less what the first took to come"


def test_several_events_go_in_one_request(shop: Caller, far_end: FarEnd, engine: Engine) -> None:
    hook = add(shop, far_end.url("batch"))
    update(engine, hook, format="standard", batch_events=10, batch_milliseconds=500)
    with Session(engine) as session, session.begin():
        outbox.subscriptions.pause(session, hook)
    for number in range(6):
        create(shop, f"B-{number}")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        waiting = text("select count(*) from outbox.deliveries")
        wait_until(lambda: connection.execute(waiting).scalar_one() == 6, message="do not wait")
    with Session(engine) as session, session.begin():
        outbox.subscriptions.resume(session, hook)
    (batch,) = await_received(far_end, "batch", 1)
    assert sorted(one["data"]["sku"] for one in batch) == [f"B-{number}" for number in range(6)]


def test_a_webhook_follows_a_pattern_that_is_there_already_or_one_of_its_own(
    shop: Caller, far_end: FarEnd, engine: Engine
) -> None:
    for name, fields in (
        ("slack", {"format": "slack", "format_settings": {"text": "New: {data.sku}"}}),
        ("own", {"format": "raw", "transformation": "{article: data.sku, on: data.active}"}),
    ):
        update(engine, add(shop, far_end.url(name)), **fields)
    create(shop, "T-1")
    (slack,), (own,) = (await_received(far_end, name, 1) for name in ("slack", "own"))
    assert slack["text"] == "New: T-1"
    assert own == {"article": "T-1", "on": True}


def test_what_failed_is_replayed_from_a_page(shop: Caller, far_end: FarEnd, pages: Visitor) -> None:
    far_end.will("given-up", 500)
    hook = add(shop, far_end.url("given-up"), retry_count=0)
    create(shop, "P-1")
    wait_until(lambda: shop.ask("GET", f"{WEBHOOKS}/{hook}")["failure_count"] == 1, message="is not given up")
    (failed,) = shop.ask("GET", f"{WEBHOOKS}/{hook}/logs")
    pages.open(f"/portal/deliveries/{failed['id']}")
    pages.press("Send again")
    first, again = await_received(far_end, "given-up", 2)
    assert first == again
    wait_until(lambda: shop.ask("GET", f"{WEBHOOKS}/{hook}")["success_count"] == 1, message="did not arrive")


@contextmanager
def setting(engine: Engine, **values: int) -> Iterator[None]:
    """Change settings of the database for a while."""
    change = text("update outbox.settings set value = :value where name = :name")
    with engine.begin() as connection:
        before = {row.name: row.value for row in connection.execute(text("select name, value from outbox.settings"))}
        connection.execute(change, [{"name": name, "value": value} for name, value in values.items()])
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(change, [{"name": name, "value": before[name]} for name in values])


def test_a_webhook_that_only_fails_is_deactivated_and_its_health_says_so(
    shop: Caller, far_end: FarEnd, engine: Engine, pages: Visitor
) -> None:
    """After five days by default; here after a second."""
    far_end.will("dead", *[500] * 20)
    with setting(engine, disable_after_seconds=1):
        hook = add(shop, far_end.url("dead"), retry_count=10)
        create(shop, "D-1")
        wait_until(
            lambda: shop.ask("GET", f"{WEBHOOKS}/{hook}")["status"] == "disabled",
            message="is not disabled", timeout_seconds=40,
        )  # fmt: skip
    shown = shop.ask("GET", f"{WEBHOOKS}/{hook}")
    assert (shown["is_active"], bool(shown["disabled_reason"])) == (False, True)
    assert [one["id"] for one in shop.ask("GET", f"{WEBHOOKS}?is_active=false")["items"]] == [hook]
    assert shown["disabled_reason"] in words(pages.open(f"/portal/endpoints/{hook}"))
    with engine.connect() as connection:
        health = text("select state from outbox.v_subscriptions_health where subscription_id = :hook")
        assert connection.execute(health, {"hook": hook}).scalar_one() == "disabled"


def test_only_active_products_are_told_of(shop: Caller, far_end: FarEnd, engine: Engine) -> None:
    update(engine, add(shop, far_end.url("active")), filter={"payload": {"active": True}})
    product = create(shop, "A-1")
    shop.ask("PUT", f"{PRODUCTS}/{product}", {"active": False})
    create(shop, "A-2", active=False)
    create(shop, "A-3")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        unresolved = text("select count(*) from outbox.pending")
        wait_until(lambda: connection.execute(unresolved).scalar_one() == 0, message="are not resolved")
    told = await_received(far_end, "active", 2)
    assert sorted(one["data"]["sku"] for one in told) == ["A-1", "A-3"]


def test_a_page_manages_webhooks(shop: Caller, far_end: FarEnd, pages: Visitor) -> None:
    pages.open("/portal/endpoints/new")
    pages.press("Add", url=far_end.url("by-page"), types="product.created")
    (made,) = shop.ask("GET", WEBHOOKS)["items"]
    assert (made["url"], made["events"]) == (far_end.url("by-page"), ["product.created"])
    create(shop, "M-1")
    await_received(far_end, "by-page", 1)
    pages.open(f"/portal/endpoints/{made['id']}/edit")
    pages.press("Save", url=far_end.url("moved"), types="product.updated")
    changed = shop.ask("GET", f"{WEBHOOKS}/{made['id']}")
    assert (changed["url"], changed["events"]) == (far_end.url("moved"), ["product.updated"])
    pages.open(f"/portal/endpoints/{made['id']}")
    pages.press("Pause")
    assert shop.ask("GET", f"{WEBHOOKS}/{made['id']}")["status"] == "paused"
    pages.press("Remove")
    pages.press("Remove it for good")
    assert shop.ask("GET", WEBHOOKS)["total"] == 0


def test_a_playground_tries_a_webhook_without_an_event(
    shop: Caller, far_end: FarEnd, engine: Engine, pages: Visitor
) -> None:
    hook = add(shop, far_end.url("tried"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        events = text("select count(*) from outbox.events")
        before = connection.execute(events).scalar_one()
        pages.open(f"/portal/endpoints/{hook}/test")
        page = words(pages.press("Send the test", type="product.created", data='{"sku": "TEST-001"}'))
        (body,) = await_received(far_end, "tried", 1)
        assert (body["event"], body["data"]) == ("product.created", {"sku": "TEST-001"})
        assert "The endpoint took it." in page
        assert connection.execute(events).scalar_one() == before


def test_a_breaker_opens_after_failures_in_a_row_and_closes_by_itself(
    shop: Caller, far_end: FarEnd, engine: Engine
) -> None:
    far_end.will("breaking", *[500] * 4)
    probe_now = text("update outbox.health set probe_at = clock_timestamp() where opened_at is not null")
    with setting(engine, breaker_attempts=3, breaker_pause_seconds=60):
        hook = add(shop, far_end.url("breaking"))
        sound = add(shop, far_end.url("sound"))
        for number in range(3):
            create(shop, f"C-{number}")
        await_received(far_end, "breaking", 3)
        state = text("select state from outbox.v_subscriptions_health where subscription_id = :hook")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(
                lambda: connection.execute(state, {"hook": hook}).scalar_one() == "breaker open",
                message="does not open", timeout_seconds=30,
            )  # fmt: skip
            create(shop, "C-3")
            await_received(far_end, "sound", 4)
            sent = len(far_end.received["breaking"])
            assert "C-3" not in str([one.body for one in far_end.received["breaking"]]), "only a probe may be sent"

            def all_arrived() -> bool:
                connection.execute(probe_now)  # as when the pause is over: of two probes, the first fails
                return bool(shop.ask("GET", f"{WEBHOOKS}/{hook}")["success_count"] == 4)

            wait_until(all_arrived, message="does not close", timeout_seconds=60)
            assert connection.execute(state, {"hook": hook}).scalar_one() == "active"
        assert len(far_end.received["breaking"]) > sent
        assert shop.ask("GET", f"{WEBHOOKS}/{sound}")["success_count"] == 4
