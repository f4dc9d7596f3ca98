"""A tiny HTTP listener for health and metrics: GET and HEAD, one request a connection, nothing else."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from relay.config.option import ConfigError
from relay.telemetry import metrics
from relay.telemetry.health import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.config.kinds import ListenAddress
    from relay.config.options import Config
    from relay.telemetry.health import Health

__all__ = ["listen", "require_metrics"]

log = logging.getLogger("relay.telemetry")

HEAD_MAX_BYTES = 16 * 1024
PATIENCE_SECONDS = 5.0  # for the request, and for who reads the answer
AT_ONCE = 16
_BAD = Answer(400, "text/plain", b"send GET /live, /ready or /metrics\n")
_BUSY = Answer(503, "text/plain", b"too many requests at once\n")


def require_metrics(config: Config) -> None:
    """Raise ConfigError where metrics are asked for and cannot be made."""
    if config.metrics_listen and not metrics.is_installed():
        raise ConfigError(
            "metrics_listen: needs prometheus-client; pip install 'outbox-relay[metrics]', or leave it out"
        )


@asynccontextmanager
async def listen(health: Health, address: ListenAddress) -> AsyncIterator[int]:
    """Answer on this address while the block runs; yield the port. Raises ConfigError where it cannot listen."""
    listener = _Listener(health)
    try:
        server = await asyncio.start_server(listener.serve, *address, limit=HEAD_MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"metrics_listen: cannot listen on {address}: {error.strerror or error}") from None
    bound: int = server.sockets[0].getsockname()[1]
    log.info("health and metrics on http://%s/ready", address._replace(port=bound))
    try:
        yield bound
    finally:
        server.close()


class _Listener:
    def __init__(self, health: Health) -> None:
        self._health = health
        self._at_once = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close the connection, whatever the other side does."""
        self._at_once += 1
        try:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                method, answer = await self._answer(head)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    writer.write(_written(answer, with_body=method != "HEAD"))
                    await writer.drain()
        finally:
            self._at_once -= 1
            writer.close()

    async def _answer(self, head: bytes) -> tuple[str, Answer]:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD") or not path.startswith("/"):
            return method, _BAD
        if path == "/live":  # at once, also while others wait for the database
            return method, self._health.live()
        if self._at_once > AT_ONCE:
            return method, _BUSY
        return method, await asyncio.to_thread(self._health.answer, path)


def _written(answer: Answer, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if with_body else b"")
