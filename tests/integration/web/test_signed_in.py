"""The portal and the API under an application's own sign-in, over HTTP: each user in their tenant, and nobody else."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from fastapi import Cookie, Depends, FastAPI, HTTPException, Response
from sqlalchemy import Engine
from sqlalchemy.orm import Session

import outbox
from outbox.errors import ArgumentError
from relay.config.options import Config
from relay.local.embedded import free_port
from relay.web.app import create_app
from relay.web.mounting import signed_in_router
from tests.support.waiting import wait_until

TENANTS = {"alice": "acme", "albert": "acme", "bob": "globex"}


def current_user(user: Annotated[str | None, Cookie()] = None) -> str:
    """The application's own sign-in."""
    if user not in TENANTS:
        raise HTTPException(401, "Sign in to the shop", {"WWW-Authenticate": "Shop"})
    return user


def current_tenant(user: Annotated[str, Depends(current_user)]) -> tuple[str, str]:
    return TENANTS[user], user


@contextmanager
def running(database_url: str, *, below: str = "", root_path: str = "", **options: Any) -> Iterator[str]:
    """The shop as a server. A proxy in front cuts off `below`, of which the server knows, or `root_path`: the shop."""
    web = create_app(Config(database_url=database_url, allow_networks=["127.0.0.0/8"], allow_http=True))
    shop, port = FastAPI(), free_port()
    shop.root_path = root_path

    @shop.post("/sign-in/{user}")
    def sign_in(user: str, response: Response) -> None:
        response.set_cookie("user", user, httponly=True)

    shop.include_router(signed_in_router(web, tenant=current_tenant, **options), prefix="/webhooks")
    server = uvicorn.Server(
        uvicorn.Config(shop, port=port, root_path=below, log_config=None, lifespan="off", access_log=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, message="the shop does not start", timeout_seconds=30)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        web.state.database.close()


@contextmanager
def browser(shop: str, user: str | None) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop, trust_env=False, timeout=30) as client:
        if user is not None:
            client.post(f"/sign-in/{user}").raise_for_status()
        yield client


def enter(client: httpx.Client, path: str = "/webhooks") -> httpx.Response:
    return client.get(path, follow_redirects=True)


@pytest.fixture
def hooks(engine: Engine) -> dict[str, str]:
    """An endpoint and an event of each tenant; returns the ids of the endpoints."""
    with Session(engine) as session:
        made = {
            tenant: outbox.subscribe(session, f"https://{tenant}.example/hook", ["order.*"], tenant=tenant).id
            for tenant in ("acme", "globex")
        }
        for tenant in made:
            outbox.record(session, "order.paid", {}, tenant=tenant)
        session.commit()
    return made


@pytest.fixture
def shop(database_url: str, hooks: dict[str, str]) -> Iterator[str]:
    with running(database_url, api_rights=("read", "write", "operate")) as shop:
        yield shop


def csrf_of(page: httpx.Response) -> str:
    return re.findall(r'name="csrf" value="([^"]+)"', page.text)[0]


def test_each_user_sees_their_own_tenant_and_no_other(shop: str, hooks: dict[str, str]) -> None:
    for user, theirs, others in (("alice", "acme", "globex"), ("bob", "globex", "acme")):
        with browser(shop, user) as client:
            page = enter(client)
            assert (page.status_code, page.url.path) == (200, "/webhooks/portal/")
            assert f"{theirs}.example" in page.text
            assert user in page.text
            assert f"{others}.example" not in page.text
            assert client.get(f"/webhooks/portal/endpoints/{hooks[theirs]}").status_code == 200
            assert client.get(f"/webhooks/portal/endpoints/{hooks[others]}").status_code == 404
            csrf = {"csrf": csrf_of(page)}
            assert client.post(f"/webhooks/portal/endpoints/{hooks[others]}/pause", data=csrf).status_code == 404
            listed = client.get("/webhooks/api/v1/subscriptions").json()["items"]
            assert [one["id"] for one in listed] == [hooks[theirs]]
            assert client.get(f"/webhooks/api/v1/subscriptions/{hooks[others]}").status_code == 404
            for asked, seen in (({}, [theirs]), ({"tenant": others}, [])):
                events = client.get("/webhooks/api/v1/events", params=asked)
                assert (events.status_code, [one["tenant"] for one in events.json()["items"]]) == (200, seen)


def test_whoever_is_signed_out_gets_the_applications_own_refusal(shop: str) -> None:
    with browser(shop, "alice") as client:
        assert enter(client).status_code == 200
        del client.cookies["user"]
        for path in ("", "/portal", "/portal/", "/portal/style.css", "/api/v1/subscriptions", "/anything"):
            answer = client.get(f"/webhooks{path}")  # although the portal's own cookie is still there
            assert (answer.status_code, answer.json()) == (401, {"detail": "Sign in to the shop"}), path
            assert answer.headers["www-authenticate"] == "Shop"


