"""An event as filters see it: its payload is parsed once, and only if one of them asks for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from outbox.subscriptions.filters.values import MISSING, read_payload
from outbox.subscriptions.filters.work import Work

__all__ = ["EVENT_FIELDS", "STEPS_MIN", "FilteredEvent", "UnreadablePayload"]

EVENT_FIELDS = ("type", "key", "metadata", "payload")

STEPS_MIN = 10_000
STEPS_A_BYTE = 2
FULL_BUDGETS = 20


class UnreadablePayload(Exception):  # noqa: N818 - says what it is
    """The payload cannot be parsed here: it is nested more deeply than Python reads, or needs too much memory."""


class FilteredEvent:
    """One event, for any number of filters. Not to be shared between threads.

    A filter may take 10,000 steps and two for each byte of the payload: about as long as parsing it takes five times.
    After twenty filters have used up so much on one event, each of the others has the 10,000 only.
    """

    __slots__ = ("_fields", "_payload", "_problem", "_rich", "_text", "work")

    def __init__(
        self, type: str, payload: str | bytes, *, key: str | None = None,  # noqa: A002
        metadata: Mapping[str, str] | str | bytes | None = None, steps_a_byte: int = STEPS_A_BYTE,
    ) -> None:  # fmt: skip
        """Keep the parts. `payload` is JSON text, as metadata may be; None as key or metadata: the field is missing.

        `steps_a_byte`: fewer than the two of the language for whoever asks again where they were not enough.
        """
        self._fields: dict[str, Any] = {"type": type}
        if key is not None:
            self._fields["key"] = key
        if metadata is not None:
            self._fields["metadata"] = json.loads(metadata) if isinstance(metadata, str | bytes) else dict(metadata)
        self._text: str | bytes | None = payload
        self._payload: Any = None
        self._problem = ""
        self._rich = STEPS_MIN + steps_a_byte * len(payload)
        self.work = Work(FULL_BUDGETS * self._rich)

    def field(self, name: str) -> Any:
        """Return a field of the event, MISSING where it has none. Raises UnreadablePayload."""
        return self.payload if name == "payload" else self._fields.get(name, MISSING)

    @property
    def payload(self) -> Any:
        """The parsed payload. Raises UnreadablePayload."""
        if self._text is not None:
            self._parse(self._text)
        if self._problem:
            raise UnreadablePayload(self._problem)
        return self._payload

    @property
    def parsed(self) -> bool:
        """Whether a filter has asked for the payload."""
        return self._text is None

    @property
    def steps(self) -> int:
        """How many steps the next filter may take."""
        return self._rich if self.work.left > 0 else STEPS_MIN

    def _parse(self, text: str | bytes) -> None:
        self._text = None
        try:
            self._payload = read_payload(text if isinstance(text, str) else text.decode())
        except ValueError as error:
            self._problem = str(error)
        except MemoryError:  # else the next filter would see the payload null
            self._problem = "reading it needs more memory than there is"
