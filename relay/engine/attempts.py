"""Attempts under way: each sends the request of one leased delivery and ends with its outcome, whatever raises."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from relay.engine.batches import NO_EVENT, Unfit, send_batch
from relay.http.begun import Begun
from relay.message.evaluator_process.evaluator import EvaluatorError, NotStartedError
from relay.message.evaluator_process.large_bodies import TooLateError
from relay.message.formats import FormatError
from relay.message.transformation.budget import TransformationError
from relay.model.outcome import Outcome, OutcomeKind, milliseconds_since

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from relay.engine.clock import DatabaseClock
    from relay.engine.endpoint import Endpoint
    from relay.engine.transforming import Transforming
    from relay.http.sender import Sender
    from relay.message.envelope import Envelope
    from relay.model.delivery import Delivery
    from relay.model.event import EventParts
    from relay.model.subscription import SubscriptionVersion

__all__ = ["Attempt", "Attempts"]

log = logging.getLogger("relay.engine")


class Attempt(NamedTuple):
    """Which delivery is sent where; `subscription` is the version at the beginning of the attempt."""

    endpoint: Endpoint
    delivery: Delivery
    subscription: SubscriptionVersion


class Attempts:
    """Those of one engine. `ended` is called with each and its outcome, from the running loop, and must not raise.

    The outcome is None where the attempt's time to begin passed, or it was cut, before what is sent was made.

    A request that is on its way at once calls back with its answer. Only what has to be waited for has a task: that
    would cost more than all else which such a request needs of the loop.
    """

    def __init__(
        self,
        sender: Sender,
        clock: DatabaseClock,
        transforming: Transforming,
        ended: Callable[[Attempt, Outcome | Unfit | None], None],
    ) -> None:
        self._sender = sender
        self._clock = clock
        self._transforming = transforming
        self._ended = ended
        self._loop = asyncio.get_running_loop()  # each look-up is a system call
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: dict[Begun, Attempt] = {}  # requests without a task, until they are answered
        self._all_answered = asyncio.Event()
        self._aborting = False

    def __len__(self) -> int:
        return len(self._tasks) + len(self._begun)

    def begin(self, endpoint: Endpoint, delivery: Delivery) -> None:
        """Begin an attempt."""
        attempt = Attempt(endpoint, delivery, endpoint.subscription)
        begun = self._send(endpoint, delivery)
        if isinstance(begun, Begun):
            self._begun[begun] = attempt
            begun.when_answered(self._answered)
        else:
            self._begin_task(attempt, begun)

    async def finish(self) -> None:
        """Wait until none is under way."""
        while len(self):
            # A task that was cancelled before its first step is done, and has not taken itself out.
            self._tasks = {task for task in self._tasks if not task.done()}
            if self._tasks:
                await asyncio.wait(self._tasks)
            if self._begun:
                self._all_answered.clear()
                await self._all_answered.wait()

    async def abort(self) -> None:
        """Cut what is under way; each ends as a failed attempt, because its request may have been read."""
        self._aborting = True  # from here on no request is sent anew: nobody would cut it
        await asyncio.sleep(0)  # a task that is cancelled before its first step would leave no result
        for task in tuple(self._tasks):
            task.cancel()
        while self._begun:
            begun, attempt = self._begun.popitem()
            self._cut(attempt, begun)
        self._all_answered.set()
        await self.finish()

    def _send(self, endpoint: Endpoint, delivery: Delivery) -> Awaitable[Outcome | Unfit | None] | Outcome:
        began, event = time.monotonic(), delivery.event
        try:
            if endpoint.problem is not None:
                return _failed(endpoint.problem[0], began, endpoint.problem[1])
            if delivery.members:
                return send_batch(self._sender, endpoint, delivery, self._transforming, self._clock)
            if delivery.unreadable is not None:
                return _failed(OutcomeKind.PAYLOAD_UNREADABLE, began, delivery.unreadable)
            if event is None:
                return _failed(OutcomeKind.EVENT_GONE, began, NO_EVENT)
            envelope, timeout_seconds = endpoint.envelope, endpoint.timeout_of(delivery)
            made = self._transforming.make_at_once(envelope, event) if envelope.needs_time else event
            if made is None:
                return self._make_and_send(endpoint, envelope, event, delivery, timeout_seconds)
            return envelope.send(self._sender, made, self._clock.timestamp(), timeout_seconds, delivery.attempts)
        except Exception as error:  # noqa: BLE001 - it is logged there
            return _raised(error, delivery, began)

    async def _make_and_send(
        self, endpoint: Endpoint, envelope: Envelope, event: EventParts, delivery: Delivery, timeout_seconds: float
    ) -> Outcome | None:
        began = time.monotonic()
        try:
            made = await self._transforming.make(endpoint, envelope, event, delivery.start_by)
        except (asyncio.CancelledError, TooLateError):  # no byte was sent
            return None
        except EvaluatorError as error:
            return _failed(OutcomeKind.INTERNAL, began, str(error))
        if time.monotonic() > delivery.start_by:
            return None
        return await envelope.send(self._sender, made, self._clock.timestamp(), timeout_seconds, delivery.attempts)

    def _answered(self, begun: Begun) -> None:
        attempt = self._begun.pop(begun, None)
        if attempt is None:  # it was cut
            return
        if not self._begun:
            self._all_answered.set()
        try:
            outcome = begun.outcome()
        except Exception as error:  # noqa: BLE001 - it is logged there
            outcome = _raised(error, attempt.delivery, begun.started)
        if outcome is not None:
            self._ended(attempt, outcome)
        elif self._aborting:
            self._cut(attempt, begun)
        else:
            self._begin_task(attempt, begun.anew())

    def _cut(self, attempt: Attempt, begun: Begun) -> None:
        begun.abandon()
        self._ended(attempt, _failed(OutcomeKind.ABORTED, begun.started, _STOPPED))

    def _begin_task(self, attempt: Attempt, begun: Awaitable[Outcome | Unfit | None] | Outcome) -> None:
        self._tasks.add(self._loop.create_task(self._run(attempt, begun)))

    async def _run(self, attempt: Attempt, begun: Awaitable[Outcome | Unfit | None] | Outcome) -> None:
        self._ended(attempt, await _outcome_of(begun, attempt.delivery))
        if (task := asyncio.current_task(self._loop)) is not None:
            self._tasks.discard(task)  # a done callback would cost each attempt a turn of the loop


async def _outcome_of(begun: Awaitable[Outcome | Unfit | None] | Outcome, delivery: Delivery) -> Outcome | Unfit | None:
    """Wait for the outcome. An exception becomes one too, because the request may have been read."""
    if isinstance(begun, Outcome):
        return begun
    began = time.monotonic()
    try:
        return await begun
    except asyncio.CancelledError:
        return _failed(OutcomeKind.ABORTED, began, _STOPPED)
    except Exception as error:  # noqa: BLE001 - it is logged there
        return _raised(error, delivery, began)


_STOPPED = "the relay was told to stop at once"


def _raised(error: Exception, delivery: Delivery, began: float) -> Outcome:
    if isinstance(error, TransformationError):
        return _failed(OutcomeKind.TRANSFORMATION_FAILED, began, f"transformation: {error}")
    if isinstance(error, FormatError):
        return Outcome(OutcomeKind.UNFORMATTED, None, 0, str(error), sent=False)
    if isinstance(error, NotStartedError):
        return _failed(OutcomeKind.LOCAL, began, str(error))
    log.error("%s: attempt failed inside the relay", delivery, exc_info=error)
    return _failed(OutcomeKind.INTERNAL, began, f"{type(error).__name__} inside the relay; see its log")


def _failed(kind: OutcomeKind, began: float, error: str) -> Outcome:
    return Outcome(kind, None, milliseconds_since(began), error)
