"""The portal by plain HTTP: links and their ends, whose things are seen, what each right may do, what is not told."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

import outbox
from outbox import EVERY_TENANT, subscriptions
from outbox.control.audit import list_audit
from outbox.control.filters import Filters
from outbox.ids import DeliveryId
from relay.telemetry.redaction import redact
from relay.web.portal import router
from tests.support import databases, seeding
from tests.support.dashboard import Scene, seed, served
from tests.support.loopback import allow_loopback

pytestmark = pytest.mark.xdist_group("dashboard")
SETTINGS: dict[str, Any] = {"portal_max_endpoints": 4, "portal_types": ("order.*", "invoice.*"), "portal_name": "Hooks"}
NOTE = "Never to be seen by Globex"
FOREIGN = ("acme", "umbrella", "initech", "relay-a.shop", "alice@shop.example", "bob@shop.example", NOTE)


@dataclass(frozen=True)
class Stage:
    address: str
    scene: Scene
    engine: Engine

    def link(self, tenant: str = "globex", **more: Any) -> str:
        with self.engine.begin() as connection:
            return outbox.portal_url(connection, tenant, f"{self.address}/portal", **more)

    def count(self, what: str = "select count(*) from outbox.audit") -> int:
        with self.engine.begin() as connection:
            return int(connection.execute(text(what)).scalar_one())


@pytest.fixture(scope="module")
def stage(server_url: str, migrated_template: str) -> Iterator[Stage]:
    """A portal over the dashboard's scene, the same for all tests here."""
    allow_loopback()
    with databases.database(server_url, template=migrated_template) as url, databases.engine_on(url) as engine:
        with engine.begin() as connection:
            scene = seed(connection)
            subscriptions.update(
                connection, scene.failing, tenant="globex", description=NOTE, metadata={"note": NOTE},
                headers=[("X-Provider-Key", "provider-s3cret")],
            )  # fmt: skip
        with served(url, **SETTINGS) as address:
            yield Stage(address, scene, engine)


Enter = Callable[..., httpx.Client]


@pytest.fixture
def enter(stage: Stage) -> Iterator[Enter]:
    """Opens a link as a browser does, and returns the client with its cookie."""
    opened: list[httpx.Client] = []

    def open_(tenant: str = "globex", link: str | None = None, **more: Any) -> httpx.Client:
        client = httpx.Client(base_url=stage.address, timeout=30, verify=False)
        opened.append(client)
        client.get(link or stage.link(tenant, **{"rights": "manage", **more}))
        return client

    yield open_
    for client in opened:
        client.close()


def csrf_of(client: httpx.Client) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', client.get("/portal/deliveries/none").text)
    return found[1] if found else ""


