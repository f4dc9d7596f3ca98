"""How many requests are worked on at once: fewer than connections, so that none waits for one that waits for it.

A request takes a thread for each of its parts and keeps its connection in between. With more requests than connections
all threads would wait for a connection, and those who have one for a thread.

A test or a check of an endpoint gives its place back while it awaits the network: an endpoint that hangs stops nobody.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from outbox.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

__all__ = ["KEPT_CONNECTIONS", "MOST_TRIALS_EACH", "Admission", "admitted", "awaiting_network"]

KEPT_CONNECTIONS = 10
_SPARE = 2  # for who signs in, and for pages that renew themselves
MOST_TRIALS_EACH = 4
"""How many tests and checks of one tenant await the network at once, in this process."""


class Admission:
    """Lets in so many at once; the others wait for their turn."""

    def __init__(self) -> None:
        self.trials: Counter[str | None] = Counter()
        self._places: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def places(self) -> asyncio.Semaphore:
        """Return the places of the running loop."""
        loop = asyncio.get_running_loop()
        if self._places is None or self._loop is not loop:
            self._places, self._loop = asyncio.Semaphore(KEPT_CONNECTIONS - _SPARE), loop
        return self._places


class _Place:
    """The place of one request, which may give it back and take one again."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._is_held = False

    async def take(self) -> None:
        await self._places.acquire()
        self._is_held = True

    def give_back(self) -> None:
        """Give it back; nothing where it is not held, as when the request ended while it waited for one again."""
        if self._is_held:
            self._is_held = False
            self._places.release()


@asynccontextmanager
async def admitted(request: Request) -> AsyncIterator[None]:
    """Wait for a place; have read the body before, or a slow one holds it."""
    admission: Admission = request.app.state.admission
    place = _Place(admission.places())
    await place.take()
    request.state.place = place
    try:
        yield
    finally:
        place.give_back()


@asynccontextmanager
async def awaiting_network(request: Request, tenant: str | None) -> AsyncIterator[None]:
    """Give the request's place back meanwhile, and wait for one at the end.

    Raises ProbeError where so many tests and checks of this tenant, None for the operator, await the network already.
    """
    trials: Counter[str | None] = request.app.state.admission.trials
    place: _Place = request.state.place
    if trials[tenant] >= MOST_TRIALS_EACH:
        raise ProbeError(f"test: {MOST_TRIALS_EACH} tests and checks are under way; wait until one of them has ended")
    trials[tenant] += 1
    place.give_back()
    try:
        yield
    finally:
        trials[tenant] -= 1
        trials += Counter()  # forgets who has none
        await place.take()
