"""The due map: which subscriptions are known to have due deliveries, in the order in which they are asked for.

It is a hint. A subscription that is missing is found by the sweep, one too many costs an empty claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["DueMap"]


class DueMap:
    """Ids of subscriptions, each once, oldest first."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: dict[bytes, None] = {}  # a dict keeps the order of insertion, and finds and drops at once

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._ids)

    def __contains__(self, subscription_id: bytes) -> bool:
        return subscription_id in self._ids

    def add(self, *subscription_ids: bytes) -> None:
        """Note that these have something due; those known already keep their places."""
        self._ids.update(dict.fromkeys(subscription_ids))

    def asked(self, subscription_id: bytes, *, more: bool) -> None:
        """Take out a subscription that was asked for, or put it last when there may be more."""
        del self._ids[subscription_id]
        if more:
            self._ids[subscription_id] = None

    def keep(self, wanted: Iterable[bytes]) -> None:
        """Drop every subscription that is not among these."""
        self._ids = dict.fromkeys(wanted)