def post(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    return client.post(path, data={"csrf": csrf_of(client), **fields})


# ---- links


def test_a_link_is_exchanged_once_and_leaves_the_address(stage: Stage) -> None:
    link = stage.link()
    with (
        httpx.Client(base_url=stage.address, verify=False) as client,
        httpx.Client(base_url=stage.address, verify=False) as other,
    ):
        first = client.get(link)
        assert first.status_code == 303
        assert first.headers["location"] == "/portal/?begun=1"
        assert first.headers["referrer-policy"] == "no-referrer"
        assert first.headers["cache-control"] == "no-store"
        cookie = first.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=28800"} <= set(cookie.split("; "))
        assert link.partition("=")[2] not in cookie
        assert client.get("/portal/").status_code == 200
        assert client.get(link).headers["location"] == "/portal/"  # read again, as a frame is
        again = other.get(link)
        assert again.status_code == 403
        assert "set-cookie" not in again.headers
        assert "opened before" in again.text


def test_a_look_ahead_of_a_click_opens_nothing(stage: Stage, enter: Enter) -> None:
    link = stage.link()
    with httpx.Client(verify=False) as client:
        assert client.head(link).status_code == 403
        assert client.get(link, headers={"Sec-Purpose": "prefetch;prerender"}).status_code == 403
    assert enter(link=link).get("/portal/").status_code == 200


@pytest.mark.parametrize("forged", ["", "x", "ptl_" + "A" * 43, "pts_" + "A" * 43, "rtk_" + "A" * 43, "ptl_é", "%00",
                                    "ptl_" + "A" * 5000])  # fmt: skip
def test_a_link_that_nobody_made_opens_nothing(stage: Stage, forged: str) -> None:
    with httpx.Client(base_url=stage.address, verify=False) as client:
        for asked in (f"/portal/open?link={forged}", f"/portal/open?link={forged}&tenant=globex", "/portal/open"):
            answer = client.get(asked)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
        client.cookies.set("relay_portal", "pts_" + "A" * 43)
        assert client.get("/portal/").status_code == 401


def test_no_other_credential_opens_the_portal_and_its_own_opens_nothing_else(stage: Stage, enter: Enter) -> None:
    link = stage.link()
    client = enter(link=link)
    session = client.cookies["relay_portal"]
    with httpx.Client(base_url=stage.address, verify=False) as other:
        for credential in (link.partition("=")[2], stage.scene.operator, "pts_" + "A" * 43):
            other.cookies.set("relay_portal", credential)
            assert other.get("/portal/").status_code == 401
        other.cookies.clear()
        other.cookies.set("relay_session", session)
        assert other.get("/events").status_code == 303
        for credential in (session, link.partition("=")[2]):
            headers = {"Authorization": f"Bearer {credential}"}
            assert other.get("/api/v1/subscriptions", headers=headers).status_code == 401
    assert client.get("/").status_code == 303  # the dashboard asks for a sign-in


def test_a_link_ends_in_time_and_so_does_its_session(stage: Stage, enter: Enter) -> None:
    link, client = stage.link(), enter()
    with stage.engine.begin() as connection:
        connection.execute(text("update outbox.portal_links set expires_at = clock_timestamp() - interval '1 s'"))
    with httpx.Client(verify=False) as other:
        assert other.get(link).status_code == 403
    assert client.get("/portal/").status_code == 200  # the link's end is not the session's
    with stage.engine.begin() as connection:
        left = connection.execute(text(
            "select extract(epoch from max(session_expires_at) - clock_timestamp()) from outbox.portal_links"
        )).scalar_one()  # fmt: skip
        assert 7.9 * 3600 < left <= 8 * 3600
        connection.execute(text("update outbox.portal_links set session_expires_at = clock_timestamp()"
                                " where opened_at is not null"))  # fmt: skip
    assert client.get("/portal/").status_code == 401


def test_what_is_revoked_ends_at_once_and_stays_ended(stage: Stage, enter: Enter) -> None:
    link = stage.link()
    client, other = enter(link=link), enter("acme")
    unopened = stage.link()
    with stage.engine.begin() as connection:
        assert outbox.revoke_portal_urls(connection, "globex") >= 2
        assert outbox.revoke_portal_urls(connection, "globex") == 0
    assert client.get("/portal/").status_code == 401
    assert other.get("/portal/").status_code == 200
    with httpx.Client(verify=False) as thief:
        for one in (link, unopened):
            assert thief.get(one).status_code == 403


def test_signing_out_ends_the_session_everywhere(stage: Stage, enter: Enter) -> None:
    client = enter()
    kept = client.cookies["relay_portal"]
    assert post(client, "/portal/sign-out").status_code == 200
    with httpx.Client(base_url=stage.address, verify=False) as thief:
        thief.cookies.set("relay_portal", kept)
        assert thief.get("/portal/").status_code == 401


def test_links_and_sessions_are_in_no_log_and_the_database_has_hashes_only(
    stage: Stage, enter: Enter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    link = stage.link(person="carol@globex.example")
    client = enter(link=link)
    client.get("/portal/")
    secrets = (link.partition("=")[2], client.cookies["relay_portal"])
    logged = "\n".join(one.getMessage() for one in caplog.records if one.name.startswith("relay"))
    assert "/portal/open" in logged
    with stage.engine.begin() as connection:
        rows = str(connection.execute(text("select l::text from outbox.portal_links l")).all())
        noted = str(connection.execute(text("select a::text from outbox.audit a")).all())
    for secret in secrets:
        assert secret not in logged + rows + noted
        assert secret not in redact(f"failed with {secret}!")


def test_the_audit_notes_who_made_a_link_opened_it_and_what_they_did(stage: Stage, enter: Enter) -> None:
    with stage.engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="audited")
        outbox.act_as(connection, "shop backend")
        link = outbox.portal_url(
            connection, "audited", f"{stage.address}/portal", rights="manage", person="carol@globex.example"
        )
    client = enter(link=link)
    assert post(client, f"/portal/endpoints/{name}/pause").status_code == 303
    assert post(client, f"/portal/endpoints/{name}/resume").status_code == 303
    with stage.engine.begin() as connection:
        noted = [(one.action, one.actor) for one in list_audit(connection, "audited", Filters(limit=4))]
    carol = "portal:carol@globex.example"
    assert noted == [("resumed", carol), ("paused", carol), ("portal link opened", "portal"),
                     ("portal link added", "shop backend")]  # fmt: skip


def test_links_that_ended_a_day_ago_are_forgotten(stage: Stage) -> None:
    stage.link("old")
    with stage.engine.begin() as connection:
        connection.execute(text(
            "update outbox.portal_links set expires_at = clock_timestamp() - interval '25 h' where tenant = 'old'"
        ))  # fmt: skip
    before = stage.count("select count(*) from outbox.audit where action = 'portal link removed'")
    stage.link()
    assert stage.count("select count(*) from outbox.portal_links where tenant = 'old'") == 0
    assert stage.count("select count(*) from outbox.audit where action = 'portal link removed'") == before


# ---- every route × tenant × right


@dataclass(frozen=True)
class Row:
    """What a route answers to Globex, whose things it names, and to Acme. `right`: what it wants; None is nothing."""

    right: str | None
    own: int
    other: int


LOOK, THING = Row("read", 200, 200), Row("read", 200, 404)
FORM, ACT = Row("manage", 200, 404), Row("manage", 303, 404)
ROUTES = {
    "GET /portal": Row(None, 303, 303),
    "GET /portal/open": Row(None, 403, 403),
    "GET /portal/style.css": Row(None, 200, 200),
    "GET /portal/logo": Row(None, 404, 404),
    "GET /portal/": LOOK,
    "GET /portal/deliveries": LOOK,
    "GET /portal/types": LOOK,
    "POST /portal/theme": Row("read", 303, 303),
    "GET /portal/endpoints/{endpoint_id}": THING,
    "GET /portal/deliveries/{delivery_id}": THING,
    "GET /portal/types/{name}": Row("read", 200, 404),
    "GET /portal/endpoints/new": Row("manage", 200, 200),
    "POST /portal/endpoints/new": Row("manage", 422, 422),
    "GET /portal/endpoints/{endpoint_id}/edit": FORM,
    "POST /portal/endpoints/{endpoint_id}/edit": Row("manage", 409, 404),
    "GET /portal/endpoints/{endpoint_id}/test": FORM,
    "POST /portal/endpoints/{endpoint_id}/test": FORM,
    "GET /portal/endpoints/{endpoint_id}/secret": FORM,
    "POST /portal/endpoints/{endpoint_id}/secret": FORM,
    "POST /portal/endpoints/{endpoint_id}/pause": ACT,
    "POST /portal/endpoints/{endpoint_id}/resume": ACT,
    "POST /portal/endpoints/{endpoint_id}/replay": FORM,
    "POST /portal/endpoints/{endpoint_id}/remove": FORM,
    "POST /portal/deliveries/{delivery_id}/replay": ACT,
    "POST /portal/sign-out": Row("read", 200, 200),
}


def routes_of(found: Any, prefix: str = "") -> set[str]:
    routes: set[str] = set()
    for route in found.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            more = getattr(getattr(route, "include_context", None), "prefix", "")
            routes |= routes_of(inner, prefix + more)
        else:
            routes |= {f"{method} {prefix}{route.path}" for method in route.methods or () if method != "HEAD"}
    return routes


def test_every_route_is_in_the_matrix() -> None:
    assert routes_of(router) == set(ROUTES)


def filled(route: str, scene: Scene, letters: list[str]) -> tuple[str, str]:
    method, path = route.split(" ")
    delivery = letters.pop() if method == "POST" and "{delivery_id}" in path else scene.dead_delivery
    return method, path.format(endpoint_id=scene.failing, delivery_id=delivery, name="order.shipped")


def ask(client: httpx.Client, method: str, path: str, **query: str) -> httpx.Response:
    if method == "GET":
        return client.get(path, params=query)
    return client.post(path, params=query, data={"csrf": csrf_of(client), "since": "", **query})


_LETTERS = text("""
select l.delivery_id from outbox.dead_letters l join outbox.subscriptions s on s.id = l.subscription_id
where s.tenant = 'globex' and s.removed_at is null
""")


def letters_of(stage: Stage) -> list[str]:
    """The dead letters of Globex but for the one that the scene names."""
    with stage.engine.begin() as connection:
        found = [str(DeliveryId.of(one)) for one in connection.execute(_LETTERS).scalars()]
    return [one for one in found if one != stage.scene.dead_delivery]


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_shows_and_does_its_own_tenants_things_alone(stage: Stage, enter: Enter, route: str) -> None:
    row, letters = ROUTES[route], letters_of(stage)
    foreign, reader, own = enter("acme"), enter("globex", rights="read"), enter("globex")
    method, path = filled(route, stage.scene, letters)
    with httpx.Client(base_url=stage.address, verify=False) as nobody:
        assert ask(nobody, method, path).status_code == (row.own if row.right is None else 401)
    before = stage.count()
    answer = ask(foreign, method, path, tenant="globex")
    assert answer.status_code == row.other, answer.text
    assert "globex" not in answer.text.replace("tenant=globex", "")
    if row.right == "manage":
        refused = ask(reader, method, path)
        assert refused.status_code == 403
        assert "change nothing" in refused.text
    if row.own != 200 or row.other == 404:
        assert stage.count() == before
    answer = ask(own, method, path, tenant="acme")
    assert answer.status_code == row.own, answer.text
    for name in FOREIGN:
        assert name not in answer.text.replace("tenant=acme", ""), name


def test_of_lists_and_filters_nothing_is_another_tenants(stage: Stage, enter: Enter) -> None:
    client, scene = enter("acme"), stage.scene
    for show in ("latest", "failed", "waiting", "given_up"):
        for endpoint in ("", scene.failing, scene.disabled, "sub_x", "x' or 1=1"):
            query = {"show": show, "endpoint": endpoint, "tenant": "globex"}
            answer = client.get("/portal/deliveries", params=query)
            assert answer.status_code == 200
            assert "globex" not in answer.text
            assert endpoint == "" or scene.dead_delivery not in answer.text
    other = enter("globex").get("/portal/deliveries", params={"show": "latest"})
    after = re.search(r"after=([\w-]+)", other.text)
    assert after
    assert "globex" not in client.get("/portal/deliveries", params={"after": after[1]}).text
    assert client.get("/portal/deliveries", params={"after": "x"}).status_code == 200


def test_an_endpoint_to_every_tenants_events_is_the_operators_alone(stage: Stage, enter: Enter) -> None:
    with stage.engine.begin() as connection:
        made = subscriptions.add_for_every_tenant(connection, "http://127.0.0.1:8999/operator", ["*"])
        event = seeding.record(connection, type="order.paid", tenant="globex")
        (delivery,) = seeding.resolve(connection, event, made.id)
        seeding.attempt(connection, delivery, "dead")
    client = enter("globex")
    for path in ("/portal/", "/portal/deliveries?show=given_up", "/portal/deliveries?show=failed"):
        assert "8999/operator" not in client.get(path).text
    for path in (f"/portal/endpoints/{made.id}", f"/portal/deliveries/{delivery}"):
        assert client.get(path).status_code == 404
    assert post(client, f"/portal/deliveries/{delivery}/replay").status_code == 404
    with stage.engine.begin() as connection:
        subscriptions.remove(connection, made.id, tenant=EVERY_TENANT)


def test_a_form_without_its_token_or_from_another_site_does_nothing(stage: Stage, enter: Enter) -> None:
    client, other = enter("globex"), enter("globex")
    before = stage.count()
    for route in ROUTES:
        method, path = filled(route, stage.scene, [stage.scene.dead_delivery])
        if method == "GET":
            continue
        for answer in (
            client.post(path, data={"confirmed": "1"}),
            client.post(path, data={"confirmed": "1", "csrf": csrf_of(other)}),
            client.post(path, data={"csrf": csrf_of(client)}, headers={"Sec-Fetch-Site": "cross-site"}),
            client.post(path, data={"csrf": csrf_of(client)}, headers={"Origin": "https://evil.example"}),
        ):
            assert answer.status_code == 403, path
    assert client.post("/portal/theme", content=b"x" * 2_000_000).status_code == 413
    assert stage.count() == before
    assert client.get("/portal/").status_code == 200


# ---- what customers do


def test_an_endpoint_is_added_changed_and_removed_within_what_is_allowed(stage: Stage, enter: Enter) -> None:
    client = enter("globex")
    form = client.get("/portal/endpoints/new").text
    name = re.search(r'name="id" value="(sub_\w+)"', form)
    assert name
    fields = {"id": name[1], "url": "http://127.0.0.1:8999/mine", "type": ["order.created", "order.paid"],
              "types": "invoice.*"}  # fmt: skip
    made = post(client, "/portal/endpoints/new", **fields)
    assert re.findall(r"whsec_[A-Za-z0-9+/=]{20,}", made.text)
    assert post(client, "/portal/endpoints/new", **fields).status_code == 422  # sent twice, it makes one
    for path in ("", "/edit", "/test", "/secret"):
        assert "whsec_" not in client.get(f"/portal/endpoints/{name[1]}{path}").text
    version = re.search(r'name="version" value="([^"]+)"', client.get(f"/portal/endpoints/{name[1]}/edit").text)
    assert version
    change = {"version": version[1], "url": "http://127.0.0.1:8999/other", "type": "order.paid"}
    edit = f"/portal/endpoints/{name[1]}/edit"
    assert post(client, edit, **change).headers["location"].endswith("?done=changed")
    assert post(client, edit, **change).status_code == 409  # somebody changed it since
    with stage.engine.begin() as connection:
        item = subscriptions.get(connection, name[1], tenant="globex")
    assert (item.url, item.types, item.tenant) == ("http://127.0.0.1:8999/other", ("order.paid",), "globex")
    assert "close this page before you have kept it, exchange the secret again" in made.text
    assert "The old one" not in made.text
    for said in (made.text, client.get(f"/portal/endpoints/{name[1]}").text):
        assert "<code>webhook-id</code>, <code>webhook-timestamp</code>, <code>webhook-signature</code>" in said
        assert "HMAC-SHA256 of id.timestamp.body" in said
        assert '<span class="mono">https://www.standardwebhooks.com</span>' in said
        assert "Ed25519" not in said
    until = r"The old one is accepted until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(UTC\)"
    assert not re.search(until, client.get(f"/portal/endpoints/{name[1]}").text)
    assert re.search(until, post(client, f"/portal/endpoints/{name[1]}/secret", overlap="hour").text)
    assert re.search(until, client.get(f"/portal/endpoints/{name[1]}").text)
    rotated = post(client, f"/portal/endpoints/{name[1]}/secret", overlap="none")
    assert re.findall(r"whsec_[A-Za-z0-9+/=]{20,}", rotated.text)
    assert "The old one has ended" in rotated.text
    assert post(client, f"/portal/endpoints/{name[1]}/remove").status_code == 200
    assert post(client, f"/portal/endpoints/{name[1]}/remove", confirmed="1").status_code == 303
    assert client.get(f"/portal/endpoints/{name[1]}").status_code == 404


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "https://169.254.169.254/"}, "not a public address"),
        ({"url": "https://user:pw@example.com/"}, "holds a user name"),
        ({"url": "ftp://example.com"}, "https"),
        ({"url": "https://example.com:25/"}, "another protocol"),
        ({"type": "user.created"}, "is not offered"),
        ({"type": "*"}, "is not offered"),
        ({"type": "relay.*"}, "is not offered"),
        ({"type": ""}, "Choose at least one"),
        ({"types": "order.<script>"}, "types"),
    ],
)
def test_what_is_not_allowed_is_refused_by_its_field_and_nothing_is_written(
    stage: Stage, enter: Enter, fields: dict[str, str], said: str
) -> None:
    client, before = enter("globex"), stage.count()
    answer = post(client, "/portal/endpoints/new", **{"url": "https://example.com/h", "type": "order.paid", **fields})
    assert answer.status_code == 422
    assert said in answer.text
    assert "aria-invalid" in answer.text
    assert "<script>" not in answer.text
    assert "allow_networks" not in answer.text  # whose settings are the operator's
    assert stage.count() == before


