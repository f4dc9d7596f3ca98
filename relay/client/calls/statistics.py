"""Calls about counts: of what was delivered and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.statistics import Point, Statistics
from relay.client.calls.making import get_one

if TYPE_CHECKING:
    from relay.client.call import Call

__all__ = ["get_series", "get_statistics", "rank_statistics"]


def get_statistics(**filters: Any) -> Call[Statistics]:
    """Count what was delivered and what failed; filters: over, tenant, type, subscription."""
    return get_one(Statistics, "/statistics", **filters)


def rank_statistics(by: str, **filters: Any) -> Call[tuple[Statistics, ...]]:
    """The same of each subscription, tenant or type; filters: over, tenant, type, limit."""
    return get_one(tuple[Statistics, ...], "/statistics/ranking", by=by, **filters)


def get_series(**filters: Any) -> Call[tuple[Point, ...]]:
    """The same over time; filters: over, tenant, type, subscription, step_seconds."""
    return get_one(tuple[Point, ...], "/statistics/series", **filters)
