"""Tests and checks of endpoints that hang: whoever else asks is answered meanwhile, and each tenant has a few."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from sqlalchemy import Connection, Engine

from outbox.control.portal_links import make_portal_link, open_portal_link
from relay.operations import sessions, tokens
from relay.operations.tokens import RIGHTS
from relay.web.admission import MOST_TRIALS_EACH
from relay.web.pages.csrf import csrf_token_of
from tests.integration.web.conftest import Ask
from tests.support import seeding
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio
PATHS: Mapping[str, str] = {
    "api test": "/api/v1/subscriptions/{}/test",
    "api check": "/api/v1/subscriptions/{}/check",
    "page test": "/subscriptions/{}/test",
    "page check": "/subscriptions/{}/check",
    "portal test": "/portal/endpoints/{}/test",
}
"""Where a test or a check is asked for, by whom asks."""


Send = Callable[[httpx.AsyncClient, str], Coroutine[Any, Any, httpx.Response]]


class Hanging:
    """An endpoint that takes connections and says nothing until it is told to close them; `held` greeted it by TLS."""

    def __init__(self) -> None:
        self.held = 0
        self.let_go = asyncio.Event()
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):  # else a check, which has seen that it can connect, and connects anew for TLS
            self.held += 1
            await self.let_go.wait()
        writer.close()


@asynccontextmanager
async def hanging() -> AsyncIterator[Hanging]:
    endpoint = Hanging()
    server = await asyncio.start_server(endpoint.take, "127.0.0.1", 0)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        yield endpoint
    finally:
        endpoint.let_go.set()
        server.close()


def made_for(connection: Connection, whom: str, tenant: str) -> Send:
    """Return what sends a request as somebody of a tenant: by a token, a session of the dashboard, or a link."""
    headers: dict[str, str] = {}
    form: dict[str, str] = {}
    if whom == "portal":
        given = make_portal_link(connection, tenant, "http://localhost/portal", rights="manage").url.partition("=")[2]
        opened = open_portal_link(connection, given)
        assert opened is not None
        headers, form = {"cookie": f"relay_portal={opened[1]}"}, {"csrf": csrf_token_of(opened[1])}
    else:
        token = tokens.create(connection, None, name=tenant, rights=RIGHTS, whose=tenant).text
        headers = {"authorization": f"Bearer {token}"}
        if whom == "page":
            session = sessions.begin_session(connection, token)
            assert session is not None
            headers, form = {"cookie": f"relay_session={session.text}"}, {"csrf": csrf_token_of(session.text)}
    return lambda client, path: client.post(path, headers=headers, data=form or None)


@pytest.mark.parametrize("what", PATHS)
async def test_endpoints_that_hang_stop_nobody_else(
    what: str, ask: Ask, client: httpx.AsyncClient, engine: Engine
) -> None:
    async with hanging() as endpoint, asyncio.TaskGroup() as group:
        with anyio.fail_after(20):
            under_way, again = [], []
            for tenant in ("evil", "wicked"):
                with engine.begin() as connection:
                    name = seeding.subscribe(connection, url=f"https://127.0.0.1:{endpoint.port}/", tenant=tenant)
                    send, path = made_for(connection, what.partition(" ")[0], tenant), PATHS[what].format(name)
                under_way += [group.create_task(send(client, path)) for _ in range(MOST_TRIALS_EACH)]
                again.append((send, path))
            await await_until(lambda: endpoint.held == len(under_way) == 8)
            await ask("GET /subscriptions", code=200)
            assert (await client.get("/sign-in")).status_code == 200
            for send, path in again:
                refused = await send(client, path)
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
            assert endpoint.held == len(under_way)
            endpoint.let_go.set()
            assert {answer.status_code for answer in await asyncio.gather(*under_way)} == {200}
            send, path = again[0]
            assert (await send(client, path)).status_code == 200
