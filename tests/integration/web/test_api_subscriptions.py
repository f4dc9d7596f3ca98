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


DRAFT = {"data": {"n": 1}, "type": "order.placed"}
BODIES = {
    "PATCH ": {"description": "new"},
    "POST /disable": {"reason": "x"},
    "POST /preview": DRAFT,
    "POST /filter-test": DRAFT,
}


async def test_every_path_of_a_subscription_takes_its_name(ask, token, app):
    made = (await ask("POST /subscriptions", json={**HOOK, "name": "billing"}, code=201)).json()
    await ask("POST /subscriptions", token(tenant="globex"), json={**HOOK, "name": "billing"}, code=201)
    asked = [
        (method.upper(), path.removeprefix("/api/v1/subscriptions/{subscription_id}"))
        for path, operations in app.openapi()["paths"].items()
        if "/subscriptions/{subscription_id}" in path
        for method in operations
    ]
    assert len(asked) >= 12
    for method, below in sorted(asked, key=lambda one: one[0] == "DELETE"):  # the removal comes last
        body = BODIES.get(f"{method} {below}")
        path = f"{method} /subscriptions/billing{below}"
        answer = await ask(path, json=body, headers={"If-Match": "*"}, code=200)
        assert made["id"] in answer.text or below in ("/health", "/filter-test"), path
    assert (await ask("GET /subscriptions/billing/health")).status_code == 404  # a removed one has no name
    await ask(f"GET /subscriptions/{made['id']}/health", code=200)


async def test_a_name_is_found_among_ones_own_and_where_it_is_no_other_tenants(ask, token):
    globex, operator = token(tenant="globex"), token(tenant=None)
    await ask("POST /subscriptions", json={**HOOK, "name": "billing"}, code=201)
    for by, code in ((None, 200), (globex, 404), (operator, 200)):
        await ask("POST /subscriptions/billing/check", by, code=code)
        await ask("GET /subscriptions/billing/health", by, code=code)
    await ask("POST /subscriptions", globex, json={**HOOK, "name": "billing"}, code=201)
    refused = await ask("GET /subscriptions/billing/health", operator, code=404)
    assert refused.json()["mend"] == "give its id"


MANY = """set local session_replication_role = replica;
insert into outbox.subscriptions (url, types, tenant)
select 'https://example.com/' || n, '{none}', 'acme' from generate_series(1, 1001) n;
insert into outbox.tenant_limits (tenant, rate_limit) select n::text, '5/s' from generate_series(1, 1001) n"""


async def test_the_longest_page_has_a_link_to_the_rest_too(ask, token, engine):
    """The verbs give a thousand at once, so the API cannot look whether there is one more."""
    with engine.begin() as connection:
        connection.exec_driver_sql(MANY)
    operator = token(tenant=None)
    for path, name in (("/subscriptions", "id"), ("/tenant-limits", "tenant")):
        first = (await ask(f"GET {path}?limit=1000", operator, code=200)).json()
        rest = (await ask(f"GET {first['next'].removeprefix('/api/v1')}", operator, code=200)).json()
        assert len({item[name] for item in first["items"] + rest["items"]}) == 1001
        assert rest["next"] is None


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
