"""What endpoints that do not answer may hold together, so that those which do never wait behind them.

A stranger is an endpoint that did not answer the last time, or was never asked. Its attempts may last as long as the
timeout, and a few hundred strangers could hold every place there is: requests on the wire, and leases. So strangers
together have seven eighths of each stock, and once they hold half of it, one each: whoever comes then still finds room
to show that it answers. A stock of less than eight is nobody's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.engine.routes import Route

__all__ = ["Grants", "Lines", "Stock"]


class Stock:
    """So many places in all, and how many of them strangers hold."""

    __slots__ = ("_freely", "_most", "held")

    def __init__(self, places: int) -> None:
        spare = places // 8
        self._freely, self._most = places - 4 * spare, places - spare
        self.held = 0

    def allowance(self, own: int, promised: int = 0) -> int:
        """Return how many more a stranger may have that holds `own`, when others are promised so many."""
        held = self.held + promised
        if held < self._freely:
            return self._freely - held
        return 1 if not own and held < self._most else 0


class Grants:
    """What may be leased in one batch; made anew for each, since routes learn of their leases at its end only."""

    __slots__ = ("_leases", "_promised")

    def __init__(self, leases: Stock) -> None:
        self._leases = leases
        self._promised = 0

    def take(self, route: Route, taken: int) -> bool:
        """Tell whether a route, which took so many in this batch, may lease one more; it is then taken."""
        may = route.answers or self._leases.allowance(route.leased + taken, self._promised) > 0
        self._promised += may and not route.answers
        return may

    def to(self, route: Route) -> int:
        """Promise a route as many leases as it may have, 0 or more."""
        if route.answers or route.free <= 0:
            return max(0, route.free)
        granted = min(route.free, self._leases.allowance(route.leased, self._promised))
        self._promised += granted
        return granted


class Lines:
    """Who waits for a place among the requests on the wire: strangers in a line of their own."""

    __slots__ = ("_lines", "_turn", "requests")

    def __init__(self, requests: Stock) -> None:
        self.requests = requests
        self._lines: dict[bool, deque[Route]] = {True: deque(), False: deque()}  # by whether the endpoint answers
        self._turn = True

    def append(self, route: Route) -> None:
        """Put a route that may send at the end of its line, once."""
        if route.may_send and not route.queued:
            route.queued = True
            self._lines[route.answers].append(route)

    def next(self) -> Route | None:
        """Return whose turn it is, of both lines in turn; strangers stand still while they hold all they may.

        A stranger that has its one place steps out: it is appended again when that attempt ends.
        """
        while line := self._next_line():
            route = line.popleft()
            route.queued = False
            if route.may_send and (route.answers or self.requests.allowance(route.sending)):
                return route
        return None

    def change(self, route: Route) -> None:
        """Let a route that began or ceased to answer stand in the other line."""
        if route.queued:
            self._lines[not route.answers].remove(route)
            self._lines[route.answers].append(route)

    def _next_line(self) -> deque[Route] | None:
        strangers = self._lines[False] if self.requests.allowance(0) else None
        self._turn = not self._turn
        return (self._lines[True] or strangers) if self._turn else (strangers or self._lines[True])
