"""Every sender test runs on asyncio's own loop and on uvloop."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from relay.http import AddressPolicy, DirectDialler, HttpSender
from relay.http.tls import default_ssl_context

LOOPBACK = AddressPolicy(["127.0.0.0/8"], allow_http=True)
REFUSED_BY_URL = [
    ("http://hooks.example.com/", "allow_http"),
    ("https://hooks.example.com:25/", "port 25"),
    ("https://localhost/", "private network"),
    ("https://169.254.169.254/", "link-local"),
    ("https://[::1]/", "2000::/3"),
]
"""What the usual policy refuses whatever the name resolves to, and a word of the reason."""


@functools.cache
def usual_context() -> ssl.SSLContext:
    """The context that a sender makes where it is given none; nobody changes it. Making one takes long."""
    return default_ssl_context()


def descriptors() -> int:
    """Count this process's open file descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


MakeSender = Callable[..., HttpSender]


@pytest.fixture
async def make_sender() -> AsyncIterator[MakeSender]:
    """Make senders that may dial 127.0.0.0/8 over http; they are closed after the test.

    With `ssl_context=None` one makes its own context, of the authorities that the machine has by then.
    """
    async with AsyncExitStack() as stack:

        def make(policy: AddressPolicy = LOOPBACK, resolve: Any = None, **options: Any) -> HttpSender:
            if "ssl_context" not in options:
                options["ssl_context"] = usual_context()
            sender = HttpSender(DirectDialler(policy, resolve), user_agent="outbox-relay/test", **options)
            stack.push_async_callback(sender.close)
            return sender

        yield make


@pytest.fixture
async def sender(make_sender: MakeSender) -> HttpSender:
    return make_sender()
