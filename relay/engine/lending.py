"""Lend the places of requests that wait for this machine, not for their endpoints, to other requests meanwhile.

Who comes back waits until a place is free, and has it before any request that has not begun. So there are never more
requests on the wire than places.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from relay.message.evaluator_process.large_bodies import TooLateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.engine.fairness import Places

__all__ = ["Lending"]


class _Lender(NamedTuple):
    unproven: bool  # when it lent, and so when it comes back: what was widened is narrowed
    back: asyncio.Future[None]


class Lending:
    """The places that are lent: each is one more until whoever lent it comes back."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._returning: list[_Lender] = []

    @asynccontextmanager
    async def lent(self, *, unproven: bool, start_by: float) -> AsyncIterator[None]:
        """Lend a place for a block, and wait at its end until one is free; where the block raises, it needs none.

        Raises TooLateError where none is until the monotonic time `start_by`.
        """
        lender = _Lender(unproven, asyncio.get_running_loop().create_future())
        self._places.widen(1, unproven=unproven)
        try:
            yield
            self._returning.append(lender)
            self.take_back()
            if not lender.back.done():
                await asyncio.wait([lender.back], timeout=max(0.0, start_by - time.monotonic()))
            if not lender.back.done():
                raise TooLateError
        finally:
            if not lender.back.done():
                self._places.widen(-1, unproven=unproven)
                if lender in self._returning:
                    self._returning.remove(lender)

    def take_back(self) -> None:
        """Give the places that are free to those that come back, in their order."""
        for lender in list(self._returning):
            if self._places.has_one(unproven=lender.unproven):
                self._returning.remove(lender)
                self._places.widen(-1, unproven=lender.unproven)
                lender.back.set_result(None)
