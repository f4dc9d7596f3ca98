"""Event types in the API, its client, the dashboard and the portal: what is declared, and whose events were seen."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

import outbox
from outbox import Catalogue, EventType
from outbox.control.known_types import KnownType, KnownTypeDetails
from relay.client import calls
from tests.support import seeding

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {"cents": {"type": "integer", "description": "In cents <b>."}, "note": {"type": ["string", "null"]}},
    "required": ["cents"],
}


@pytest.fixture
def declared(engine: Engine) -> None:
    """A stored catalogue of three types, of which one is retired, and an event of acme's."""
    events = Catalogue("shop")
    EventType("order.created", SCHEMA, description="An order <i>.", example={"cents": 4200}, catalogue=events)
    EventType("order.old", deprecated="use order.created", catalogue=events)
    more = Catalogue("shop")
    EventType("order.gone", catalogue=more)
    with engine.begin() as connection:
        outbox.catalogue.push(connection, more)
        outbox.catalogue.push(connection, events, allow_breaking=True)
        seeding.record(connection, tenant="acme")


async def test_the_api_lists_them_page_by_page_and_shows_one(ask, declared, token) -> None:
    first = (await ask("GET /event-types?limit=2", code=200)).json()
    assert [(one["type"], one["version"], one["deprecated"]) for one in first["items"]] == [
        ("order.created", 1, None), ("order.gone", 1, None),
    ]  # fmt: skip
    assert first["items"][0]["last_at"]
    assert first["items"][1]["retired_at"]
    rest = (await ask(f"GET {first['next'].removeprefix('/api/v1')}", code=200)).json()
    assert [(one["type"], one["deprecated"]) for one in rest["items"]] == [("order.old", "use order.created")]
    shown = (await ask("GET /event-types/order.created", code=200)).json()
    assert shown["json_schema"] == SCHEMA
    assert shown["example"] == '{"cents":4200}'
    assert shown["seen"]["event_id"].startswith("evt_")
    assert [one["place"] for one in shown["parts"]] == ["cents", "note"]
    theirs = (await ask("GET /event-types/order.created", token(tenant="globex"), code=200)).json()
    assert (theirs["seen"], theirs["last_at"], theirs["example"]) == (None, None, '{"cents":4200}')
    for name in ("none", "%00", "a%20b", "a" * 300):
        assert (await ask(f"GET /event-types/{name}")).status_code == 404, name
    assert (await ask("GET /event-types?after=x")).status_code == 422


async def test_the_client_reads_them(ask, declared) -> None:
    answer = (await ask("GET /event-types", code=200)).json()
    listed = calls.get_event_types().read(answer, {})
    assert all(type(one) is KnownType for one in listed)
    found: Any = (await ask("GET /event-types/order.created", code=200)).json()
    shown = calls.get_event_type("order.created").read(found, {})
    assert type(shown) is KnownTypeDetails
    assert (shown.json_schema, shown.parts[0].required) == (SCHEMA, True)
    assert shown.seen is not None
    assert shown.seen.event_id.prefix == "evt"
    assert calls.get_event_type("a/b").path == "/event-types/a%2Fb"


async def signed_in(client: httpx.AsyncClient, engine: Engine) -> None:
    """Enter the portal as a customer of acme's."""
    with engine.begin() as connection:
        link = outbox.portal_url(
            connection, "acme", "https://relay/portal", rights="manage", expires=timedelta(hours=1)
        )
    opened = await client.get(link.replace("https:", "http:"), follow_redirects=True)
    assert opened.status_code == 200


async def test_the_portal_lists_them_a_page_at_a_time(client, engine, declared) -> None:
    """What a customer is not shown takes no place on a page."""
    former, more = Catalogue("more"), Catalogue("more")
    for number in range(60):
        EventType(f"order.gone{number:02}", catalogue=former)
        EventType(f"order.many{number:02}", catalogue=more)
    with engine.begin() as connection:
        outbox.catalogue.push(connection, former)
        outbox.catalogue.push(connection, more, allow_breaking=True)
    await signed_in(client, engine)
    found, path, pages = [], "/portal/types", []
    while path:
        page = (await client.get(path)).text
        shown = re.findall(r'href="[^"]*/portal/types/([^"]+)"', page)
        pages.append(len(shown))
        found += shown
        next_ = re.search(r'rel="next" href="([^"]+)"', page)
        path = html.unescape(next_[1]) if next_ else ""
    assert pages == [50, 12]
    assert found == ["order.created", *(f"order.many{number:02}" for number in range(60)), "order.old"]
    assert "many" not in (await client.get("/portal/types?after=x")).text


async def test_the_portal_shows_what_is_declared_and_nothing_that_is_gone(client, engine, declared) -> None:
    await signed_in(client, engine)
    page = (await client.get("/portal/types")).text
    assert "An order &lt;i&gt;." in page
    assert "order.old" in page
    assert "Deprecated" in page
    assert "order.gone" not in page
    shown = (await client.get("/portal/types/order.created")).text
    assert "In cents &lt;b&gt;." in shown
    assert "4200" in shown
    assert "JSON Schema" in shown
    assert "shop" not in shown
    assert "use order.created" in (await client.get("/portal/types/order.old")).text
    assert (await client.get("/portal/types/order.gone")).status_code == 404
    form = (await client.get("/portal/endpoints/new")).text
    assert 'value="order.old"' in form
    assert "order.gone" not in form