def test_no_more_endpoints_than_there_may_be(stage: Stage, enter: Enter) -> None:
    client = enter("full", link=stage.link("full", rights="manage"))
    for number in range(SETTINGS["portal_max_endpoints"]):
        url = f"https://example.com/{number}"
        assert "whsec_" in post(client, "/portal/endpoints/new", url=url, type="order.paid").text
    assert client.get("/portal/endpoints/new").status_code == 409
    refused = post(client, "/portal/endpoints/new", url="https://example.com/more", type="order.paid")
    assert refused.status_code == 409
    assert "as many as there may be" in refused.text


def test_what_the_provider_stored_goes_to_no_other_host(stage: Stage, enter: Enter) -> None:
    """Headers of the provider's own would be shown to whoever answers there."""
    client, name = enter("globex"), stage.scene.failing
    form = client.get(f"/portal/endpoints/{name}/edit").text
    version = re.search(r'name="version" value="([^"]+)"', form)
    assert version
    for url, code in (("https://evil.example/in.php", 422), ("https://legacy.globex.example/new.php", 303)):
        answer = post(client, f"/portal/endpoints/{name}/edit", version=version[1], url=url, type="order.created")
        assert answer.status_code == code, answer.text
    with stage.engine.begin() as connection:
        item = subscriptions.get(connection, name, tenant="globex")
    assert item.url == "https://legacy.globex.example/new.php"
    assert (item.description, item.metadata, item.headers) == (NOTE, {"note": NOTE}, ("X-Provider-Key",))


