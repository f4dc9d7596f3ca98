"""Share the bytes of bodies that one process holds between endpoints, as fairness.py shares places.

Bodies that wait for slow endpoints could fill the memory meant for all. So:

- A small delivery (SMALL_BYTES) costs nothing here: it is paid for by its lease, of which there is a bounded number.
  However full the room is, it goes out.
- Up to half of the room anybody may take. From there on each endpoint has a share, a sixteenth of the room.
- The last eighth is for endpoints that hold nothing; each takes a little, and at least one delivery.
- Unproven endpoints (fairness.py) together have seven eighths, and from half on one delivery each.
- The endpoints of one tenant together have seven eighths of all this, as soon as there are several tenants.
- A huge delivery (HUGE_BYTES) is larger than a share. It is not counted in the room at all; one goes to an endpoint
  that answers and one to an unproven endpoint at a time, so that it delays only others of its kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.model.delivery import HUGE_BYTES, SMALL_BYTES

if TYPE_CHECKING:
    from relay.engine.endpoint import Endpoint
    from relay.engine.tenants import Tenants, TenantUse

__all__ = ["ByteGrants", "ByteRoom", "ByteShare"]


class ByteShare(NamedTuple):
    """What a subscription may get in one claim: bytes of bodies that are not small, and whether a huge one."""

    bytes: int
    huge: bool


class ByteRoom:
    """Counts bytes: how many there are, how many are taken, how many of those by unproven endpoints; and huge ones."""

    __slots__ = ("huge", "taken", "total", "unproven")

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self.unproven = 0
        self.huge = {True: 0, False: 0}  # by whether the endpoint answers

    def take(self, endpoint: Endpoint, size: int) -> None:
        """Count a delivery of this endpoint."""
        if size > SMALL_BYTES:
            self._count(endpoint, size, 1)

    def give_back(self, endpoint: Endpoint, size: int) -> None:
        """Count a delivery of this endpoint no more."""
        if size > SMALL_BYTES:
            self._count(endpoint, size, -1)

    def reclassify(self, endpoint: Endpoint, *, answers: bool) -> None:
        """Count what an endpoint holds, which just became proven (`answers`) or unproven, on the other side."""
        moved = -endpoint.bytes if answers else endpoint.bytes
        self.unproven += moved
        endpoint.tenant.unproven_bytes += moved
        self.huge[answers] += endpoint.huge
        self.huge[not answers] -= endpoint.huge

    def _count(self, endpoint: Endpoint, size: int, sign: int) -> None:
        if size > HUGE_BYTES:
            endpoint.huge += sign
            self.huge[endpoint.answers] += sign
            return
        endpoint.bytes += sign * size
        endpoint.tenant.bytes += sign * size
        self.taken += sign * size
        if not endpoint.answers:
            self.unproven += sign * size
            endpoint.tenant.unproven_bytes += sign * size


class ByteGrants:
    """Counts what one batch promises, since endpoints count what they hold only after the batch.

    `asked`: how many endpoints are in the batch; what is free below half of the room is divided by so many. `tenants`:
    whose endpoints share the room; None bounds no tenant.
    """

    __slots__ = ("_asked", "_by_tenant", "_own", "_room", "_taken", "_tenants", "_unproven")

    def __init__(self, room: ByteRoom, asked: int = 1, tenants: Tenants | None = None) -> None:
        self._room = room
        self._tenants = tenants if tenants is not None and tenants.several else None  # None: nobody else is there
        self._by_tenant: dict[tuple[TenantUse, bool], int] = {}  # promised to those that answer, and to the others
        self._asked = max(1, asked)
        self._taken, self._unproven = room.taken, room.unproven
        self._own: dict[Endpoint, int] = {}

    def take(self, endpoint: Endpoint, size: int) -> bool:
        """Tell whether one more delivery of this size may be leased for an endpoint; if it may, count it.

        A huge one may not: only a claim leases it.
        """
        if size <= SMALL_BYTES:
            return True
        own = self._own.get(endpoint, endpoint.bytes)
        if size > HUGE_BYTES or self._allowance(own, endpoint, answers=endpoint.answers) <= 0:
            return False
        self._own[endpoint] = own + size
        self._promise(size, endpoint, answers=endpoint.answers)
        return True

    def promise(self, endpoint: Endpoint | None) -> ByteShare | None:
        """Promise an endpoint its share; None: it is not in memory yet.

        Returns:
            None when it holds all that it may have: what it has due would be large again, and waits.
        """
        own, answers = (endpoint.bytes, endpoint.answers) if endpoint else (0, False)
        granted = self._allowance(own, endpoint, answers=answers)
        if not granted and own:
            return None
        self._promise(granted, endpoint, answers=answers)
        return ByteShare(granted, not self._room.huge[answers])

    def _promise(self, size: int, endpoint: Endpoint | None, *, answers: bool) -> None:
        if self._tenants and endpoint:
            whose = (endpoint.tenant, answers)
            self._by_tenant[whose] = self._by_tenant.get(whose, 0) + size
        self._taken += size
        if not answers:
            self._unproven += size

    def _allowance(self, own: int, endpoint: Endpoint | None, *, answers: bool) -> int:
        """Return how many more bytes an endpoint with `own` bytes may take, for itself and for its tenant."""
        left = self._room_for(own, answers=answers)
        if left <= 0 or not self._tenants or not endpoint:
            return left
        left = min(left, self._left_of(self._tenants, endpoint.tenant, answers=answers))
        return left if not own or left >= self._room.total // 64 else 0

    def _left_of(self, tenants: Tenants, tenant: TenantUse, *, answers: bool) -> int:
        total, unproven = self._room.total, self._by_tenant.get((tenant, False), 0)
        left = tenants.most(total) - tenant.bytes - unproven - self._by_tenant.get((tenant, True), 0)
        if not answers:
            left = min(left, tenants.most(total - total // 8) - tenant.unproven_bytes - unproven)
        return max(0, left)

    def _room_for(self, own: int, *, answers: bool) -> int:
        """Return how many more bytes the room has for an endpoint with `own` bytes."""
        total, taken = self._room.total, self._taken
        half, most, share, little = total // 2, total - total // 8, total // 16, total // 64
        common = (half - taken) // self._asked
        if own:
            left = min(most - taken, max(common, share - own))
            left = left if answers else min(left, half - self._unproven)
            return left if left >= little else 0  # a statement for every few bytes that come free would cost more
        left = total - taken if answers else min(total - taken, most - self._unproven)
        return max(0, min(left, max(common, little)))
