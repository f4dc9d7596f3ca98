"""The points of charts, over the windows that pages offer."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from relay.operations.recent_attempts import count_recent_attempts
from relay.web.pages.charts import Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

__all__ = ["WINDOWS", "Summary", "points_of", "summary_of", "window_named"]

WINDOWS = {"1h": (60, 60), "24h": (1800, 48), "7d": (4 * 3600, 42), "30d": (86_400, 30)}
"""The length of a point in seconds, and how many there are."""


def window_named(name: str) -> str:
    """Return a window's name; the last day where there is none of that name."""
    return name if name in WINDOWS else "24h"


def points_of(connection: Connection, tenant: str | None, window: str, subscription: str | None = None) -> list[Point]:
    """Return the points of one subscription, or of all that the tenant has."""
    seconds, buckets = WINDOWS[window]
    found = count_recent_attempts(connection, tenant, subscription=subscription, seconds=seconds, buckets=buckets)
    return [Point(**{one.name: getattr(bucket, one.name) for one in fields(Point)}) for bucket in found]


class Summary:
    """What the points say together."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.delivered = sum(one.delivered for one in points)
        self.failed = sum(one.failed for one in points)
        self.slowest = max((one.p99 for one in points if one.p99 is not None), default=None)
        counted = [(one.p50, one.delivered + one.failed) for one in points if one.p50 is not None]
        weight = sum(number for _, number in counted)
        self.typical = sum(value * number for value, number in counted) / weight if weight else None

    @property
    def success_percent(self) -> float | None:
        """The share of attempts that were delivered; None without an attempt."""
        attempts = self.delivered + self.failed
        return 100 * self.delivered / attempts if attempts else None


def summary_of(points: Sequence[Point]) -> Summary:
    """Return what the points say together."""
    return Summary(points)