def test_one_delivery_and_what_failed_are_sent_again(stage: Stage, enter: Enter) -> None:
    with stage.engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="replay", url="https://example.com/replay")
        given_up = []
        for _ in range(3):
            (delivery,) = seeding.resolve(connection, seeding.record(connection, tenant="replay"), name)
            seeding.attempt(connection, delivery, "dead")
            given_up.append(delivery)
    client = enter("replay")
    answer = post(client, f"/portal/deliveries/{given_up[0]}/replay")
    assert answer.status_code == 303
    assert re.search(r"/portal/deliveries/dlv_\w+\?done=replayed&n=1$", answer.headers["location"])
    assert "Sent again now: 1." in client.get(answer.headers["location"]).text
    new = answer.headers["location"].partition("?")[0]
    first = client.get(f"/portal/deliveries/{given_up[0]}").text
    assert f'<a href="{new}">Open the new delivery</a>' in first
    assert "Open the new delivery" not in client.get(new).text
    assert "Open the new delivery" not in client.get(f"/portal/deliveries/{given_up[1]}").text
    listed = client.get("/portal/deliveries?show=failed").text
    assert [listed.count(said) for said in ("given up", "sent again or deleted")] == [3, 1]  # one is the filter's
    asked = post(client, f"/portal/endpoints/{name}/replay", since="7d")
    assert "Given up for https://example.com/replay: 2." in asked.text
    assert "Send 2 again" in asked.text
    assert post(client, f"/portal/endpoints/{name}/replay", since="7d", confirmed="1").status_code == 303
    assert post(client, f"/portal/endpoints/{name}/replay", since="7d").status_code == 409
    assert post(client, f"/portal/deliveries/{given_up[1]}/replay").status_code in (303, 404, 409)


