"""The application in this process, asked by httpx without a socket; tokens of two tenants and of the operator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, Engine

from relay.config.options import Config
from relay.operations import tokens
from relay.operations.tokens import RIGHTS
from relay.web.app import create_app

Ask = Callable[..., Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def routed() -> FastAPI:
    """An application for all tests of a worker: FastAPI works a route out when it is first asked, 10 ms each time."""
    return create_app(Config(database_url="postgresql://nobody@127.0.0.1:1/none"))


@pytest.fixture
def app(routed: FastAPI, database_url: str) -> Iterator[FastAPI]:
    """The application over the test's database. All that one remembers is its state and its description."""
    made = create_app(Config(database_url=database_url, allow_networks=["127.0.0.0/8"], allow_http=True))
    made.state.methods_at = routed.state.methods_at
    routed.state = made.state
    yield routed
    routed.state.database.close()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection in autocommit: what a test writes is there for the application at once."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as opened:
        yield opened


@pytest.fixture
def token(engine: Engine) -> Callable[..., str]:
    """Makes a token: of tenant acme with every right, unless it is told otherwise."""

    def make(*rights: str, tenant: str | None = "acme", **more: Any) -> str:
        with engine.begin() as opened:
            made = tokens.create(opened, None, name="test", rights=rights or RIGHTS, whose=tenant, **more)
        return made.text

    return make


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as opened:
        yield opened


@pytest.fixture
def ask(client: httpx.AsyncClient, token: Callable[..., str]) -> Ask:
    """Asks as tenant acme with every right; `by=` is another token, `method path` the first argument."""
    own: list[str] = []

    async def send(what: str, by: str | None = None, *, code: int | None = None, **more: Any) -> httpx.Response:
        if by is None:
            own[:] = own or [token()]
            by = own[0]
        method, path = what.split(" ", 1)
        headers = {"Authorization": f"Bearer {by}"} | more.pop("headers", {})
        answer = await client.request(method, f"/api/v1{path}", headers=headers, **more)
        if code is not None:
            assert answer.status_code == code, answer.text
        return answer

    return send
