"""Subscriptions by HTTP."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.anyio

HOOK = {"url": "https://example.com/hooks", "types": ["order.*"]}


async def test_a_subscription_is_made_shown_changed_and_removed(ask):
    made = (await ask("POST /subscriptions", json={**HOOK, "description": "first"}, code=201)).json()
    assert made["secret"].startswith("whsec_")
    assert made["tenant"] == "acme"
    path = f"/subscriptions/{made['id']}"
    shown = await ask(f"GET {path}", code=200)
    assert "secret" not in shown.json()
    assert shown.json()["description"] == "first"
    assert shown.json()["breaker"]["state"] == "closed"
    match = {"If-Match": shown.headers["etag"]}
    changed = await ask(f"PATCH {path}", json={"rate_limit": "20/s", "description": None}, headers=match, code=200)
    assert changed.json()["rate_limit"] == "20/s"
    assert changed.json()["description"] == ""
    assert changed.headers["etag"] != shown.headers["etag"]
    removed = await ask(f"DELETE {path}", headers={"If-Match": changed.headers["etag"]}, code=200)
    assert removed.json()["state"] == "removed"
    assert (await ask(f"GET {path}")).status_code == 404


async def test_pages_have_links_that_lead_to_every_item(ask):
    ids = [(await ask("POST /subscriptions", json=HOOK, code=201)).json()["id"] for _ in range(5)]
    found, path = [], "/subscriptions?limit=2&state=active"
    while path:
        page = await ask(f"GET {path}", code=200)
        found += [item["id"] for item in page.json()["items"]]
        link = page.json()["next"]
        assert (f'<{link}>; rel="next"' if link else None) == page.headers.get("link")
        path = link and link.removeprefix("/api/v1")
    assert found == ids