def test_an_endpoint_is_called_by_the_name_that_it_was_given(stage: Stage, enter: Enter) -> None:
    name = stage.scene.failing
    with stage.engine.begin() as connection:
        url = subscriptions.update(connection, name, tenant="globex", name="crm-sync").url
    try:
        client = enter()
        shown = {
            path: client.get(path).text for path in ("/portal/", f"/portal/endpoints/{name}", "/portal/deliveries")
        }
        assert (
            f'<strong><bdi>crm-sync</bdi></strong></a><span class="cell-sub"><bdi>{url}</bdi></span>'
            in shown["/portal/"]
        )
        assert "<h1><bdi>crm-sync</bdi>" in shown[f"/portal/endpoints/{name}"]
        assert f"crm-sync ({url})" in shown["/portal/deliveries"]
    finally:
        with stage.engine.begin() as connection:
            subscriptions.update(connection, name, tenant="globex", name=None)


def test_a_test_tells_its_outcome_and_nothing_of_the_providers_network(stage: Stage, enter: Enter) -> None:
    with stage.engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="tester", url="http://127.0.0.1:8997/closed")
    client = enter("tester")
    answer = post(client, f"/portal/endpoints/{name}/test")
    assert answer.status_code == 200
    assert "The endpoint did not take it." in answer.text
    assert "refused" in answer.text
    for told in ("RELAY_", "allow_", "relay ", "X-Provider", "webhook-signature"):
        assert told not in answer.text
    assert post(client, f"/portal/endpoints/{name}/test", data="{").status_code == 422


