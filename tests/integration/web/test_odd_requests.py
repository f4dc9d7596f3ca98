"""Requests of tests/cases/bad_inputs.md that want what the API must not give."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.support import seeding

pytestmark = pytest.mark.anyio

HOOK = {"url": "https://example.com/hooks", "types": ["order.*"]}


@pytest.mark.case("D7")
@pytest.mark.parametrize(
    "field", ["tenant_id", "attempts", "version", "state", "secret_id", "public_key", "created_at"]
)
async def test_nobody_sets_what_is_the_servers(ask, field):
    refused = await ask("POST /subscriptions", json={**HOOK, field: "x"})
    assert (refused.status_code, refused.json()["field"]) == (422, field)


@pytest.mark.case("D7")
async def test_null_clears_and_what_is_left_out_stays(ask):
    made = (await ask("POST /subscriptions", json={**HOOK, "description": "d", "rate_limit": "5/s"}, code=201)).json()
    path, headers = f"PATCH /subscriptions/{made['id']}", {"If-Match": "*"}
    changed = (await ask(path, json={"rate_limit": None}, headers=headers, code=200)).json()
    assert (changed["rate_limit"], changed["description"]) == (None, "d")


@pytest.mark.case("D9")
@pytest.mark.parametrize("query", ["order=id;select", "sort=payload", "data->>'a'=1", "columns=secret"])
@pytest.mark.parametrize("path", ["events", "attempts", "deliveries", "dead-letters", "subscriptions"])
async def test_no_parameter_names_a_column(ask, path, query):
    assert (await ask(f"GET /{path}?{query}")).status_code == 422


@pytest.mark.case("D10")
async def test_a_text_that_is_searched_for_has_no_wildcards(ask, engine):
    written = ['"a%b"', '"a_b"', '"axb"', r'"a\\b"']
    with engine.begin() as connection:
        for payload in written:
            seeding.record(connection, payload, type="order.made", tenant="acme")
        stored = set(connection.execute(text("select payload from outbox.events")).scalars())
    assert stored == set(written)
    for wanted, found in (("a%25b", 1), ("a_b", 1), ("a%5C%5Cb", 1), ("a.b", 0), ("a", 4), ("%25", 1)):
        page = (await ask(f"GET /events?text={wanted}", code=200)).json()
        assert len(page["items"]) == found, wanted


@pytest.mark.case("D13")
async def test_no_address_is_made_of_the_host_that_a_request_names(ask):
    evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    made = await ask("POST /subscriptions", json=HOOK, headers=evil, code=201)
    await ask("POST /subscriptions", json=HOOK, code=201)
    listed = await ask("GET /subscriptions?limit=1", headers=evil, code=200)
    assert made.headers["location"].startswith("/")
    assert listed.json()["next"].startswith("/")
    assert "evil" not in f"{made.headers}{made.text}{listed.headers}{listed.text}"
