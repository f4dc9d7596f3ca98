"""The due map: the subscriptions that are known to have due deliveries, in the order in which they are claimed for.

Tenants take turns, and each tenant's subscriptions among themselves: a tenant with thousands of them is one tenant.
It is a hint. The sweep finds a subscription that is missing; one too many costs an empty claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Set as AbstractSet

__all__ = ["DueMap"]


class DueMap:
    """Ids of subscriptions, each once, by tenant; `tenant_of` tells whose one is, None where it is not known yet."""

    __slots__ = ("_groups", "_tenant_of", "_tenants")

    def __init__(self, tenant_of: Callable[[bytes], str | None]) -> None:
        self._tenant_of = tenant_of
        self._tenants: dict[bytes, str | None] = {}  # of each id, as it was when the id was added
        self._groups: dict[str | None, dict[bytes, None]] = {}  # dicts keep the order, and find and drop at once

    def __len__(self) -> int:
        return len(self._tenants)

    def __iter__(self) -> Iterator[bytes]:
        if len(self._groups) == 1:
            (ids,) = self._groups.values()
            return iter(ids)
        return _in_turns(self._groups.values())

    def without(self, ids: AbstractSet[bytes]) -> Iterator[bytes]:
        """Yield those that are not among these ids, of which it is known whose they are, in their turns."""
        groups = (group for tenant, group in self._groups.items() if tenant is not None)
        return _in_turns([[i for i in group if i not in ids] if ids else group for group in groups])

    def __contains__(self, subscription_id: bytes) -> bool:
        return subscription_id in self._tenants

    def add(self, subscription_id: bytes) -> None:
        """Add a subscription; one that is here already keeps its place."""
        if subscription_id not in self._tenants:
            tenant = self._tenants[subscription_id] = self._tenant_of(subscription_id)
            self._groups.setdefault(tenant, {})[subscription_id] = None

    def add_all(self, subscription_ids: Iterable[bytes]) -> None:
        """Add subscriptions; those that are here already keep their places."""
        for subscription_id in subscription_ids:
            self.add(subscription_id)

    @property
    def unread(self) -> Iterable[bytes]:
        """The ids of which it was not known whose they are when they were added, in their order."""
        return self._groups.get(None, ())

    def rejoin(self, subscription_ids: Iterable[bytes]) -> None:
        """Put subscriptions last among the others of their tenant, now that it is known."""
        for subscription_id in subscription_ids:
            if subscription_id in self._tenants:
                self._remove(subscription_id)
                self.add(subscription_id)

    def tenant_of(self, subscription_id: bytes) -> str | None:
        """Return whose a subscription that is here was when it was added; None where that was not known."""
        return self._tenants[subscription_id]

    def move_on(self, subscription_id: bytes, *, more: bool) -> None:
        """After a claim, drop its subscription, or put it last when there may be more; its tenant is last, too."""
        tenant = self._remove(subscription_id)
        if more:
            self.add(subscription_id)
        if (ids := self._groups.pop(tenant, None)) is not None:
            self._groups[tenant] = ids

    def clear(self) -> None:
        """Drop every subscription."""
        self._tenants.clear()
        self._groups.clear()

    def drop(self, unwanted: Iterable[bytes]) -> None:
        """Drop these subscriptions."""
        for subscription_id in unwanted:
            self._remove(subscription_id)

    def _remove(self, subscription_id: bytes) -> str | None:
        tenant = self._tenants.pop(subscription_id)
        ids = self._groups[tenant]
        del ids[subscription_id]
        if not ids:
            del self._groups[tenant]
        return tenant


def _in_turns(groups: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Yield one of each group, then the second of each, and so on."""
    rounds = [iter(ids) for ids in groups]
    while len(rounds) > 1:
        left = []
        for ids in rounds:
            if (subscription_id := next(ids, None)) is not None:
                left.append(ids)
                yield subscription_id
        rounds = left
    for ids in rounds:
        yield from ids