def test_an_error_of_the_database_is_told_to_nobody(
    stage: Stage, enter: Enter, caplog: pytest.LogCaptureFixture
) -> None:
    client = enter("globex")
    with stage.engine.begin() as connection:
        connection.execute(text("alter table outbox.health rename to health_elsewhere"))
    try:
        answer = client.get("/portal/")
    finally:
        with stage.engine.begin() as connection:
            connection.execute(text("alter table outbox.health_elsewhere rename to health"))
    assert answer.status_code == 503
    for told in ("health", "migrate", "outbox.", "relation", "select", "psycopg", "outbox_operator"):
        assert told not in answer.text
    assert "req_" in answer.text
    assert "health" in caplog.text


# ---- how it looks


def test_every_page_has_the_headers_nothing_inline_and_no_script(stage: Stage, enter: Enter) -> None:
    client = enter("globex")
    for route in ROUTES:
        method, path = filled(route, stage.scene, []) if route.startswith("GET") else ("", "")
        if method != "GET" or path.endswith(("/open", "/portal")):
            continue
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", answer.text), path


def test_where_other_pages_may_show_it_the_cookie_is_partitioned(
    stage: Stage, server_url: str, migrated_template: str
) -> None:
    with (
        databases.database(server_url, template=migrated_template) as url,
        databases.engine_on(url) as engine,
        served(url, portal_frame_ancestors=("https://app.example.com",), portal_language="de") as address,
    ):
        with engine.begin() as connection:
            link = outbox.portal_url(connection, "acme", f"{address}/portal")
        with httpx.Client(base_url=address, headers={"X-Forwarded-Proto": "https"}, verify=False) as client:
            entered = client.get(link)
            cookie = entered.headers["set-cookie"].split("; ")
            assert cookie[0].startswith("__Host-relay_portal=pts_")
            assert {"Secure", "HttpOnly", "SameSite=none", "Partitioned", "Path=/"} <= set(cookie)
            without = client.get("/portal/?begun=1", headers={"cookie": ""})
            assert without.status_code == 401
            assert "keine Cookies" in without.text or "kein Cookie" in without.text
            page = client.get("/portal/", headers={"cookie": cookie[0]})
            assert '<html lang="de"' in page.text
            assert "frame-ancestors 'self' https://app.example.com" in page.headers["content-security-policy"]
            assert "x-frame-options" not in page.headers
            assert client.get("/sign-in").headers["x-frame-options"] == "DENY"


