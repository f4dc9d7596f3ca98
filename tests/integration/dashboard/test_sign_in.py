"""Who sees the pages at all: headers, sessions, links that sign in, forms from elsewhere, a proxy in front."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from outbox import subscriptions
from relay.operations import sessions, tokens
from relay.operations.tokens import NewToken
from relay.web.pages.rendering import HEADERS
from tests.support.dashboard import served
from tests.support.visiting import Page, csrf_of, paths_of, post, sign_in, visit
from tests.support.waiting import wait_until

pytestmark = pytest.mark.xdist_group("dashboard")
WAITING = """
select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


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


def test_of_two_clicks_at_once_on_a_link_one_signs_in(stage) -> None:
    _, _, engine = stage

    def click(connection: Connection) -> NewToken | None:
        with connection.begin():
            return sessions.begin_session(connection, link.text, once=True)

    with engine.begin() as connection:
        link = sessions.make_link(connection, None, "two clicks")
    with ThreadPoolExecutor() as pool, engine.connect() as first, engine.connect() as second:
        begun = sessions.begin_session(first, link.text, once=True)
        late = pool.submit(click, second)
        with engine.connect() as outside:
            wait_until(lambda: late.done() or outside.execute(text(WAITING)).scalar_one())
        first.commit()
        assert late.result() is None
    with engine.begin() as connection:
        assert begun is not None
        assert sessions.session_of(connection, begun.text) is not None
