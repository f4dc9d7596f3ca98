"""What endpoints that may not answer can hold together, so that those which answer never wait behind them.

An endpoint is unproven when it did not answer the last time, or was never asked. Its attempts may last as long as the
timeout, and a few hundred of them could take every place there is: requests on the wire, and leases. So unproven
endpoints together have seven eighths of the places, and once they hold half of them, one each: an endpoint that comes
then still finds a place to prove that it answers. With fewer than eight places none is reserved for endpoints that
answer.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.engine.endpoint import Endpoint

__all__ = ["Grants", "Lines", "Places"]


class Places:
    """So many places in all: how many are taken, and how many of those by unproven endpoints."""

    __slots__ = ("_freely", "_most", "taken", "total", "unproven")

    def __init__(self, total: int) -> None:
        spare = total // 8
        self._freely, self._most = total - 4 * spare, total - spare
        self.total = total
        self.taken = 0
        self.unproven = 0

    def take(self, endpoint: Endpoint) -> None:
        """Count a place for this endpoint."""
        self.taken += 1
        if not endpoint.answers:
            self.unproven += 1

    def give_back(self, endpoint: Endpoint) -> None:
        """Count one place less for this endpoint."""
        self.taken -= 1
        if not endpoint.answers:
            self.unproven -= 1

    def reclassify(self, places: int, *, answers: bool) -> None:
        """Count the places of an endpoint that just began or ceased to answer on the other side."""
        self.unproven += -places if answers else places

    def allowance(self, own: int, promised: int = 0) -> int:
        """Return how many more an unproven endpoint may have that holds `own`, when others are promised so many."""
        unproven = self.unproven + promised
        if unproven < self._freely:
            return self._freely - unproven
        return 1 if not own and unproven < self._most else 0


class Grants:
    """What may be leased in one batch; made anew for each, since endpoints learn of their leases at its end only."""

    __slots__ = ("_leases", "_promised")

    def __init__(self, leases: Places) -> None:
        self._leases = leases
        self._promised = 0

    def take(self, endpoint: Endpoint, taken: int) -> bool:
        """Tell whether an endpoint, which took so many in this batch, may lease one more; it is then taken."""
        if endpoint.answers:
            return True
        may = self._leases.allowance(endpoint.leased + taken, self._promised) > 0
        self._promised += may
        return may

    def promise(self, endpoint: Endpoint) -> int:
        """Promise an endpoint as many leases as it may have, 0 or more, and return how many."""
        if endpoint.answers or endpoint.free <= 0:
            return max(0, endpoint.free)
        granted = min(endpoint.free, self._leases.allowance(endpoint.leased, self._promised))
        self._promised += granted
        return granted


class Lines:
    """Which endpoints wait for a place among the requests on the wire: unproven ones in a line of their own."""

    __slots__ = ("_lines", "_requests", "_turn")

    def __init__(self, requests: Places) -> None:
        self._requests = requests
        self._lines: dict[bool, deque[Endpoint]] = {True: deque(), False: deque()}  # by whether the endpoint answers
        self._turn = True

    def append(self, endpoint: Endpoint) -> None:
        """Put an endpoint that may send at the end of its line, once."""
        if endpoint.may_send and not endpoint.queued:
            endpoint.queued = True
            self._lines[endpoint.answers].append(endpoint)

    def next(self) -> Endpoint | None:
        """Return whose turn it is, of both lines in turn; unproven ones stand still while they hold all they may.

        An unproven endpoint that has its one place steps out: it is appended again when that attempt ends.
        """
        while line := self._next_line():
            endpoint = line.popleft()
            endpoint.queued = False
            if endpoint.may_send and (endpoint.answers or self._requests.allowance(endpoint.sending)):
                return endpoint
        return None

    def move(self, endpoint: Endpoint) -> None:
        """Let an endpoint that began or ceased to answer stand in the other line."""
        if endpoint.queued:
            self._lines[not endpoint.answers].remove(endpoint)
            self._lines[endpoint.answers].append(endpoint)

    def _next_line(self) -> deque[Endpoint] | None:
        unproven = self._lines[False] if self._requests.allowance(0) else None
        self._turn = not self._turn
        return (self._lines[True] or unproven) if self._turn else (unproven or self._lines[True])
