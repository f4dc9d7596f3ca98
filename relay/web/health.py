"""Health and metrics of `relay serve`: no token, but an address of their own, which belongs in a private network."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay.config.options import Config
from relay.operations.gauges import keep_gauges
from relay.telemetry import metrics
from relay.telemetry.health import Health
from relay.telemetry.listener import listen

__all__ = ["monitored"]


@asynccontextmanager
async def monitored(config: Config) -> AsyncIterator[None]:
    """Answer /live, /ready and /metrics while the block runs, if `metrics_listen` asks for it.

    It answers in the event loop that serves, so /live tells that this turns. What is due is a matter of relays: that
    much may wait, and `relay serve` is ready.
    """
    if not config.metrics_listen:
        yield
        return
    gauges = keep_gauges(config)
    registry = metrics.make_registry(gauges.get, lambda: 0)
    async with listen(Health(gauges.get, lambda: metrics.render(registry)), config.metrics_listen):
        yield
