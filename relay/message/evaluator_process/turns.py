"""Take turns at something that one can use at a time: first tenants in rotation, then a tenant's own in their order.

Who belongs to no tenant, None, has the next turn in any case.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Turns"]


class Turns:
    """Who has the turn, and who waits for it. However many of one tenant wait, another one's comes next but one."""

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = False
        self._waiting: dict[str | None, deque[asyncio.Future[None]]] = {}  # in the order of the tenants' turns

    @asynccontextmanager
    async def of(self, tenant: str | None) -> AsyncIterator[None]:
        """Wait for a turn of this tenant, and hold it for a block. None: the next turn."""
        await self._take(tenant)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, tenant: str | None) -> None:
        if not self._taken:
            self._taken = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn came at the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            tenant = None if None in self._waiting else next(iter(self._waiting))
            waiting = self._waiting.pop(tenant)
            turn = waiting.popleft()
            if waiting:
                self._waiting[tenant] = waiting
            if not turn.cancelled():
                turn.set_result(None)
                return
        self._taken = False