def test_who_asks_too_often_is_told_when_to_come_back(database_url: str) -> None:
    with (
        databases.engine_on(database_url) as engine,
        served(database_url, requests_per_minute=2) as address,
        httpx.Client(base_url=address, verify=False) as client,
    ):
        with engine.begin() as connection:
            link = outbox.portal_url(connection, "acme", f"{address}/portal")
        client.get(link)
        answers = [client.get("/portal/") for _ in range(4)]
    assert [answer.status_code for answer in answers[:2]] == [200, 200]
    assert answers[-1].status_code == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 30


def test_an_attempt_that_does_not_count_says_so_to_the_customer(stage: Stage, enter: Enter) -> None:
    """The next one has the same number."""
    with stage.engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="massive", url="https://example.com/still")
        (delivery,) = seeding.resolve(connection, seeding.record(connection, tenant="massive"), name)
        seeding.attempt(connection, delivery, "retry", outcome="stood_still", status=None, error="ours")
    page = enter("massive").get(f"/portal/deliveries/{delivery}").text
    assert '<span class="badge warn">our sender stood still</span>' in page
    assert "tried again · this attempt does not count" in page


def test_rows_that_failed_say_which_event_and_why_in_words_and_many_equal_ones_are_one(
    stage: Stage, enter: Enter
) -> None:
    with stage.engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="hooli", url="https://example.com/hooli")
        for number in range(6):
            event = seeding.record(connection, key=f"invoice-{number}", tenant="hooli", type="invoice.paid")
            (delivery,) = seeding.resolve(connection, event, name)
            seeding.attempt(connection, delivery, "dead" if number == 5 else "retry", error=f"said {number // 4}")
    client = enter("hooli")
    page = client.get("/portal/deliveries?show=failed").text
    assert page.count('<tr role="row">') == 1 + 3  # the heading, four alike, and one each of two others
    assert "4 with the same failure" in page
    assert all(f"invoice-{number}" in page for number in range(6))
    assert "the endpoint failed · tried again" in page
    assert "said 1" in page
    given_up = client.get("/portal/deliveries?show=given_up").text
    assert "invoice-5" in given_up
    assert "the endpoint failed" in given_up
    assert "said 1" in given_up


