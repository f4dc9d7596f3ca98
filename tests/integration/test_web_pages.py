"""The dashboard by plain HTTP: who sees what, what is refused, and that what comes from outside is always text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, Text, text

from outbox import subscriptions
from outbox.control.filters import Filters
from outbox.ids import parse_id
from outbox.subscriptions.declaration import Field
from outbox.subscriptions.value_checks import text as text_check
from relay.operations import tokens
from relay.operations.bulk.operations import list_bulk
from relay.web.pages import field_texts, router, subscription_forms
from relay.web.pages.rendering import HEADERS
from tests.support import databases, seeding
from tests.support.dashboard import ALL_RIGHTS, Scene, posts_of, seed, served
from tests.support.loopback import allow_loopback

pytestmark = pytest.mark.xdist_group("dashboard")
SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]{20,}|rtk_[A-Za-z0-9_-]{43}")


@pytest.fixture(scope="module")
def stage(server_url: str, migrated_template: str) -> Iterator[tuple[str, Scene, Engine]]:
    """The address of a dashboard, its scene and its database, the same for all tests here."""
    allow_loopback()
    with databases.database(server_url, template=migrated_template) as url, databases.engine_on(url) as engine:
        with engine.begin() as connection:
            scene = seed(connection)
        with served(url) as address:
            yield address, scene, engine


class Page(HTMLParser):
    """A page as a browser reads it: its elements in order, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def posts_to(self) -> set[str]:
        return {str(e["action"]) for tag, e in self.elements if tag == "form" and e.get("method") == "post"}


_opened: list[httpx.Client] = []


@pytest.fixture(autouse=True)
def closed_clients() -> Iterator[None]:
    """Close what a test opened."""
    yield
    while _opened:
        _opened.pop().close()


def visit(address: str) -> httpx.Client:
    _opened.append(httpx.Client(base_url=address, timeout=30, verify=False))
    return _opened[-1]


def csrf_of(page: str) -> str:
    match = re.search(r'name="csrf" value="(\w+)"', page)
    assert match, page[:500]
    return match[1]


def sign_in(address: str, token: str) -> httpx.Client:
    client = visit(address)
    answer = client.post("/sign-in", data={"csrf": csrf_of(client.get("/sign-in").text), "token": token})
    assert answer.status_code == 303, answer.text
    return client


