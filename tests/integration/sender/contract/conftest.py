"""Every test here runs on each way out: what the sender promises is one contract."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import trustme

from relay.http import AddressPolicy, DirectDialler, HttpSender
from relay.http.tls import default_ssl_context
from relay.http.tunnel import TunnelDialler
from tests.integration.sender.conftest import LOOPBACK
from tests.support.proxies import Proxy, proxying
from tests.support.tls_server import server_context

NAME = "hooks.example.com"
"""A name that every sender of `make_sender` takes to 127.0.0.1."""


@dataclass(frozen=True)
class Way:
    """How a sender gets out. `proxy` is None for the direct one; the loops are spread over the ways to save time."""

    proxy: str | None
    uvloop: bool

    @property
    def address(self) -> str | None:
        """The address that an outcome names: another one, since a proxy dials out of sight."""
        return None if self.proxy else "127.0.0.1"


WAYS = [Way(None, False), Way(None, True), Way("http", True), Way("https", False), Way("https", True),
        Way("socks5", False)]  # fmt: skip


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.proxy or 'direct'}-{'uvloop' if way.uvloop else 'asyncio'}")
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


@pytest.fixture
def anyio_backend(way: Way) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": way.uvloop}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = default_ssl_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="session")
def proxy_certificate(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority.issue_cert("127.0.0.1"))


@pytest.fixture
async def proxy(way: Way, proxy_certificate: ssl.SSLContext) -> AsyncIterator[Proxy | None]:
    """The proxy on this way, which takes NAME to 127.0.0.1."""
    if way.proxy is None:
        yield None
        return
    encryption = {"ssl": proxy_certificate} if way.proxy == "https" else {}
    async with proxying(way.proxy, hosts={NAME: "127.0.0.1"}, **encryption) as running:
        yield running


MakeSender = Callable[..., HttpSender]


@pytest.fixture
async def make_sender(proxy: Proxy | None, trusting: ssl.SSLContext) -> AsyncIterator[MakeSender]:
    """Make senders that may send to 127.0.0.0/8 over http and trust the test's authority."""

    async def resolve(_: str) -> list[str]:
        return ["127.0.0.1"]

    async with AsyncExitStack() as stack:

        def make(policy: AddressPolicy = LOOPBACK, ssl_context: ssl.SSLContext | None = trusting) -> HttpSender:
            dialler = (
                DirectDialler(policy, resolve)
                if proxy is None
                else TunnelDialler(policy, proxy.address, ssl_context=trusting)
            )
            sender = HttpSender(dialler, user_agent="outbox-relay/test", ssl_context=ssl_context)
            stack.push_async_callback(sender.close)
            return sender

        yield make


@pytest.fixture
async def sender(make_sender: MakeSender) -> HttpSender:
    return make_sender()
