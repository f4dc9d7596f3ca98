"""Run the application on uvicorn until a signal: answer what is under way, take nothing new."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from relay.config.option import ConfigError
from relay.telemetry.listener import require_metrics
from relay.telemetry.logs import set_up_logging
from relay.web.app import create_app
from relay.web.forwarding import Forwarding
from relay.web.health import monitored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.config.options import Config

__all__ = ["serve"]

log = logging.getLogger("relay.web")

_CONNECTIONS_MAX = 1000  # more are answered 503


def serve(config: Config) -> int:
    """Serve until SIGTERM or SIGINT, then answer what is under way within `drain_seconds`. Return the exit code.

    Raises:
        ConfigError: an address cannot be listened on, or metrics cannot be made.
        SchemaError: the schema does not fit. Nothing listens then.
    """
    set_up_logging(config)
    require_metrics(config)
    app = create_app(config)
    with app.state.database.transaction():
        pass  # a wrong address or schema is told now, not to the first caller
    with _listen(config.listen) as listener:
        server = _Server(
            uvicorn.Config(
                Forwarding(app),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                proxy_headers=False,
                http="h11",  # which bounds the head of a request
                limit_concurrency=_CONNECTIONS_MAX,
                timeout_graceful_shutdown=config.drain_seconds,
            )
        )
        asyncio.run(_serve(server, listener, config))
    app.state.database.close()
    log.info("serving ended")
    return 0


async def _serve(server: uvicorn.Server, listener: socket.socket, config: Config) -> None:
    host, port = listener.getsockname()[:2]
    async with monitored(config):
        log.info("serving on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        await server.serve(sockets=[listener])


def _listen(address: tuple[str, int]) -> socket.socket:
    host, port = address
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ConfigError(
            f"listen: cannot listen on {host}:{port}: {reason}; stop what listens there, or give another --listen"
        ) from None


class _Server(uvicorn.Server):
    """Ends by a signal with exit code 0; uvicorn's own would raise the signal again at the end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first SIGTERM or SIGINT; at the second, leave at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