def post(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    return client.post(path, data={"csrf": csrf_of(client.get("/preferences").text), **fields})


def paths_of(scene: Scene) -> list[str]:
    return [
        "/", "/?window=1h", "/findings", "/subscriptions", "/subscriptions/new", f"/subscriptions/{scene.failing}",
        f"/subscriptions/{scene.subscription}/edit", f"/subscriptions/{scene.subscription}/secret",
        f"/subscriptions/{scene.subscription}/test", "/events", f"/events/{scene.dead_event}", "/deliveries",
        "/deliveries?state=delivered", f"/deliveries/{scene.dead_delivery}", f"/deliveries/{scene.waiting_delivery}",
        f"/deliveries/{scene.delivered_delivery}/request", "/dead-letters", "/attempts",
        "/attempts?outcome=failed&status=5xx&text=Gateway", "/bulk", "/bulk/new", f"/bulk/{scene.bulk}", "/audit",
        "/types", "/types/order.created", "/types/order.created?window=7d", "/tokens", "/preferences",
    ]  # fmt: skip


def test_every_page_answers_the_operator_with_the_headers_that_keep_it_safe(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    answers = {path: client.get(path) for path in paths_of(scene)}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(answers, 200)
    for path, answer in [
        *answers.items(),
        ("404", client.get("/events/evt_0")),
        ("out", visit(address).get("/sign-in")),
    ]:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, path


def test_no_page_has_anything_inline_or_from_elsewhere(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    for path in paths_of(scene):
        for tag, attributes in Page(client.get(path).text).elements:
            assert not {name for name in attributes if name.startswith("on") or name == "style"}, (path, tag)
            assert tag != "style", path
            assert tag != "script" or attributes.get("src"), path
            for name in ("src", "action"):
                assert str(attributes.get(name, "/")).startswith("/"), (path, tag)


def test_without_a_session_nothing_is_shown_and_nothing_is_done(stage) -> None:
    address, scene, _ = stage
    client = visit(address)
    for path in paths_of(scene):
        answer = client.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/sign-in"), path
    assert client.get("/live", headers={"accept": "text/event-stream"}).status_code == 401
    csrf = csrf_of(client.get("/sign-in").text)
    assert client.post(f"/subscriptions/{scene.subscription}/pause", data={"csrf": csrf}).status_code == 401


@pytest.mark.parametrize("token", ["", "rtk_" + "A" * 43, "rtk_é", "x" * 5000, "rtk_\0"])
def test_a_token_that_is_none_signs_nobody_in(stage, token: str) -> None:
    client = visit(stage[0])
    answer = client.post("/sign-in", data={"csrf": csrf_of(client.get("/sign-in").text), "token": token})
    assert answer.status_code == 403
    assert "relay_session" not in answer.headers.get("set-cookie", "")


def test_a_session_ends_by_signing_out_and_with_its_token(stage) -> None:
    address, _, engine = stage
    with engine.begin() as connection:
        made = tokens.create(connection, None, name="short", rights=["read"], whose=None)
    first, second = sign_in(address, made.text), sign_in(address, made.text)
    kept = first.cookies["relay_session"]
    assert post(first, "/sign-out").status_code == 303
    thief = visit(address)
    thief.cookies.set("relay_session", kept)
    assert thief.get("/events").status_code == 303
    assert second.get("/events").status_code == 200
    with engine.begin() as connection:
        tokens.revoke(connection, None, made.token.id)
    assert second.get("/events").status_code == 303


@pytest.mark.parametrize(("hours", "ends_after"), [(None, 12), (1, 1), (100, 12)])
def test_a_session_ends_after_twelve_hours_or_with_its_token(stage, hours: int | None, ends_after: int) -> None:
    address, _, engine = stage
    with engine.begin() as connection:
        expires = None if hours is None else timedelta(hours=hours)
        made = tokens.create(connection, None, name="long", rights=["read"], whose=None, expires=expires)
    client = sign_in(address, made.text)
    with engine.begin() as connection:
        session = tokens.authenticate(connection, client.cookies["relay_session"])
        assert session is not None
        assert session.expires_at is not None
        left = connection.execute(text("select :end - clock_timestamp()"), {"end": session.expires_at}).scalar_one()
        assert timedelta(hours=ends_after - 0.1) < left <= timedelta(hours=ends_after)
        connection.execute(text("update outbox.tokens set expires_at = clock_timestamp() where id = :id"),
                           {"id": session.id})  # fmt: skip
    assert client.get("/events").status_code == 303


def test_a_session_is_a_cookie_that_scripts_and_other_sites_do_not_get_and_is_no_token_to_sign_in(stage) -> None:
    address, scene, _ = stage
    client = visit(address)
    page = client.get("/sign-in").text
    cookie = client.post("/sign-in", data={"csrf": csrf_of(page), "token": scene.reader}).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie.split("; ")
    assert scene.reader not in cookie
    other = visit(address)
    answer = other.post("/sign-in", data={"csrf": csrf_of(other.get("/sign-in").text),
                                          "token": client.cookies["relay_session"]})  # fmt: skip
    assert answer.status_code == 403


def test_behind_https_the_cookie_is_for_https_and_this_host_only(stage) -> None:
    address, scene, _ = stage
    client = visit(address)
    client.headers["X-Forwarded-Proto"] = "https"
    page = client.get("/sign-in")
    form_cookie = page.headers["set-cookie"]
    assert form_cookie.startswith("__Host-relay_form=")
    name_and_value = form_cookie.partition(";")[0]
    answer = client.post(
        "/sign-in", data={"csrf": csrf_of(page.text), "token": scene.reader}, headers={"cookie": name_and_value}
    )
    assert answer.headers["set-cookie"].startswith("__Host-relay_session=")
    assert "Secure" in answer.headers["set-cookie"].split("; ")


def test_a_link_signs_in_once(stage) -> None:
    address, _, engine = stage
    with engine.begin() as connection:
        made = tokens.create(connection, None, name="link", rights=["read"], whose=None)
    client = visit(address)
    page = client.get("/sign-in", params={"once": made.text})
    assert "relay_session" not in page.headers.get("set-cookie", "")  # looking at it does nothing
    fields = {"csrf": csrf_of(page.text), "token": made.text, "once": "1"}
    assert client.post("/sign-in", data=fields).status_code == 303
    assert client.get("/events").status_code == 200
    again = visit(address)
    fields["csrf"] = csrf_of(again.get("/sign-in").text)
    assert again.post("/sign-in", data=fields).status_code == 403


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1"])
def test_signing_in_leads_to_no_other_site(stage, target: str) -> None:
    address, scene, _ = stage
    client = visit(address)
    fields = {"csrf": csrf_of(client.get("/sign-in").text), "token": scene.reader, "to": target}
    assert client.post("/sign-in", data=fields).headers["location"] == "/"


def test_a_form_without_its_token_or_from_another_site_does_nothing(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    path = f"/subscriptions/{scene.subscription}/pause"
    csrf = csrf_of(client.get("/preferences").text)
    other = csrf_of(sign_in(address, scene.operator).get("/preferences").text)
    answers = [
        client.post(path),
        client.post(path, data={"csrf": other}),
        client.post(path, data={"csrf": csrf}, headers={"Sec-Fetch-Site": "cross-site"}),
        client.post(path, data={"csrf": csrf}, headers={"Sec-Fetch-Site": "same-site"}),
        client.post(path, content=b"csrf=%ff&x=%c3", headers={"content-type": "application/x-www-form-urlencoded"}),
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 403, 400]
    assert client.post(path, data={"csrf": csrf, "more": "x" * 3_000_000}).status_code == 413
    with engine.begin() as connection:
        assert subscriptions.get(connection, scene.subscription, tenant="acme").state == "active"


# ---- rights and tenants

NEEDS = {
    "/subscriptions/new": "write", "/subscriptions/{subscription}/edit": "write",
    "/subscriptions/{subscription}/pause": "write", "/subscriptions/{subscription}/resume": "write",
    "/subscriptions/{subscription}/disable": "write",
    "/subscriptions/{subscription}/remove": "write", "/subscriptions/{subscription}/secret": "write",
    "/subscriptions/{subscription}/test": "write", "/subscriptions/{subscription}/check": "write",
    "/events/{event}/replay": "operate", "/deliveries/{waiting_delivery}/retry": "operate",
    "/deliveries/{waiting_delivery}/cancel": "operate", "/deliveries/{dead_delivery}/replay": "operate",
    "/dead-letters": "operate", "/findings/sending": "operate", "/bulk/new": "operate",
    "/bulk/{bulk}/{verb}": "operate", "/bulk/{bulk}/rate": "operate", "/bulk/{bulk}/cancel": "operate",
    "/tokens": "admin", "/tokens/{token}/revoke": "admin",
}  # fmt: skip
OPEN = {"/sign-in", "/sign-out", "/preferences", "/subscriptions/{subscription_id}/preview"}


def fill(path: str, scene: Scene) -> str:
    return path.format(**scene.__dict__, token="tok_01m8k6j7ree3jvvj1xzjtnag40", verb="start")


def test_every_post_of_the_pages_is_among_those_whose_right_is_tested(stage) -> None:
    shape = {re.sub(r"\{\w+\}", "{}", path) for path in [*NEEDS, *OPEN]}
    assert {re.sub(r"\{\w+\}", "{}", path) for path in posts_of(router)} == shape


@pytest.mark.parametrize("path", NEEDS)
def test_a_post_is_refused_without_its_right_and_shows_no_button(stage, path: str) -> None:
    address, scene, engine = stage
    others = [right for right in ALL_RIGHTS if right != NEEDS[path]]
    with engine.begin() as connection:
        token = tokens.create(connection, None, name=f"all but {NEEDS[path]}", rights=others, whose=None).text
        before = connection.execute(text("select count(*) from outbox.audit")).scalar_one()
    client = sign_in(address, token)
    answer = post(client, fill(path, scene), confirmed="1", all="1", type="order.*", act="purge", to="paused")
    assert answer.status_code == 403
    assert NEEDS[path] in answer.text
    with engine.begin() as connection:
        after = connection.execute(text("select count(*) from outbox.audit")).scalar_one()
    assert after - before == 1  # the session itself
    for shown in paths_of(scene):
        page = client.get(shown)
        if page.status_code == 200:
            assert fill(path, scene) not in Page(page.text).posts_to() - {"/preferences"}, shown


def test_a_tenant_sees_its_own_and_nothing_of_others(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.tenant)
    for path in paths_of(scene):
        answer = client.get(path)
        foreign = any(name in path for name in (scene.failing, scene.dead_event, scene.dead_delivery,
                                                scene.waiting_delivery, scene.delivered_delivery,
                                                scene.bulk))  # fmt: skip
        assert answer.status_code == (404 if foreign or path == "/findings" else 200), path
        for name in ("globex", "umbrella", "initech", "relay-a.shop"):
            assert name not in answer.text, path
    for tenant in ("globex", ""):
        listed = client.get("/subscriptions", params={"tenant": tenant}).text
        assert "hooks.acme.example" in listed or tenant
        assert "globex.example" not in listed
    with engine.begin() as connection:
        before = connection.execute(text("select count(*) from outbox.audit")).scalar_one()
    for path in (f"/subscriptions/{scene.failing}/pause", f"/subscriptions/{scene.failing}/remove",
                 f"/subscriptions/{scene.failing}/disable",
                 f"/subscriptions/{scene.failing}/secret", f"/subscriptions/{scene.failing}/test",
                 f"/subscriptions/{scene.failing}/edit", f"/events/{scene.dead_event}/replay",
                 f"/deliveries/{scene.waiting_delivery}/retry", f"/deliveries/{scene.waiting_delivery}/cancel",
                 f"/deliveries/{scene.dead_delivery}/replay", "/dead-letters", "/findings/sending",
                 f"/bulk/{scene.bulk}/start", f"/bulk/{scene.bulk}/cancel", f"/bulk/{scene.bulk}/rate"):  # fmt: skip
        answer = post(client, path, confirmed="1", id=scene.dead_delivery, act="purge", to="paused")
        assert answer.status_code == 404, (path, answer.text)
    with engine.begin() as connection:
        assert connection.execute(text("select count(*) from outbox.audit")).scalar_one() == before


def test_a_tenant_cannot_make_a_token_or_a_subscription_of_another(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.tenant)
    answer = post(client, "/tokens", name="mine", right="read", every_tenant="1", tenant="globex", days="30")
    made = re.search(r"rtk_[A-Za-z0-9_-]{43}", answer.text)
    assert made
    with engine.begin() as connection:
        found = tokens.authenticate(connection, made[0])
        assert found is not None
        assert found.tenant == "acme"
    answer = post(client, "/subscriptions/new", url="http://127.0.0.1:8999/new", types="order.*", tenant="globex")
    name = re.search(r"sub_[0-9a-z]{26}", answer.text)
    assert name
    with engine.begin() as connection:
        assert subscriptions.get(connection, name[0], tenant="acme").tenant == "acme"


# ---- what pages do


def test_a_subscription_is_added_shown_changed_paused_resumed_and_removed(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    form = client.get("/subscriptions/new").text
    name = re.search(r'name="id" value="(sub_\w+)"', form)
    assert name
    fields = {"id": name[1], "url": "http://127.0.0.1:8999/hooks", "types": "order.*\nuser.created", "tenant": "acme",
              "timeout_seconds": "7", "filter": '{"payload": {"total": {"$gte": 100.50}}}', "scheme": "standard",
              "headers": "X-Key: s3cret-value", "authentication": "bearer", "token": "t0ken-value"}  # fmt: skip
    made = post(client, "/subscriptions/new", **fields)
    assert made.status_code == 200
    assert len(SECRET.findall(made.text)) == 1
    again = post(client, "/subscriptions/new", **fields)
    assert again.status_code == 422  # sent twice, made once
    assert "taken" in again.text
    assert "s3cret-value" not in again.text
    assert "t0ken-value" not in again.text
    path = f"/subscriptions/{name[1]}"
    edit = client.get(f"{path}/edit").text
    version = re.search(r'name="version" value="([^"]+)"', edit)
    assert version
    changed = {**fields, "timeout_seconds": "20", "types": "order.*, user.created", "version": unescape(version[1]),
               "headers": "", "authentication": "keep", "schedule_seconds": "none"}  # fmt: skip
    assert post(client, f"{path}/edit", **changed).status_code == 303
    assert post(client, f"{path}/edit", **changed).status_code == 409  # of an older version
    with engine.begin() as connection:
        found = subscriptions.get(connection, name[1], tenant="acme")
    assert (found.timeout_seconds, found.schedule_seconds, found.headers) == (20, (), ("X-Key",))
    assert found.authentication == "bearer"
    shown = client.get(path).text
    assert not SECRET.search(shown)
    assert "s3cret-value" not in shown
    for verb, state in (("pause", "paused"), ("resume", "active")):
        assert post(client, f"{path}/{verb}").status_code == 303
        with engine.begin() as connection:
            assert subscriptions.get(connection, name[1], tenant="acme").state == state
    asked = post(client, f"{path}/remove")
    assert asked.status_code == 200
    assert "Remove it for good" in asked.text
    assert post(client, f"{path}/remove", confirmed="1").headers["location"] == "/subscriptions?done=removed"


def test_the_form_shows_a_field_that_was_declared_since_it_was_written(stage, monkeypatch) -> None:
    note = Field(name="a_note", column=Text(), default="", check=text_check(9), flags=(), meaning="What `it` is for.")
    monkeypatch.setattr(field_texts, "COLUMNS", (*field_texts.COLUMNS, note))
    monkeypatch.setattr(subscription_forms, "FIELDS", (*subscription_forms.FIELDS, note))
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    page = Page(client.get("/subscriptions/new").text)
    assert any(element.get("name") == "a_note" for _, element in page.elements)
    assert "A note" in page.text
    assert "What it is for." in page.text
    fields = {"url": "http://127.0.0.1:8999/hooks", "types": "order.*", "timeout_seconds": "x", "a_note": "kept"}
    again = Page(post(client, "/subscriptions/new", **fields).text)
    assert any(element.get("name") == "a_note" and element.get("value") == "kept" for _, element in again.elements)


def test_what_a_form_gives_wrong_is_named_at_its_field_and_kept(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    for name, value, said in (
        ("url", "ftp://x", "url"), ("types", "a b!", "types"), ("timeout_seconds", "soon", "no whole number"),
        ("filter", "{", "is no JSON"), ("headers", "nothing", "is not"), ("filter", "@/etc/passwd", "is no JSON"),
    ):  # fmt: skip
        fields = {"url": "http://127.0.0.1:8999/hooks", "types": "order.*", name: value}
        answer = post(client, "/subscriptions/new", **fields)
        assert answer.status_code == 422, name
        assert said in Page(answer.text).text
        assert "root:" not in answer.text
        assert any(e.get("aria-invalid") and e.get("name") == name for _, e in Page(answer.text).elements), name


def test_a_secret_is_shown_when_it_is_made_and_on_no_other_page(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    rotated = post(client, f"/subscriptions/{scene.subscription}/secret", overlap_seconds="0")
    (secret,) = SECRET.findall(rotated.text)
    token = SECRET.findall(post(client, "/tokens", name="shown", right="read", days="30", every_tenant="1").text)
    assert len(token) == 1
    for path in paths_of(scene):
        assert not SECRET.search(client.get(path).text), path
    assert secret.startswith("whsec_")


def test_dead_letters_are_put_back_and_deleted_after_a_question(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    with engine.begin() as connection:
        names = [_bury(connection) for _ in range(4)]
    assert post(client, "/dead-letters", act="purge").status_code == 422
    assert post(client, "/dead-letters", act="replay", all="1").status_code == 422  # everything is no filter
    assert post(client, "/dead-letters", act="replay", id=names[0]).headers["location"].endswith("done=replayed&n=1")
    asked = post(client, "/dead-letters", act="purge", id=names[1])
    assert "Delete 1 dead letter" in asked.text
    assert post(client, "/dead-letters", act="purge", id=names[1], confirmed="1").headers["location"].endswith("n=1")
    everything = post(client, "/dead-letters", act="purge", all="1", type="gone.bad")
    assert "Delete 2 dead letters" in everything.text
    done = post(client, "/dead-letters", act="purge", all="1", type="gone.bad", confirmed="1")
    assert done.headers["location"].endswith("done=purged&n=2")


def test_the_question_says_how_many_pass_the_filter_and_leads_to_a_bulk_operation(stage, monkeypatch) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    with engine.begin() as connection:
        for _ in range(3):
            _bury(connection)
    monkeypatch.setattr("relay.web.pages.dead_letters.MOST", 2)
    given = {"all": "1", "type": "gone.bad", "tenant": "hooli", "since": "1h"}
    asked = Page(post(client, "/dead-letters", act="replay", **given).text)
    assert "Put back the oldest 2 of 3 dead letters?" in asked.text
    (link,) = [str(own["href"]) for tag, own in asked.elements if tag == "a" and "/bulk/new" in str(own.get("href"))]
    plan = Page(client.get(link).text)
    values = {own["name"]: own["value"] for tag, own in plan.elements if tag == "input" and own.get("id")}
    assert (values["type"], values["tenant"], values["since"], values["until"]) == ("gone.bad", "hooli", "1h", "")
    assert ("option", {"value": "redrive", "selected": None}) in plan.elements
    for more in ({"act": "purge"}, {"act": "replay", "key": "k"}):  # which no bulk operation does
        assert "/bulk/new" not in post(client, "/dead-letters", **given, **more).text
    assert post(client, "/dead-letters", act="purge", confirmed="1", **given).headers["location"].endswith("n=2")
    assert post(client, "/dead-letters", act="purge", confirmed="1", **given).headers["location"].endswith("n=1")


def _bury(connection: Connection) -> str:
    subscription = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/dead")
    event = seeding.record(connection, type="gone.bad", tenant="hooli")
    (delivery,) = seeding.resolve(connection, event, subscription)
    seeding.attempt(connection, delivery, "dead", error="no")
    return delivery


def test_one_delivery_is_retried_cancelled_and_replayed_by_the_visitors_name(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    with engine.begin() as connection:
        subscription = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/one")
        (name,) = seeding.resolve(connection, seeding.record(connection, tenant="hooli"), subscription)
        seeding.attempt(connection, name, "retry")
    assert post(client, f"/deliveries/{name}/retry").status_code == 303
    assert post(client, f"/deliveries/{name}/retry").status_code == 409  # it is due by now
    assert "Cancel the delivery" in post(client, f"/deliveries/{name}/cancel").text
    assert post(client, f"/deliveries/{name}/cancel", confirmed="1").status_code == 303
    assert "cancelled" in client.get(f"/deliveries/{name}").text
    assert post(client, f"/deliveries/{name}/replay").headers["location"].startswith("/deliveries/dlv_")
    with engine.begin() as connection:
        actors = connection.execute(
            text(
                "select distinct actor from outbox.audit where action in ('retried', 'cancelled') and tenant = 'hooli'"
            )
        ).scalars()
        assert list(actors) == ["token:operator of the shop"]


def test_a_subscription_is_disabled_with_a_reason_that_everybody_is_shown(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    with engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/disabled")
    path = f"/subscriptions/{name}/disable"
    assert path in Page(client.get(f"/subscriptions/{name}").text).posts_to()
    asked = Page(post(client, path).text)
    (field,) = [own for tag, own in asked.elements if tag == "input" and own.get("name") == "reason"]
    assert "required" in field
    for reason in ("", "  ", "é" * 251):
        refused = post(client, path, confirmed="1", reason=reason)
        assert refused.status_code == 422
        assert any(own.get("aria-invalid") and own.get("name") == "reason" for _, own in Page(refused.text).elements)
    done = post(client, path, confirmed="1", reason="they moved <b>away</b>")
    assert done.headers["location"] == f"/subscriptions/{name}?done=disabled"
    page = client.get(f"/subscriptions/{name}").text
    assert "they moved &lt;b&gt;away&lt;/b&gt;" in page
    assert path not in Page(page).posts_to()


def test_all_sending_is_paused_after_a_question_and_resumed(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    asked = Page(post(client, "/findings/sending", to="paused").text)
    assert "Pause all sending" in asked.text
    assert [own.get("name") for tag, own in asked.elements if tag == "input" and own.get("id")] == ["reason"]
    post(client, "/findings/sending", to="paused", confirmed="1", reason="the bank called")
    shown = Page(client.get("/").text).text
    assert "All sending is paused" in shown
    assert ": the bank called." in shown
    post(client, "/findings/sending", to="resumed")
    assert "All sending is paused" not in client.get("/").text


def test_the_history_is_searched_by_text_and_outcome(stage) -> None:
    address, scene, engine = stage
    with engine.begin() as connection:
        subscription = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/search")
        event = seeding.record(connection, '{"note":"needle-in-payload"}', tenant="hooli")
        (delivery,) = seeding.resolve(connection, event, subscription)
        seeding.attempt(connection, delivery, "retry", error="stack-of-hay")
    client = sign_in(address, scene.operator)
    for query, found in (("text=needle-in-payload", True), ("text=stack-of-hay", True), ("text=nowhere", False),
                         (f"subscription={subscription}&outcome=failed", True), ("outcome=delivered", False),
                         (f"subscription={subscription}&status=5xx", True)):  # fmt: skip
        assert (delivery in client.get(f"/attempts?{query}").text) is found, query
    for query in ("status=9999", "outcome=none", "subscription=x", "after=x", "text=" + "x" * 201):
        answer = client.get(f"/attempts?{query}")
        assert 'role="alert"' in answer.text, query


def test_every_list_is_searched_by_time_event_and_text(stage) -> None:
    """Whatever the operation takes: a list of what happened to one event, in a window, with words in it."""
    address, scene, engine = stage
    with engine.begin() as connection:
        subscription = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/window")
        event = seeding.record(connection, '{"note":"pin-in-payload"}', tenant="hooli")
        dead, done = seeding.resolve(connection, event, subscription, seeding.subscribe(connection, tenant="hooli"))
        seeding.attempt(connection, dead, "dead", error="gave up")
        seeding.attempt(connection, done, "delivered")
        other = seeding.record(connection, '{"note":"pin-in-payload"}', tenant="hooli")
        (due,) = seeding.resolve(connection, other, subscription)
    client = sign_in(address, scene.operator)
    now, past = "since=1h", "until=2h"
    for path, own, queries in (
        ("/attempts", dead, {f"event={event}": True, f"event={other}": False, now: True, past: False}),
        ("/events", event, {"text=pin-in-payload": True, "text=nowhere": False, now: True, past: False}),
        ("/dead-letters", dead, {f"event={event}": True, f"event={other}": False, "text=pin-in": True,
                                 "text=gave+up": True, "text=nowhere": False, now: True, past: False}),
        ("/deliveries", due, {f"event={other}": True, f"event={event}": False, now: True, past: False}),
        ("/deliveries", done, {f"state=delivered&event={event}&outcome=delivered&text=pin-in": True,
                               "state=delivered&outcome=timeout": False, f"state=delivered&{past}": False}),
    ):  # fmt: skip
        for query, found in queries.items():
            answer = client.get(f"{path}?tenant=hooli&{query}")
            assert answer.status_code == 200
            assert (own in answer.text) is found, (path, query)


@pytest.mark.parametrize("path", ["/attempts", "/events", "/deliveries", "/dead-letters", "/audit"])
def test_a_time_that_is_none_is_told_beside_its_field(stage, path: str) -> None:
    client = sign_in(stage[0], stage[1].operator)
    for name, value in (("since", "yesterday"), ("until", "2026-01-31T12:00"), ("since", "9" * 200)):
        page = Page(client.get(path, params={name: value}).text)
        (given,) = [own for tag, own in page.elements if tag == "input" and own.get("id") == f"f-{name}"]
        assert (given["aria-invalid"], given["list"]) == ("true", "times")
        assert "time" in page.text.split(f"{name}: ")[1]
        assert [own.get("name") for _, own in page.elements if "aria-invalid" in own] == [name]


def test_the_form_of_a_bulk_operation_takes_any_time_and_comes_filled_in(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    filled = {"kind": "redrive", "type": "order.*", "since": "2026-01-31", "until": "3h", "tenant": "globex"}
    page = Page(client.get("/bulk/new", params=filled).text)
    values = {own["name"]: own["value"] for tag, own in page.elements if tag == "input" and own.get("id")}
    assert {name: values[name] for name in filled if name != "kind"} == {k: v for k, v in filled.items() if k != "kind"}
    assert ("option", {"value": "redrive", "selected": None}) in page.elements
    wrong = Page(post(client, "/bulk/new", kind="redrive", since="soon").text)
    (given,) = [own for tag, own in wrong.elements if tag == "input" and own.get("name") == "since"]
    assert (given["aria-invalid"], given["value"]) == ("true", "soon")
    assert post(client, "/bulk/new", **filled).status_code == 303
    with engine.begin() as connection:
        made = list_bulk(connection, None, Filters(limit=1)).items[0]
    assert made.parameters["since"].startswith("2026-01-31T00:00:00")
    assert made.parameters["type"] == "order.*"


def test_a_bulk_operation_is_planned_started_paused_and_cancelled(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    wrong = post(client, "/bulk/new", kind="recover", since="24h")
    assert wrong.status_code == 422
    assert "subscription: is needed for recover" in Page(wrong.text).text
    planned = post(client, "/bulk/new", kind="recover", subscription=scene.failing, since="24h", rate="7")
    path = planned.headers["location"].partition("?")[0]
    page = client.get(path).text
    assert "7 a second" in page
    assert "The first of them" in page
    for verb, word in (("start", "running"), ("pause", "paused"), ("resume", "running")):
        assert post(client, f"{path}/{verb}").status_code == 303
        assert word in client.get(path).text
    assert post(client, f"{path}/rate", rate="20").status_code == 303
    assert post(client, f"{path}/start").status_code == 409
    assert "Cancel the operation" in post(client, f"{path}/cancel").text
    assert post(client, f"{path}/cancel", confirmed="1").status_code == 303
    assert "cancelled" in client.get("/bulk").text


# ---- what comes from outside

HOSTILE = (
    "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "{{ 7*77777 }}{% raw %}", "</textarea></pre><b>",
    "\u202eevil\u2066", "&lt;b&gt;", "javascript:alert(1)", "w" * 900,
)  # fmt: skip


def test_hostile_text_is_text_on_every_page(stage) -> None:
    address, scene, engine = stage
    with engine.begin() as connection:
        names = [_hostile(connection, word, place) for place, word in enumerate(HOSTILE)]
    client = sign_in(address, scene.operator)
    for subscription, event, delivery in names:
        for path in (*paths_of(scene), f"/subscriptions/{subscription}", f"/subscriptions/{subscription}/edit",
                     f"/subscriptions/{subscription}/test", f"/events/{event}", f"/deliveries/{delivery}",
                     f"/deliveries/{delivery}/request", f"/audit?subject={subscription}",
                     f"/dead-letters?subscription={subscription}"):  # fmt: skip
            answer = client.get(path)
            page = Page(answer.text)
            assert answer.status_code == 200, (path, answer.text[-500:])
            assert not [tag for tag, _ in page.elements if tag in ("img", "b")], path
            assert [e for tag, e in page.elements if tag == "script" and "relay.js" not in str(e.get("src"))] == [], (
                path
            )
            assert not [e for _, e in page.elements if any(name.startswith("on") for name in e)], path
            assert not [e for _, e in page.elements if str(e.get("href", "")).startswith("javascript:")], path
            assert "544439" not in answer.text, path
            body = re.sub(r"<textarea[\s\S]*?</textarea>|<input[^>]*>", "", answer.text)
            assert "\u202e" not in body, path
            assert "\0" not in answer.text, path


def _hostile(connection: Connection, word: str, place: int) -> tuple[str, str, str]:
    """Bury a delivery whose every text is this word: tenant, key, payload, description, error, headers, excerpt."""
    tenant = word[:200]
    made = subscriptions.add(
        connection, f"http://127.0.0.1:8999/{place}?b=%3Cb%3E", ["*"], tenant=tenant, description=word,
        metadata={"note": word},
    )  # fmt: skip
    payload = json.dumps({word: word, "nul": "\0", "big": "x" * (250_000 if place == 0 else 1)})
    event = seeding.record(connection, payload, tenant=tenant, key=word)
    (delivery,) = seeding.resolve(connection, event, made.id)
    seeding.attempt(connection, delivery, "dead", error=word)
    connection.execute(_EXCERPT, {
        "id": parse_id("dlv", delivery), "headers": f"x-evil: {word}",
        "excerpt": f"\0\x1b[31m{word}".encode() + b"\xff",
    })  # fmt: skip
    return made.id, event, delivery


_EXCERPT = text("""
update outbox.attempts set headers = :headers, excerpt = :excerpt where delivery_id = :id
""")


def test_a_payload_of_a_megabyte_is_shown_from_its_beginning_and_sent_whole_as_a_file(stage) -> None:
    address, scene, engine = stage
    with engine.begin() as connection:
        connection.execute(text("update outbox.settings set value = 2000000 where name = 'max_payload_bytes'"))
        event = seeding.record(connection, '{"big":"' + "<b>" * 350_000 + '"}', tenant="hooli")
    client = sign_in(address, scene.operator)
    page = client.get(f"/events/{event}")
    assert page.status_code == 200
    assert len(page.text) < 200_000
    assert "The first 20,000 of 1,050,010 characters" in Page(page.text).text
    whole = client.get(f"/events/{event}/payload")
    assert len(whole.text) == 1_050_010
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["content-disposition"].startswith("attachment")


def test_a_url_that_is_a_credential_is_redacted_on_every_page(stage) -> None:
    address, scene, engine = stage
    url = "https://hooks.slack.com/services/T0/B0/cr3dential"
    with engine.begin() as connection:
        made = subscriptions.add(connection, url, ["*"], tenant="hooli", format="slack")
        event = seeding.record(connection, tenant="hooli")
        (delivery,) = seeding.resolve(connection, event, made.id)
    client = sign_in(address, scene.operator)
    for path in (*paths_of(scene), f"/subscriptions/{made.id}", f"/subscriptions/{made.id}/edit",
                 f"/subscriptions/{made.id}/test", f"/events/{event}", f"/deliveries/{delivery}",
                 f"/audit?subject={made.id}", "/subscriptions?tenant=hooli"):  # fmt: skip
        assert "cr3dential" not in client.get(path).text, path
    version = re.search(r'name="version" value="([^"]+)"', client.get(f"/subscriptions/{made.id}/edit").text)
    assert version
    answer = post(client, f"/subscriptions/{made.id}/edit", url=made.url, types="*", description="changed",
                  version=unescape(version[1]))  # fmt: skip
    assert answer.status_code == 303
    with engine.begin() as connection:
        kept = connection.execute(text("select url from outbox.subscriptions where id = :id"),
                                  {"id": parse_id("sub", made.id)}).scalar_one()  # fmt: skip
    assert kept == url


# ---- a proxy in front


def test_a_proxys_header_signs_in_only_where_it_is_on_and_from_the_named_address(stage, database_url: str) -> None:
    named = {"X-Forwarded-Email": "eve@shop.example"}
    assert visit(stage[0]).get("/events", headers=named).status_code == 303  # off by default
    on = {"sign_in_header": "X-Forwarded-Email", "sign_in_proxies": ("127.0.0.1/32",), "sign_in_rights": ("read",)}
    with served(database_url, **on) as address:
        client = visit(address)
        page = client.get("/events", headers=named)
        assert page.status_code == 200
        assert "eve@shop.example" in page.text
        assert "Sign out" not in page.text
        assert client.get("/events").status_code == 303
        assert client.get("/tokens", headers=named).status_code == 403
        spoofed = {**named, "X-Forwarded-For": "198.51.100.9"}
        assert client.get("/events", headers=spoofed).status_code == 200  # the peer counts, which is the proxy
    with served(database_url, **on | {"sign_in_proxies": ("10.0.0.5/32",)}) as address:
        for forwarded in ({}, {"X-Forwarded-For": "10.0.0.5"}):
            assert visit(address).get("/events", headers=named | forwarded).status_code == 303


def test_a_stream_tells_a_tenant_of_its_own_changes(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.tenant)
    with client.stream("GET", "/live", timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry")
        with engine.begin() as connection:
            seeding.record(connection, tenant="acme")
        assert next(line for line in lines if line.startswith("event")) == "event: changed"


def test_the_keys_of_each_relay_are_shown(stage) -> None:
    address, scene, engine = stage
    with engine.begin() as connection:
        seeding.sign_in(connection, host="keyed", key_ids=["0e2a3f80f4d6ac20", "77d1a0c2b9e84f13"])
    client = sign_in(address, scene.operator)
    try:
        for path in ("/", "/findings"):
            assert "0e2a3f80f4d6ac20, 77d1a0c2b9e84f13" in Page(client.get(path).text).text, path
    finally:
        with engine.begin() as connection:
            connection.execute(text("delete from outbox.relays where host = 'keyed'"))
