"""What a proxy says of a request: believed as uvicorn does, after the address that really connected is kept."""

import os

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

__all__ = ["Forwarding"]


class Forwarding:
    """Keeps the peer's address as `relay.peer` in the scope, and then takes X-Forwarded-For and -Proto.

    They are taken from the addresses in FORWARDED_ALLOW_IPS, 127.0.0.1 by default. They could name any address, so who
    may say who signs in is decided by the peer.
    """

    def __init__(self, app: ASGIApp) -> None:
        trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
        self._app = ProxyHeadersMiddleware(app, trusted_hosts=trusted)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""
        client = scope.get("client")
        scope["relay.peer"] = client[0] if client else None
        await self._app(scope, receive, send)  # type: ignore[arg-type]
