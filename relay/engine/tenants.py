"""What each tenant holds of one process's places, and whose turn it is: tenants in rotation, then a tenant's endpoints.

As soon as a process has met two tenants, none may hold more than seven eighths of the places, nor of the bytes
(byte_shares.py): another tenant's next delivery finds some free, however many endpoints the first has. The same holds
for the places that unproven endpoints (fairness.py) may have: one whose endpoints all hang leaves some of these too.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from relay.engine.endpoint import Endpoint

__all__ = ["TenantUse", "Tenants", "Turns"]


class TenantUse:
    """How many leases and requests one tenant's endpoints hold in this process. They share it, and keep it alive.

    bytes: of the bodies of what is leased. unproven_…: what of these is for endpoints that do not answer.
    """

    __slots__ = ("__weakref__", "bytes", "leased", "queued", "sending", "unproven_bytes", "unproven_leased",
                 "unproven_sending")  # fmt: skip

    def __init__(self) -> None:
        self.leased = self.unproven_leased = 0
        self.sending = self.unproven_sending = 0
        self.bytes = self.unproven_bytes = 0
        self.queued: dict[bool, deque[Endpoint]] = {True: deque(), False: deque()}  # by whether the endpoint answers

    def reclassify(self, endpoint: Endpoint, *, answers: bool) -> None:
        """Count the places of an endpoint that just became proven (`answers`) or unproven on the other side."""
        sign = -1 if answers else 1
        self.unproven_leased += sign * endpoint.leased
        self.unproven_sending += sign * endpoint.sending


class Tenants:
    """The tenants whose endpoints this process knows. `several`: whether there was ever more than one."""

    def __init__(self) -> None:
        self._uses: WeakValueDictionary[str, TenantUse] = WeakValueDictionary()
        self._first: str | None = None
        self.several = False

    def use_of(self, tenant: str) -> TenantUse:
        """Return what this tenant holds, nothing yet where its first endpoint has just become known."""
        if self._first is None:
            self._first = tenant
        self.several = self.several or tenant != self._first
        use = self._uses.get(tenant)
        if use is None:
            use = self._uses[tenant] = TenantUse()
        return use

    def most(self, total: int) -> int:
        """Return how many of so many places one tenant may hold."""
        return total - total // 8 if self.several else total


class Turns:
    """Endpoints in the queue: one of each tenant in turn. All of them answer, or none (`answers`).

    ring: each tenant that has an endpoint queued, once.
    """

    __slots__ = ("_answers", "ring")

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self.ring: deque[TenantUse] = deque()

    def append(self, endpoint: Endpoint) -> None:
        """Put an endpoint behind the others of its tenant."""
        queued = endpoint.tenant.queued[self._answers]
        if not queued:
            self.ring.append(endpoint.tenant)
        queued.append(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """Take an endpoint out of the queue."""
        queued = endpoint.tenant.queued[self._answers]
        queued.remove(endpoint)
        if not queued:
            self.ring.remove(endpoint.tenant)

    def next(self, most: int, unproven_most: int) -> Endpoint | None:
        """Take the endpoint whose turn it is, of a tenant that has fewer than `most` requests on the wire.

        Among endpoints that do not answer, it also has fewer than `unproven_most` to such ones.
        """
        ring = self.ring
        for _ in range(len(ring)):
            tenant = ring[0]
            if tenant.sending >= most or (not self._answers and tenant.unproven_sending >= unproven_most):
                ring.rotate(-1)
                continue
            queued = tenant.queued[self._answers]
            endpoint = queued.popleft()
            if queued:
                ring.rotate(-1)
            else:
                ring.popleft()
            return endpoint
        return None
