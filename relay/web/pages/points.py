"""Statistics over the windows that pages offer, as figures and as points of charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox import statistics
from relay.web.pages.charts import Point

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from outbox.statistics import Statistics
    from outbox.subscriptions.checks import EveryTenant

__all__ = ["STEPS", "figures_of", "points_of", "window_named"]

STEPS = {"1h": 60, "24h": 1800, "7d": 4 * 3600, "30d": 86_400}
"""The windows, and how many seconds a point of each is long."""


def window_named(name: str) -> str:
    """Return a window's name; the last day where there is none of that name."""
    return name if name in STEPS else "24h"


def points_of(
    connection: Connection, whose: str | EveryTenant, window: str, subscription: str | None = None,
    *, of_type: str | None = None,
) -> list[Point]:  # fmt: skip
    """Return the points of one subscription, of one type of event, or of all that the tenant has."""
    seconds = STEPS[window]
    found = statistics.series(
        connection, whose, subscription=subscription, type=of_type, over=window, step_seconds=seconds
    )
    return [
        Point(start=one.start, seconds=seconds, delivered=one.delivered, failed=one.failed,
              p50=one.p50, p95=one.p95, p99=one.p99)
        for one in found
    ]  # fmt: skip


def figures_of(
    connection: Connection, whose: str | EveryTenant, window: str, subscription: str | None = None
) -> Statistics:
    """Return the same as one: how much, how well, how fast."""
    return statistics.read(connection, whose, subscription=subscription, over=window)
