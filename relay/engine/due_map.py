"""The due map: the subscriptions that are known to have due deliveries, in the order in which they are claimed for.

It is a hint. The sweep finds a subscription that is missing; one too many costs an empty claim.
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

    def add(self, subscription_id: bytes) -> None:
        """Add a subscription; one that is here already keeps its place."""
        self._ids[subscription_id] = None

    def add_all(self, subscription_ids: Iterable[bytes]) -> None:
        """Add subscriptions; those that are here already keep their places."""
        self._ids.update(dict.fromkeys(subscription_ids))

    def move_on(self, subscription_id: bytes, *, more: bool) -> None:
        """After a claim, drop its subscription, or put it last when there may be more."""
        del self._ids[subscription_id]
        if more:
            self._ids[subscription_id] = None

    def clear(self) -> None:
        """Drop every subscription."""
        self._ids.clear()

    def drop(self, unwanted: Iterable[bytes]) -> None:
        """Drop these subscriptions."""
        for subscription_id in unwanted:
            del self._ids[subscription_id]
