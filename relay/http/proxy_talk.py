"""The connection to an egress proxy until the tunnel through it stands."""

from __future__ import annotations

import asyncio
from typing import cast

from relay.http.dial import DialError
from relay.http.response import ONLY_HTTP2, speaks_http2
from relay.model.outcome import OutcomeKind

__all__ = ["ProxyTalk"]


class ProxyTalk(asyncio.Protocol):
    """What is said with the proxy until the tunnel stands; `received` is what nobody has taken yet."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.received = bytearray()
        self._has_ended = False
        self._news = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Say this to the proxy."""
        self.transport.write(data)

    async def listen(self) -> None:
        """Wait until more has come; raises ConnectionError when nothing will."""
        self._news.clear()
        if not self._has_ended:
            await self._news.wait()
        if self._has_ended:
            raise ConnectionResetError("the proxy closed the connection")

    async def take(self, length: int) -> bytes:
        """Return the next so many bytes and no more."""
        while len(self.received) < length:
            await self.listen()
        taken = bytes(self.received[:length])
        del self.received[:length]
        return taken

    def check_silence(self) -> None:
        """Raise DialError when more came than was waited for, or the other side has gone."""
        if self.received:
            early = "bytes came through the egress proxy before the request was sent"
            raise DialError(OutcomeKind.PROTOCOL, ONLY_HTTP2 if speaks_http2(self.received) else early)
        if self._has_ended:
            raise DialError(OutcomeKind.CONNECTION, "the egress proxy closed the tunnel before the request was sent")

    def close(self) -> None:
        """Close at once."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self.received += data
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - what matters is that it ended
        """Wake whoever listens."""
        self._has_ended = True
        self._news.set()
