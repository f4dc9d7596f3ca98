"""The pages of an event and of a delivery say what each one waits for; the portal what a customer may know."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, Engine

import outbox
from relay.web.portal.deliveries import TOLD_WAITS
from relay.web.portal.texts import read_texts
from tests.support import seeding
from tests.support.kept import KEPT, SOON, World

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection)


@pytest.fixture
async def visitor(client: httpx.AsyncClient, token) -> httpx.AsyncClient:
    """Somebody of acme who is signed in."""
    page = (await client.get("/sign-in")).text
    csrf = re.search(r'name="csrf" value="(\w+)"', page)
    assert csrf
    answer = await client.post("/sign-in", data={"csrf": csrf[1], "token": token()})
    assert answer.status_code == 303
    return client


@pytest.fixture
async def customer(app: FastAPI, engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A customer of acme in the portal."""
    with engine.begin() as connection:
        link = outbox.portal_url(connection, "acme", "http://127.0.0.1/portal")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as opened:
        assert (await opened.get(link)).status_code == 303
        yield opened


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", page)))


@pytest.mark.parametrize("case", KEPT)
async def test_everything_that_keeps_a_delivery_is_on_its_page_and_on_its_events(world, visitor, case: str) -> None:
    statements, _, has_end = KEPT[case]
    for statement in statements:
        world.run(statement)
    for path in (f"/deliveries/{world.delivery}", f"/deliveries/{world.delivery}/request", f"/events/{world.event}"):
        answer = await visitor.get(path)
        assert answer.status_code == 200
        told = words_of(answer.text).lower()
        for wait in world.waits("acme").values():
            assert wait.detail.lower() in told, path
        assert (f"until {SOON:%Y-%m-%d %H:%M:%S}z" in told) == has_end, path


async def test_the_request_of_a_delivery_says_that_its_signature_is_an_example(world, visitor) -> None:
    """A reader compared it with what their receiver had got."""
    page = unescape((await visitor.get(f"/deliveries/{world.delivery}/request")).text)
    headers = re.findall(r"^.*webhook-(?:id|timestamp|signature): .*$", page, re.MULTILINE)
    told = [("webhook-signature" in line, "(an example: the receiver gets another one)" in line) for line in headers]
    assert sorted(told) == [(False, False), (False, False), (True, True)]


@pytest.mark.parametrize("case", KEPT)
async def test_the_portal_says_of_it_what_is_the_customers_affair(world, customer, case: str) -> None:
    statements, reasons, _ = KEPT[case]
    for statement in statements:
        world.run(statement)
    answer = await customer.get(f"/portal/deliveries/{world.delivery}")
    assert answer.status_code == 200
    told = words_of(answer.text)
    texts = read_texts("en").group("waits")
    expected = {reason for reason in reasons if reason in TOLD_WAITS and reason != "turn"} or {"turn"}
    assert {reason for reason, words in texts.items() if words in told} == expected
    for inner in ("relay", "all sending", "tenant", "in order"):
        assert inner not in told, inner


async def test_an_event_that_nobody_resolved_says_why_on_its_page(world, visitor) -> None:
    name = seeding.record(world.connection, tenant="acme")
    assert "not yet: a relay resolves it in its turn" in words_of((await visitor.get(f"/events/{name}")).text)
    world.run("delete from outbox.relays")
    assert "not yet: no relay runs" in words_of((await visitor.get(f"/events/{name}")).text)


async def test_an_event_with_an_idempotency_key_says_so_on_its_page(visitor, engine) -> None:
    with engine.begin() as own:
        made = outbox.record(own, "order.created", {"n": 1}, tenant="acme", idempotency_key="once")
    assert "another event with it is not recorded" in words_of((await visitor.get(f"/events/{made.id}")).text)
