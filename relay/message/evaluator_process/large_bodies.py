"""Transform a large event, or make its body in a format that parses it, in the process that evaluates what is large."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from relay.message.evaluator_process.evaluator import DEADLINE_SECONDS, LARGE_BYTES, EvaluatorError
from relay.message.evaluator_process.requests import REFUSED, content_of, format_request, transformation_request
from relay.message.formats import FormatError
from relay.message.transformation.budget import TransformationError
from relay.message.transformation.json_text import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.message.evaluator_process.evaluator import Evaluator
    from relay.message.formats import Formatter
    from relay.message.transformation.transformation import Transformation
    from relay.model.event import EventParts

__all__ = ["TooLateError", "formatted", "is_large", "is_large_for", "transformed"]


class TooLateError(Exception):
    """The time until which the result would have been of use passed while the question waited for its turn."""


def is_large(transformation: Transformation, event: EventParts) -> bool:
    """Tell whether making it could hold the loop for long."""
    is_long = LARGE_BYTES <= len(event.payload) <= MAX_PAYLOAD_BYTES  # beyond that it is refused unread
    return is_long and not transformation.kept(event)


def is_large_for(formatter: Formatter, event: EventParts) -> bool:
    """Tell whether making the event's body in this format could hold the loop for long, and needs little memory."""
    up_to = min(formatter.parses_up_to, MAX_PAYLOAD_BYTES)  # what is larger might need more than the process may have
    return LARGE_BYTES <= len(event.payload) <= up_to and formatter.kept(event) is None


async def transformed(
    transformation: Transformation, event: EventParts, evaluator: Evaluator, start_by: float = math.inf
) -> EventParts:
    """Return the same as `transformation.of(event)`, made by another process: the loop goes on meanwhile.

    Args:
        transformation: what is made of the event.
        event: a large one, see `is_large`.
        evaluator: the way to the process.
        start_by: the monotonic time after which it is of no use.

    Raises:
        TransformationError: as `of`.
        EvaluatorError: the process ended, or took too long, both times.
        NotStartedError: there is no such process, and none can be started now.
        TooLateError: its turn came too late.
    """

    def request() -> bytes | None:
        return None if transformation.kept(event) else transformation_request(transformation.text, event)

    answer = await _asked_twice("transformation", request, event.tenant, evaluator, start_by)
    if answer is None:
        return transformation.of(event)
    kind, content = answer
    if kind == REFUSED:
        raise TransformationError(content.decode())
    return transformation.keep(event, content)


async def formatted(formatter: Formatter, event: EventParts, evaluator: Evaluator, start_by: float = math.inf) -> None:
    """Let the event keep the same as `formatter.body_of(event)`, made by another process.

    The process is not told the secret of the format. Raises FormatError as `body_of`, and what `transformed` raises.
    """

    def request() -> bytes | None:
        return None if formatter.kept(event) else format_request(formatter, event)

    answer = await _asked_twice("format", request, event.tenant, evaluator, start_by)
    if answer is None:
        return
    kind, content = answer
    if kind == REFUSED:
        raise FormatError(content.decode())
    formatter.keep(event, content)


async def _asked_twice(
    what: str, request: Callable[[], bytes | None], tenant: str, evaluator: Evaluator, start_by: float
) -> tuple[bytes, bytes] | None:
    """Return the answer; None where there is nothing to ask any more once the turn has come.

    Where the process ends over it, or takes too long, another one is asked: the cause may be this machine, which ran
    out of memory or was suspended.
    """
    try:
        return await _asked(request, tenant, evaluator, start_by)
    except EvaluatorError as error:
        first = error
    try:
        return await _asked(request, tenant, evaluator, start_by)
    except EvaluatorError as error:
        raise EvaluatorError(f"{what}: the process that evaluates it {first}, and when asked again {error}") from None


async def _asked(
    request: Callable[[], bytes | None], tenant: str, evaluator: Evaluator, start_by: float
) -> tuple[bytes, bytes] | None:
    left = None if math.isinf(start_by) else max(0.0, start_by - time.monotonic())
    try:
        async with asyncio.timeout(left) as waiting, evaluator.turn(tenant) as turn:
            waiting.reschedule(None)  # a question that was asked is waited for, since the process would be ended
            if (asked := request()) is None:  # it was made while this one waited
                return None
            if time.monotonic() > start_by:
                raise TooLateError
            return content_of(await turn.ask(asked, DEADLINE_SECONDS))
    except TimeoutError:
        raise TooLateError from None
