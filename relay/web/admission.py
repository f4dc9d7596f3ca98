"""How many requests are worked on at once: fewer than connections, so that none waits for one that waits for it.

A request takes a thread for each of its parts and keeps its connection in between. With more requests than connections
all threads would wait for a connection, and those who have one for a thread.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

__all__ = ["KEPT_CONNECTIONS", "Admission", "admitted"]

KEPT_CONNECTIONS = 10
_SPARE = 2  # for who signs in, and for pages that renew themselves


class Admission:
    """Lets in so many at once; the others wait for their turn."""

    def __init__(self) -> None:
        self._places: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def places(self) -> asyncio.Semaphore:
        """Return the places of the running loop."""
        loop = asyncio.get_running_loop()
        if self._places is None or self._loop is not loop:
            self._places, self._loop = asyncio.Semaphore(KEPT_CONNECTIONS - _SPARE), loop
        return self._places


@asynccontextmanager
async def admitted(request: Request) -> AsyncIterator[None]:
    """Wait for a place; have read the body before, or a slow one holds it."""
    admission: Admission = request.app.state.admission
    async with admission.places():
        yield