def test_an_outcome_that_a_newer_relay_wrote_is_an_error_of_ours(stage: Stage, enter: Enter) -> None:
    """While versions are exchanged: this one serves the portal, and another one sends already."""
    with stage.engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="newer", url="https://example.com/newer")
        (delivery,) = seeding.resolve(connection, seeding.record(connection, tenant="newer"), name)
        seeding.attempt(connection, delivery, "retry", outcome="of_a_version_to_come", status=None, error="…")
    client = enter("newer")
    for path in (f"deliveries/{delivery}", f"endpoints/{name}", "deliveries?show=failed"):
        page = client.get(f"/portal/{path}")
        assert page.status_code == 200, path
        assert "an error of ours" in page.text, path


def test_a_customer_is_told_what_mends_a_failure_of_theirs_and_nothing_of_one_that_is_ours(
    stage: Stage, enter: Enter
) -> None:
    with stage.engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="advised", url="https://example.com/advised")

        def fail(outcome: str, status: int | None, error: str | None, verdict: str = "dead") -> str:
            (delivery,) = seeding.resolve(connection, seeding.record(connection, tenant="advised"), name)
            seeding.attempt(connection, delivery, verdict, outcome=outcome, status=status, error=error)
            return str(delivery)

        theirs = [
            (fail("http_4xx", 401, "said 401"), "compare it, or exchange it"),
            (fail("tls", None, "certificate has expired"), "has expired. Renew it."),
            (fail("dns", None, "no such name"), "publish the name"),
        ]
        ours = [
            fail("key_unavailable", None, "no key"),
            fail("blocked_address", None, "10.0.0.1 is private"),
            fail("delivered", 204, None, "delivered"),
        ]
        fail("http_5xx", 502, "said 502", "retry")
    client = enter("advised")
    for delivery, advice in theirs:
        page = client.get(f"/portal/deliveries/{delivery}").text
        assert page.count('class="advice"') == 1
        assert advice in page
    for delivery in ours:
        assert 'class="advice"' not in client.get(f"/portal/deliveries/{delivery}").text
    assert "gets no proper answer from it" in client.get(f"/portal/endpoints/{name}").text
    with stage.engine.begin() as connection:
        (delivery,) = seeding.resolve(connection, seeding.record(connection, tenant="advised"), name)
        seeding.attempt(connection, delivery, "delivered")
    assert 'class="advice"' not in client.get(f"/portal/endpoints/{name}").text
