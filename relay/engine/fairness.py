"""Limit the places that unproven endpoints take together, so that endpoints which answer never wait behind them.

An endpoint is unproven when it did not answer the last time, was never asked, or answers after seconds (window.py). Its
attempts may last as long as the timeout, and a few hundred of them could take every place: requests on the wire, and
leases. So unproven endpoints together get at most seven eighths of the places. Once they hold half of them, each gets
one only: an endpoint that comes later still finds a place to prove that it answers. Of what unproven endpoints may
hold, those of one tenant get at most seven eighths, as soon as there are several tenants. With fewer than eight places
none is reserved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.engine.tenants import Turns

if TYPE_CHECKING:
    from relay.engine.byte_shares import ByteGrants, ByteShare
    from relay.engine.endpoint import Endpoint
    from relay.engine.slots import Slots
    from relay.engine.tenants import Tenants, TenantUse

__all__ = ["Grants", "Places", "Queues"]


class Places:
    """Counts places: how many there are, how many are taken, and how many of those by unproven endpoints."""

    __slots__ = ("_one_each_from", "taken", "total", "unproven", "unproven_max")

    def __init__(self, total: int) -> None:
        spare = total // 8
        self._one_each_from, self.unproven_max = total - 4 * spare, total - spare
        self.total = total
        self.taken = 0
        self.unproven = 0

    def take(self, endpoint: Endpoint) -> None:
        """Count a place for this endpoint."""
        self.taken += 1
        if not endpoint.window.proven:
            self.unproven += 1

    def give_back(self, endpoint: Endpoint) -> None:
        """Count one place less for this endpoint."""
        self.taken -= 1
        if not endpoint.window.proven:
            self.unproven -= 1

    def widen(self, places: int, *, unproven: bool) -> None:
        """Have so many places more, which `unproven` endpoints may take too; fewer where it is negative."""
        self.total += places
        if unproven:
            self._one_each_from += places
            self.unproven_max += places

    def has_one(self, *, unproven: bool) -> bool:
        """Tell whether a place is free for a proven or an `unproven` endpoint."""
        return self.taken < self.total and (not unproven or self.unproven < self.unproven_max)

    def reclassify(self, places: int, *, answers: bool) -> None:
        """Count the places of an endpoint that just became proven (`answers`) or unproven on the other side."""
        self.unproven += -places if answers else places

    def allowance(self, own: int, promised: int = 0) -> int:
        """Return how many more places an unproven endpoint with `own` places may take, with `promised` to others."""
        unproven = self.unproven + promised
        if unproven < self._one_each_from:
            return self._one_each_from - unproven
        return 1 if not own and unproven < self.unproven_max else 0


class Grants:
    """Counts what one batch promises to lease: endpoints count their leases only after the batch."""

    __slots__ = ("_by_tenant", "_bytes", "_leases", "_most", "_promised", "_slots", "_unproven_by_tenant",
                 "_unproven_most")  # fmt: skip

    def __init__(self, leases: Places, byte_grants: ByteGrants, tenants: Tenants) -> None:
        self._leases = leases
        self._bytes = byte_grants
        self._promised = 0
        self._most = tenants.most(leases.total) if tenants.several else 0  # 0: nobody else is there
        self._unproven_most = tenants.most(leases.unproven_max)
        self._by_tenant: dict[TenantUse, int] = {}
        self._unproven_by_tenant: dict[TenantUse, int] = {}
        self._slots: dict[Slots, int] = {}  # left of each limit, after what this batch was promised

    def take(self, endpoint: Endpoint, left: int, size: int) -> bool:
        """Tell whether an endpoint with `left` free slots in this batch may lease one more; if it may, count it.

        `size`: how many bytes the body has.
        """
        proven = endpoint.window.proven
        if self._most and self._left_of(endpoint.tenant, answers=proven) <= 0:
            return False
        if endpoint.gate is not None and not endpoint.gate.promise(1, self._slots):
            return False
        if not proven:
            own = endpoint.leased + endpoint.free - left
            if not self._leases.allowance(own, self._promised):
                return False
        may = self._bytes.take(endpoint, size)
        if may and (self._most or not proven):
            self._count(endpoint.tenant, 1, answers=proven)
        return may

    def promise_bytes(self, endpoint: Endpoint | None) -> ByteShare | None:
        """Promise an endpoint its share of the bytes; None when it holds all that it may have."""
        return self._bytes.promise(endpoint)

    def promise(self, endpoint: Endpoint) -> int:
        """Promise an endpoint as many leases as it may have, 0 or more, and return how many."""
        tenant, answers = endpoint.tenant, endpoint.answers
        free = min(endpoint.free, self._left_of(tenant, answers=answers)) if self._most else endpoint.free
        if endpoint.gate is not None and free > 0:
            free = endpoint.gate.promise(free, self._slots)
        if not answers and free > 0:
            free = min(free, self._leases.allowance(endpoint.leased, self._promised))
        granted = max(0, free)
        self._count(tenant, granted, answers=answers)
        return granted

    def promise_unread(self, tenant: TenantUse, *, answers: bool) -> int:
        """Promise one lease to an endpoint that is not known here any more, and return 1, or 0.

        `answers`: whether it did when it was.
        """
        if not answers and not self._leases.allowance(0, self._promised):
            return 0
        if self._most and self._left_of(tenant, answers=answers) <= 0:
            return 0
        self._count(tenant, 1, answers=answers)
        return 1

    def _left_of(self, tenant: TenantUse, *, answers: bool) -> int:
        """Return how many more leases a tenant may have for an endpoint of its."""
        left = self._most - tenant.leased - self._by_tenant.get(tenant, 0)
        if not answers:
            unproven = tenant.unproven_leased + self._unproven_by_tenant.get(tenant, 0)
            left = min(left, self._unproven_most - unproven)
        return left

    def _count(self, tenant: TenantUse, leases: int, *, answers: bool) -> None:
        if self._most:
            self._by_tenant[tenant] = self._by_tenant.get(tenant, 0) + leases
        if not answers:
            self._promised += leases
            self._unproven_by_tenant[tenant] = self._unproven_by_tenant.get(tenant, 0) + leases


class Queues:
    """The endpoints that wait for a place among the requests on the wire; unproven ones have turns of their own."""

    __slots__ = ("_proven", "_proven_next", "_requests", "_tenants", "_unproven")

    def __init__(self, requests: Places, tenants: Tenants) -> None:
        self._requests = requests
        self._tenants = tenants
        self._proven, self._unproven = Turns(answers=True), Turns(answers=False)
        self._proven_next = True

    def append(self, endpoint: Endpoint) -> None:
        """Put an endpoint that may send at the end of its queue, once."""
        if not endpoint.queued and endpoint.may_send:
            endpoint.queued = True
            (self._proven if endpoint.window.proven else self._unproven).append(endpoint)

    def next(self) -> Endpoint | None:
        """Take the next endpoint, from both kinds in turn. Unproven ones wait while they hold all that they may.

        An unproven endpoint that has its one place leaves the queue: it is appended again when that attempt ends.
        """
        requests, tenants = self._requests, self._tenants
        most, unproven_most = tenants.most(requests.total), tenants.most(requests.unproven_max)
        while endpoint := self._next(most, unproven_most):
            endpoint.queued = False
            if endpoint.may_send and (endpoint.window.proven or requests.allowance(endpoint.sending)):
                return endpoint
        return None

    def move(self, endpoint: Endpoint) -> None:
        """Move an endpoint that just became proven or unproven to the other queue."""
        if endpoint.queued:
            now, before = self._proven, self._unproven
            if not endpoint.window.proven:
                now, before = before, now
            before.remove(endpoint)
            now.append(endpoint)

    def _next(self, most: int, unproven_most: int) -> Endpoint | None:
        proven, unproven = self._proven, self._unproven
        if not unproven.ring or not self._requests.allowance(0):
            return proven.next(most, unproven_most)
        self._proven_next = not self._proven_next
        first, second = (proven, unproven) if self._proven_next else (unproven, proven)
        return first.next(most, unproven_most) or second.next(most, unproven_most)
