"""Ask the filters of one kind about an event: in the loop while that is quick, in another process where it may not be.

A filter has 10,000 steps in the loop, which are 3 ms at most; the loop is let go between two filters. Where one of them
needs more, or the payload is large, all are asked in the process for what is large, with the steps that the payload
allows. The answers are the same. Without that process, or soon after it ended or failed over the same filters, they are
asked in a thread: fan_out must go on, and no event may lose a match. Only where an event needs more memory than the
process may have do they give up on it, since nothing would bound what it takes in the relay.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING

from outbox.subscriptions.filters import Answer, FilteredEvent, FilterSet
from relay.engine.filter_answers import answer_all, answered
from relay.message.evaluator_process.evaluator import DEADLINE_SECONDS, LARGE_BYTES, EvaluatorError, NotStartedError
from relay.message.evaluator_process.requests import (
    MADE,
    REFUSED,
    UNKNOWN,
    UnexpectedError,
    content_of,
    filters_request,
)

if TYPE_CHECKING:
    from relay.message.evaluator_process.evaluator import Evaluator
    from relay.model.event import EventParts
    from relay.store.filters import Answers

__all__ = ["Asking"]

log = logging.getLogger("relay.evaluator")

HOLD_SECONDS = 0.001  # the loop is let go after so long; one filter may take three milliseconds more
NOT_AGAIN_SECONDS = 300.0  # the process may have ended, by chance or a kill, over filters that are not the cause
SPARED_MAX = 1000
SAID_EVERY_SECONDS = 10.0


class Asking:
    """Asks the filters of one engine. `evaluator`: the process that is asked about what is large."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._let_go_at = 0.0
        self._spared_until: dict[bytes, float] = {}  # what the process ended or failed over, which it would again
        self._said_at = -SAID_EVERY_SECONDS

    async def ask(self, parts: EventParts, filters: FilterSet) -> Answers:
        """Ask these filters about one event; let the loop go meanwhile."""
        found = await self._ask_here(parts, filters) if len(parts.payload) < LARGE_BYTES else None
        if found is None:
            found = await self._ask_evaluator(parts, filters)
        return answered(filters, found)

    async def _ask_here(self, parts: EventParts, filters: FilterSet) -> list[tuple[bytes, Answer]] | None:
        """Return their answers; None where one needs more steps than it may take here."""
        event = FilteredEvent(
            parts.type.decode(), parts.payload, key=parts.key, metadata=parts.metadata, steps_a_byte=0
        )
        found: list[tuple[bytes, Answer]] = []
        for name, one in filters.candidates(event):
            answer = one.answer(event)
            if answer is Answer.OVER_BUDGET:
                return None
            if answer is not Answer.NO_MATCH:
                found.append((name, answer))
            if time.monotonic() > self._let_go_at:
                await asyncio.sleep(0)
                self._let_go_at = time.monotonic() + HOLD_SECONDS
        return found

    async def _ask_evaluator(self, parts: EventParts, filters: FilterSet) -> list[tuple[bytes, Answer]]:
        if time.monotonic() >= self._spared_until.get(filters.digest, 0.0):
            try:
                async with self._evaluator.turn(None) as turn:
                    return await _ask_process(turn, parts, filters)
            except EvaluatorError:
                self._spare(filters)
            except UnexpectedError as error:
                self._spare(filters)
                self._say(error)
            except NotStartedError:
                pass  # the log says it
        event = FilteredEvent(parts.type.decode(), parts.payload, key=parts.key, metadata=parts.metadata)
        return await asyncio.to_thread(lambda: list(answer_all(filters, event)))

    def _spare(self, filters: FilterSet) -> None:
        """Do not ask the process by these for a while."""
        self._spared_until.pop(filters.digest, None)
        if len(self._spared_until) >= SPARED_MAX:
            del self._spared_until[next(iter(self._spared_until))]
        self._spared_until[filters.digest] = time.monotonic() + NOT_AGAIN_SECONDS

    def _say(self, error: UnexpectedError) -> None:
        now = time.monotonic()
        if now >= self._said_at + SAID_EVERY_SECONDS:
            self._said_at = now
            log.error(
                "filters are asked in the relay: the process for large transformations, filters and formats: %s", error
            )


async def _ask_process(evaluator: Evaluator, parts: EventParts, filters: FilterSet) -> list[tuple[bytes, Answer]]:
    """Ask the process. It knows the filters that it was asked last, and is told them where it does not.

    All give up where the event needs more memory than the process may have.
    """
    kind, content = content_of(await evaluator.ask(filters_request(filters.digest, None, parts), DEADLINE_SECONDS))
    if kind == REFUSED:
        return [(name, Answer.OVER_BUDGET) for name in filters.names]
    if kind == UNKNOWN:
        request = filters_request(filters.digest, filters.texts, parts)
        kind, content = content_of(await evaluator.ask(request, DEADLINE_SECONDS))
    if kind != MADE:  # also REFUSED: the filters, not the event, may be what needs the memory
        raise UnexpectedError(content.decode())
    return [(bytes.fromhex(name), Answer(answer)) for name, answer in json.loads(content)]
