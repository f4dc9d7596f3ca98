"""A subscription's transformation: from an event to the same event with other data."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from outbox.errors import SubscriptionError
from outbox.transformation import ExpressionError, parse
from relay.message.body import time_of
from relay.message.transformation import json_text
from relay.message.transformation.budget import Budget
from relay.message.transformation.evaluate import compiled
from relay.model.delivery import SMALL_BYTES

if TYPE_CHECKING:
    from relay.message.transformation.budget import Compiled
    from relay.model.event import EventParts

__all__ = ["Kept", "Transformation"]

MAX_KEPT_STEPS = 200_000  # of all expressions that are kept compiled; some 150 bytes of memory each

MAX_KEPT_RESULTS = 8  # of one event


class Transformation:
    """An expression that was checked. Many subscriptions may share one; what it is compiled to is kept elsewhere."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        """Compile the expression. Raises SubscriptionError where it cannot be used: the row was written by hand."""
        self.text = text
        KEPT.get(text)

    def of(self, event: EventParts) -> EventParts:
        """Return the event with the expression's result in place of its data.

        The event keeps a result that is not large, for its other deliveries; a large one is made again, the same.

        Raises:
            TransformationError: this event cannot be transformed; it never can, by this expression.
        """
        return self.kept(event) or self.keep(event, _result(KEPT.get(self.text), event))

    def kept(self, event: EventParts) -> EventParts | None:
        """Return what the event keeps of a former call; None where it has none."""
        return event.transformed.get(self.text) if event.transformed else None

    def keep(self, event: EventParts, payload: bytes) -> EventParts:
        """Return the event with this result; it keeps one that is not large."""
        made = replace(event, payload=payload)
        if len(payload) <= max(SMALL_BYTES, len(event.payload)):
            event.transformed = kept = event.transformed or {}
            if len(kept) < MAX_KEPT_RESULTS:
                kept[self.text] = made
        return made


def _result(expression: Compiled, event: EventParts) -> bytes:
    collects = gc.isenabled() and len(event.payload) > SMALL_BYTES
    if not collects:
        return _evaluated(expression, event)
    # Reading a large payload makes so many objects that Python would look for cycles, of which there are none, in all
    # the memory of the process, several times. They are gone when the result is there.
    gc.disable()
    try:
        return _evaluated(expression, event)
    finally:
        gc.enable()


def _evaluated(expression: Compiled, event: EventParts) -> bytes:
    payload = json_text.decoded(event.payload)
    data = json_text.payload_of(payload)
    whole = {
        "id": event.id.decode(),
        "type": event.type.decode(),
        "timestamp": time_of(event).decode(),
        "tenant": event.tenant,
        "key": event.key,
        "data": data,
    }
    if event.metadata is not None:  # a field that is not there reads as null
        whole["metadata"] = json.loads(event.metadata)
    budget = Budget(payload, data)
    budget.make(whole)
    budget.spend(expression.steps)
    return json_text.bytes_of(expression.run(whole, budget), budget)


class Kept:
    """Compiled expressions by their text, those that were used last; they are bounded by their size together."""

    def __init__(self, most_steps: int) -> None:
        self._most = most_steps
        self.steps = 0
        self._by_text: dict[str, Compiled] = {}

    def __len__(self) -> int:
        return len(self._by_text)

    def get(self, text: str) -> Compiled:
        """Return the expression, compiled now if it is not here. Raises SubscriptionError."""
        expression = self._by_text.pop(text, None)
        if expression is None:
            expression = _compile(text)
            self.steps += expression.steps
        self._by_text[text] = expression  # the last in the order of insertion
        while self.steps > self._most and len(self._by_text) > 1:
            self.steps -= self._by_text.pop(next(iter(self._by_text))).steps
        return expression


KEPT = Kept(MAX_KEPT_STEPS)


def _compile(text: str) -> Compiled:
    try:
        return compiled(parse(text))
    except ExpressionError as error:
        raise SubscriptionError(f"transformation: {error.told(text)}") from None
