"""A client of the HTTP API: each call is a value with the type of its result, sent by `Client` or `AsyncClient`.

    from relay.client import Client, calls

    with Client("https://relay.internal", token) as relay:
        for item in relay.pages(calls.get_dead_letters(since="1d")):
            relay(calls.redrive_dead_letter(item.id))

So nothing is written twice for code with an event loop and code without. Needs the extra `client` (httpx).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.client.call import ApiError, ApiUnreachableError, Call

if TYPE_CHECKING:
    from relay.client import calls
    from relay.client.client import AsyncClient, Client

__all__ = ["ApiError", "ApiUnreachableError", "AsyncClient", "Call", "Client", "calls"]


def __getattr__(name: str) -> Any:
    """Load the clients when they are used: whoever only makes calls needs no httpx."""
    if name in ("AsyncClient", "Client"):
        from relay.client import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
