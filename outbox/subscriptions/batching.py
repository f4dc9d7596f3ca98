"""Whether a subscription may have batches: that depends on its order and its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outbox import formats
from outbox.errors import SubscriptionError

__all__ = ["check_batching"]

_COLUMNS = {"batch_events", "ordered", "format"}


def check_batching(values: Mapping[str, Any], row: Any = None) -> None:
    """Raise SubscriptionError where batches do not fit to order or format.

    Args:
        values: the columns that are given.
        row: what is stored; None where nothing is.
    """
    stored = {name: getattr(row, name) for name in _COLUMNS} if row is not None else {}
    after = {"batch_events": None, "ordered": False, "format": "standard", **stored, **values}
    if after["batch_events"] is None or not values.keys() & _COLUMNS:
        return
    if after["ordered"]:
        raise SubscriptionError(
            "batch_events: an ordered subscription sends the events of a key one at a time; give ordered=False,"
            " or leave batch_events out"
        )
    if not formats.named(after["format"]).batch:
        able = ", ".join(name for name, form in formats.FORMATS.items() if form.batch)
        raise SubscriptionError(
            f"batch_events: the format {after['format']} takes one event at a time; leave batch_events out, or choose"
            f" one of {able}"
        )
