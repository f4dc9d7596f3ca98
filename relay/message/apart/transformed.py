"""Transform a large event in the process that evaluates what is large."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from relay.message.apart.apart import DEADLINE_SECONDS, LARGE_BYTES, ApartError
from relay.message.apart.requests import REFUSED, content_of, transformation_request
from relay.message.transformation.budget import TransformationError
from relay.message.transformation.json_text import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from relay.message.apart.apart import Apart
    from relay.message.transformation.transformation import Transformation
    from relay.model.event import EventParts

__all__ = ["TooLateError", "is_large", "transformed"]


class TooLateError(Exception):
    """The time until which the result would have been of use passed while the question waited for its turn."""


def is_large(transformation: Transformation, event: EventParts) -> bool:
    """Tell whether making it could hold the loop for long."""
    is_long = LARGE_BYTES <= len(event.payload) <= MAX_PAYLOAD_BYTES  # beyond that it is refused unread
    return is_long and not transformation.kept(event)


async def transformed(
    transformation: Transformation, event: EventParts, apart: Apart, start_by: float = math.inf
) -> EventParts:
    """Return the same as `transformation.of(event)`, made by another process: the loop goes on meanwhile.

    Where the process ends over it, or takes too long, another one is asked: the cause may be this machine, which ran
    out of memory or was suspended.

    Args:
        transformation: what is made of the event.
        event: a large one, see `is_large`.
        apart: the way to the process.
        start_by: the monotonic time after which it is of no use.

    Raises:
        TransformationError: as `of`.
        ApartError: the process ended, or took too long, both times.
        NotStartedError: there is no such process, and none can be started now.
        TooLateError: its turn came too late.
    """
    try:
        return await _transformed(transformation, event, apart, start_by)
    except ApartError as error:
        first = error
    try:
        return await _transformed(transformation, event, apart, start_by)
    except ApartError as error:
        raise ApartError(f"the process that evaluates it {first}, and when asked again {error}") from None


async def _transformed(transformation: Transformation, event: EventParts, apart: Apart, start_by: float) -> EventParts:
    left = None if math.isinf(start_by) else max(0.0, start_by - time.monotonic())
    try:
        async with asyncio.timeout(left) as waiting, apart.turn(event.tenant) as turn:
            waiting.reschedule(None)  # a question that was asked is waited for, since the process would be ended
            if made := transformation.kept(event):  # while this one waited
                return made
            if time.monotonic() > start_by:
                raise TooLateError
            answer = await turn.ask(transformation_request(transformation.text, event), DEADLINE_SECONDS)
    except TimeoutError:
        raise TooLateError from None
    kind, content = content_of(answer)
    if kind == REFUSED:
        raise TransformationError(content.decode())
    return transformation.keep(event, content)
