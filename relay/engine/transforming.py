"""Make what a transformation or a format sends: of small data bit by bit in the loop; else in the evaluator."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from relay.message.evaluator_process.large_bodies import formatted, is_large, is_large_for, transformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.engine.endpoint import Endpoint
    from relay.engine.room import Room
    from relay.message.envelope import Envelope
    from relay.message.evaluator_process.evaluator import Evaluator
    from relay.message.formats import Formatter
    from relay.message.transformation.transformation import Transformation
    from relay.model.event import EventParts

__all__ = ["LoopShare", "Transforming"]

SHARE_SECONDS = 0.001  # of one turn of the loop; an evaluation that began before may take five milliseconds


class Transforming:
    """The transformations of one engine, and the bodies for which data are parsed. `evaluator` makes the large."""

    def __init__(self, room: Room, evaluator: Evaluator) -> None:
        self._room = room
        self._evaluator = evaluator
        self._share = LoopShare()

    def make_at_once(self, envelope: Envelope, event: EventParts) -> EventParts | None:
        """Return the same as `make`, where nothing has to be waited for; None where something has.

        Raises TransformationError and FormatError as `make`.
        """
        transformation, formatter = envelope.transformation, envelope.formatter
        if not self._share.is_left or (transformation is not None and is_large(transformation, event)):
            return None
        with self._share.taking():
            made = event if transformation is None else transformation.of(event)
            if formatter is not None and formatter.parses_up_to:
                if is_large_for(formatter, made):  # `make` begins anew, with what the event keeps of the transformation
                    return None
                formatter.body_of(made)
        return made

    async def make(self, endpoint: Endpoint, envelope: Envelope, event: EventParts, start_by: float) -> EventParts:
        """Return the event with the data that are to be sent. What waits for another process lends its place.

        It keeps the body, where data are parsed to make that. `envelope`: the endpoint's at the beginning of the
        attempt.

        Raises:
            TransformationError: nothing that could be sent comes of this event.
            FormatError: it has no body in this format.
            EvaluatorError: it is large, and the process for it ended or took too long, twice.
            NotStartedError: it is large, and the process for it cannot be started now.
            TooLateError: it is large, and that process had no time for it until the monotonic time `start_by`, or no
                place was free after that.
        """
        made = event
        if envelope.transformation is not None:
            made = await self._transform(endpoint, envelope.transformation, event, start_by)
        if envelope.formatter is not None and envelope.formatter.parses_up_to:
            await self._format(endpoint, envelope.formatter, made, start_by)
        return made

    async def _transform(
        self, endpoint: Endpoint, transformation: Transformation, event: EventParts, start_by: float
    ) -> EventParts:
        if is_large(transformation, event):
            async with self._room.lending(endpoint, start_by):
                return await transformed(transformation, event, self._evaluator, start_by)
        await self._share.wait()
        with self._share.taking():
            return transformation.of(event)

    async def _format(self, endpoint: Endpoint, formatter: Formatter, event: EventParts, start_by: float) -> None:
        if is_large_for(formatter, event):
            async with self._room.lending(endpoint, start_by):
                await formatted(formatter, event, self._evaluator, start_by)
            return
        await self._share.wait()
        with self._share.taking():
            formatter.body_of(event)


class LoopShare:
    """How long some kind of work held the loop since its last turn: many short pieces hold it as one long does."""

    def __init__(self) -> None:
        self._taken = 0.0

    @property
    def is_left(self) -> bool:
        """Whether this turn of the loop has a share left."""
        return self._taken <= SHARE_SECONDS

    async def wait(self) -> None:
        """Wait until a turn of the loop has a share left."""
        while not self.is_left:  # noqa: ASYNC110 - an Event would wake all in the same turn
            await asyncio.sleep(0)

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Count the time of a block that waits for nothing."""
        if not self._taken:
            asyncio.get_running_loop().call_soon(self._forget)
        began = time.perf_counter()
        try:
            yield
        finally:
            self._taken += time.perf_counter() - began

    def _forget(self) -> None:
        self._taken = 0.0