def test_a_session_of_another_user_is_not_taken(shop: str, hooks: dict[str, str]) -> None:
    with browser(shop, "alice") as client:
        csrf = csrf_of(enter(client))
        client.post("/sign-in/bob")
        posted = client.post(f"/webhooks/portal/endpoints/{hooks['acme']}/pause", data={"csrf": csrf})
        assert posted.status_code == 401
        page = enter(client, "/webhooks/portal/")
        assert "globex.example" in page.text
        assert "acme.example" not in page.text
        client.post("/sign-in/albert")
        page = enter(client, f"/webhooks/portal/endpoints/{hooks['acme']}")
        assert (page.status_code, page.url.path) == (200, f"/webhooks/portal/endpoints/{hooks['acme']}")
        assert "albert" in page.text


def test_what_is_changed_is_in_the_audit_by_the_users_name(shop: str, hooks: dict[str, str], engine: Engine) -> None:
    with browser(shop, "alice") as client:
        csrf = csrf_of(enter(client))
        client.post(f"/webhooks/portal/endpoints/{hooks['acme']}/pause", data={"csrf": csrf})
        resumed = client.post(f"/webhooks/api/v1/subscriptions/{hooks['acme']}/resume", headers={"If-Match": "*"})
        assert (resumed.status_code, resumed.json()["state"]) == (200, "active")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "select action, actor from outbox.audit where actor <> '' order by at, id"
        ).all()
    assert [tuple(row) for row in rows] == [
        ("portal link added", "application:alice"),
        ("portal link opened", "application:alice"),
        ("paused", "portal:alice"),
        ("resumed", "application:alice"),
    ]


def test_a_page_of_another_origin_changes_nothing(shop: str, hooks: dict[str, str], engine: Engine) -> None:
    """Where the application's cookie goes along; a caller that has no browser sends none of these headers."""
    path = f"/webhooks/api/v1/subscriptions/{hooks['acme']}/pause"
    with browser(shop, "alice") as client:
        form = f"/webhooks/portal/endpoints/{hooks['acme']}/pause"
        csrf = {"csrf": csrf_of(enter(client))}
        for elsewhere in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "https://e.il"},
            {"Origin": "https://e.il", "Authorization": "Basic YWxpY2U6c2VjcmV0"},  # a browser adds these by itself
            {"Origin": "https://e.il", "Authorization": "Negotiate YWxpY2U="},
            {"Origin": "https://e.il", "Authorization": ""},
        ):
            assert client.post(path, headers={"If-Match": "*", **elsewhere}).status_code == 403
            assert client.post(form, data=csrf, headers=elsewhere).status_code == 403
        assert client.post(form).status_code == 403, "without the form's own token"
        with Session(engine) as session:
            assert outbox.subscriptions.get(session, hooks["acme"], tenant="acme").state == "active"
        for here in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": shop}, {}, {"Authorization": "Bearer shop",
                     "Origin": "https://app.example"}):  # fmt: skip
            assert client.post(path, headers={"If-Match": "*", **here}).status_code == 200, here


def test_an_idempotency_key_is_of_the_caller(shop: str) -> None:
    body = {"url": "https://acme.example/second", "types": ["order.*"]}
    given: dict[str, Any] = {"json": body, "headers": {"Idempotency-Key": "once"}}
    with browser(shop, "alice") as client, browser(shop, "bob") as other:
        assert client.post("/webhooks/api/v1/subscriptions", **given).status_code == 201
        again = client.post("/webhooks/api/v1/subscriptions", **given)
        assert (again.status_code, "its answer was not kept" in again.text) == (409, True), (
            "nothing there to seal it to"
        )
        assert other.post("/webhooks/api/v1/subscriptions", **given).status_code == 201


@pytest.mark.parametrize("cut_off", [{"below": "/intern"}, {"root_path": "/intern"}], ids=["server", "application"])
def test_links_forms_and_cookies_hold_behind_a_proxy_that_cuts_off_a_prefix(
    database_url: str, hooks: dict[str, str], cut_off: dict[str, str]
) -> None:
    with running(database_url, api_rights=["read"], **cut_off) as shop, browser(shop, "alice") as client:

        def ask(method: str, path: str, **more: Any) -> httpx.Response:
            assert path.startswith("/intern/webhooks"), path
            return client.request(method, path.removeprefix("/intern"), **more)

        for method, path in (("GET", ""), ("GET", "/"), ("HEAD", ""), ("HEAD", "/")):
            led = ask(method, f"/intern/webhooks{path}")
            assert (led.status_code, led.headers["location"]) == (303, "/intern/webhooks/portal/")
        begun = ask("GET", led.headers["location"])
        cookie = begun.headers["set-cookie"].lower()
        assert ("path=/;" in f"{cookie};", "httponly" in cookie, "samesite=lax" in cookie) == (True, True, True)
        page = ask("GET", begun.headers["location"])
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        paths = set(re.findall(r"""(?:href|src|action)=["'](/[^"']*)""", page.text))
        assert f"/intern/webhooks/portal/endpoints/{hooks['acme']}" in paths
        assert {path: ask("GET", path).status_code for path in paths if "theme" not in path} == {
            path: 200 for path in paths if "theme" not in path
        }
        posted = ask("POST", "/intern/webhooks/portal/theme", data={"csrf": csrf_of(page), "theme": "dark"})
        assert (posted.status_code, posted.headers["location"]) == (303, "/intern/webhooks/portal/")
        description = ask("GET", "/intern/webhooks/api/v1/openapi.json").json()
        assert description["servers"][0]["url"] == "/intern/webhooks"


