"""API, dashboard and portal mounted in an application of one's own, below a path and behind a proxy's prefix."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from starlette.middleware.base import RequestResponseEndpoint

import outbox
from relay.config.options import Config
from relay.operations.tokens import RIGHTS
from relay.web.app import create_app

BELOW = "/intern/hooks"  # what the proxy in front cuts off, and where it is mounted


@pytest.fixture
def mounting(database_url: str) -> Iterator[FastAPI]:
    outer, inner = FastAPI(), create_app(Config(database_url=database_url, allow_networks=["127.0.0.0/8"]))
    outer.mount("/hooks", inner)

    @outer.get("/shop")
    def shop() -> str:
        return "the shop"

    yield outer
    inner.state.database.close()


@pytest.fixture
async def browser(mounting: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(mounting, root_path="/intern")
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as client:
        yield client


@pytest.mark.anyio
async def test_the_portal_of_a_mounted_application_stays_below_its_path(
    browser: httpx.AsyncClient, engine: Engine
) -> None:
    with Session(engine) as session:
        hook = outbox.subscribe(session, "https://customer.example/hook", ["order.*"], tenant="acme")
        link = outbox.portal_url(session, "acme", f"https://shop.example{BELOW}/portal", rights="manage")
        session.commit()
    entered = await browser.get(link)
    assert (entered.status_code, entered.headers["location"]) == (303, f"{BELOW}/portal/?begun=1")
    (cookie,) = entered.headers.get_list("set-cookie")
    assert "Path=/;" in cookie + ";", "for the whole host, as the names with __Host- have to be"
    page = await browser.get(entered.headers["location"])
    assert page.status_code == 200
    paths = re.findall(r"""(?:href|src|action)=["'](/[^"']*)""", page.text)
    assert f"{BELOW}/portal/endpoints/{hook.id}" in paths
    assert [path for path in paths if not path.startswith(f"{BELOW}/")] == []
    for path in set(paths):
        assert (await browser.get(path)).status_code in (200, 405), path
    form = (await browser.get(f"{BELOW}/portal/endpoints/{hook.id}/edit")).text
    csrf = re.findall(r'name="csrf" value="([^"]+)"', form)[0]
    sent = await browser.post(f"{BELOW}/portal/endpoints/{hook.id}/pause", data={"csrf": csrf})
    assert (sent.status_code, sent.headers["location"].startswith(f"{BELOW}/portal/")) == (303, True)
    with Session(engine) as session:
        assert outbox.subscriptions.get(session, hook.id, tenant="acme").state == "paused"
    assert (await browser.get("/intern/shop")).json() == "the shop"


@pytest.mark.anyio
async def test_its_api_and_dashboard_ask_for_its_own_tokens(browser: httpx.AsyncClient, token) -> None:
    given = {"authorization": f"Bearer {token()}"}
    assert (await browser.get(f"{BELOW}/api/v1/subscriptions")).status_code == 401
    assert (await browser.get(f"{BELOW}/api/v1/subscriptions", headers=given)).json()["items"] == []
    asked = await browser.get(f"{BELOW}/")
    assert (asked.status_code, asked.headers["location"].startswith(f"{BELOW}/")) == (303, True)


@pytest.mark.anyio
async def test_what_the_application_around_keeps_in_its_state_is_not_believed(
    mounting: FastAPI, browser: httpx.AsyncClient
) -> None:
    """Its own `request.state.principal` is nobody that this one knows."""

    @mounting.middleware("http")
    async def sign_in(request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.state.principal = SimpleNamespace(
            tenant=None, rights=frozenset(RIGHTS), name="admin", actor="admin", whose=outbox.EVERY_TENANT
        )
        return await call_next(request)

    assert (await browser.get(f"{BELOW}/api/v1/subscriptions")).status_code == 401