def test_a_look_by_head_begins_no_session(shop: str, engine: Engine) -> None:
    with browser(shop, "alice") as client:
        assert [client.head("/webhooks/portal/").status_code for _ in range(3)] == [401] * 3
        with engine.connect() as connection:
            links = "select count(*) from outbox.portal_links"
            assert connection.exec_driver_sql(links).scalar_one() == 0
            assert client.get("/webhooks/portal/").status_code == 303
            assert connection.exec_driver_sql(links).scalar_one() == 1
        client.get("/webhooks/portal/")
        assert client.head("/webhooks/portal/").status_code == 200


def test_the_browser_that_keeps_no_cookie_is_told_so_and_not_led_in_a_circle(shop: str) -> None:
    user = {"Cookie": "user=alice"}
    with browser(shop, None) as client:
        begun = client.get("/webhooks/portal/", headers=user)
        client.cookies.clear()
        told = client.get(begun.headers["location"], headers=user)
        assert (begun.status_code, told.status_code) == (303, 401)
        assert "ookie" in told.text
        later = client.get("/webhooks/portal/?begun=1", headers=user)
        assert later.status_code == 303, "long ago"


def test_there_is_nothing_but_what_was_asked_for(database_url: str, hooks: dict[str, str]) -> None:
    with running(database_url, portal_rights="read") as shop, browser(shop, "alice") as client:
        page = enter(client)
        form = {"csrf": csrf_of(page)}
        assert client.post(f"/webhooks/portal/endpoints/{hooks['acme']}/pause", data=form).status_code == 403
        assert "sign-out" not in page.text, "the application's own is the one"
        for path in ("/sign-in", "/subscriptions", "/api/v1/subscriptions", "/api/v1/openapi.json", "/portalx",
                     "/portal/../sign-in", "/assets/../sign-in"):  # fmt: skip
            assert client.get(f"/webhooks{path}").status_code == 404, path


def test_rights_are_those_that_were_given_and_never_admin(database_url: str, hooks: dict[str, str]) -> None:
    with running(database_url, api_rights=["read"]) as shop, browser(shop, "alice") as client:
        assert client.get("/webhooks/api/v1/subscriptions").status_code == 200
        path = f"/webhooks/api/v1/subscriptions/{hooks['acme']}/pause"
        assert client.post(path, headers={"If-Match": "*"}).status_code == 403
        assert client.post("/webhooks/api/v1/tokens", json={"name": "x", "rights": ["read"]}).status_code == 403
        assert client.get("/webhooks/api/v1/sending").status_code == 404, "it is of every tenant"


@pytest.mark.parametrize(
    "options", [{"portal_rights": "all"}, {"api_rights": ["admin"]}, {"api_rights": "read"}, {"api_rights": ["look"]}]
)
def test_a_wrong_right_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"^{next(iter(options))}: must be"):
        signed_in_router(FastAPI(), tenant=current_tenant, **options)


@pytest.mark.parametrize("nobody", [None, "", {}, object(), ("acme", "é" * 101)])
def test_nobody_in_particular_is_an_error_and_no_tenant(database_url: str, nobody: Any) -> None:
    for path in ("/portal/", "/api/v1/events"):
        with pytest.raises(ArgumentError, match=r"^owner: .*return|^person: is 202 bytes, at most 200 are allowed$"):
            answer_to(database_url, nobody, path)


@pytest.mark.parametrize("somebody", [("acme", "é" * 100), "é" * 128], ids=["person", "tenant"])
def test_the_longest_names_are_let_in(database_url: str, somebody: Any) -> None:
    assert [answer_to(database_url, somebody, path) for path in ("/portal/", "/api/v1/events")] == [303, 200]
    assert answer_to(database_url, somebody, "/api/v1/subscriptions", url="https://a.example", types=["*"]) == 201


def answer_to(database_url: str, tenant: Any, path: str, **posted: Any) -> int:
    """The status that the shop answers, whose dependency says this. Raises what the shop raises."""
    web, shop = create_app(Config(database_url=database_url)), FastAPI()
    router = signed_in_router(web, tenant=lambda: tenant, api_rights=["read", "write"])
    shop.include_router(router, prefix="/webhooks")

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(shop), base_url="http://shop") as client:
            method = "POST" if posted else "GET"
            return (await client.request(method, f"/webhooks{path}", json=posted or None)).status_code

    try:
        return asyncio.run(ask())
    finally:
        web.state.database.close()
