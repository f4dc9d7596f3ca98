"""A catalogue: the event types that an application has declared, and what it does with data of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from outbox._text import brief, did_you_mean
from outbox.errors import ArgumentError, OutboxError, RecordError
from outbox.recording import record as recording
from outbox.recording.declared import OF_PROCESS, Declared
from outbox.recording.payload import encode
from outbox.recording.record import Outbox

if TYPE_CHECKING:
    from outbox.catalogue.event_type import EventType

    AnyType = EventType[Any]
else:
    AnyType = Any  # it knows this module; annotations that are read at run time must resolve

__all__ = ["Catalogue", "Validation", "check_validation", "default"]

Validation = Literal["off", "warn", "strict"]

log = logging.getLogger("outbox.catalogue")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Catalogue(Declared):
    """Event types by name. Every type that names no catalogue is in the process's own, `outbox.catalogue.default`.

    Args:
        name: what it is stored under; where several applications share a database, each needs its own.
        closed: whether `record()` refuses types that are not in it, and `subscribe()` patterns that match none.
            Types of the relay itself, `relay.…`, are in no catalogue.
        validate: what `record()` does with data that is not what its type declares: `strict` refuses it, `warn` logs it
            (the logger outbox.catalogue), `off` does not look. A type may say otherwise.
        outbox: settings with which its types are recorded, such as max_payload_bytes; they are copied.

    Raises ArgumentError where one is refused.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        closed: bool = False,
        validate: Validation = "strict",
        outbox: Outbox | None = None,
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ArgumentError(f"name: {brief(name)} is no word of letters, digits, '.', '_' and '-', 64 at most")
        if outbox is not None and not isinstance(outbox, Outbox):
            raise ArgumentError(f"outbox: must be an outbox.Outbox, not {brief(outbox)}")
        self.name = name
        self._types: dict[str, AnyType] = {}
        self._hook: Declared = self
        like = Outbox() if outbox is None else outbox
        self.outbox = Outbox(max_payload_bytes=like.max_payload_bytes, baggage=like.baggage, catalogue=self)
        self.configure(closed=closed, validate=validate)

    def configure(self, *, closed: bool | None = None, validate: Validation | None = None) -> None:
        """Change what is given of `closed` and `validate`, as the default catalogue needs. Raises ArgumentError."""
        if closed is not None and type(closed) is not bool:
            raise ArgumentError(f"closed: must be True or False, not {brief(closed)}")
        check_validation(validate)
        if closed is not None:
            self.closed = closed
        self.validate: Validation = getattr(self, "validate", "strict") if validate is None else validate
        self._place_hook()

    def _place_hook(self) -> None:
        """Tell what there is, and let `record()` ask here, but only where there is something to ask."""
        self._hook.names, self._hook.closed = self._types.keys(), self.closed
        self._hook.write = self._write if self._types or self.closed else None

    def add(self, event_type: AnyType) -> None:
        """Add a type, as EventType does when it is made; one that is there already must be the same.

        Raises ArgumentError where its name stands for something else.
        """
        known = self._types.get(event_type.name)
        if known is not None and known.declaration != event_type.declaration:
            raise ArgumentError(f"name: {event_type.name} is declared already, and otherwise; give it another name")
        self._types[event_type.name] = event_type
        self._place_hook()

    def clear(self) -> None:
        """Forget every type, as after a test that declared some."""
        self._types.clear()
        self._place_hook()

    def get(self, name: str) -> AnyType | None:
        """Return the type of this name; None where there is none."""
        return self._types.get(name)

    def __iter__(self) -> Iterator[AnyType]:
        return iter(sorted(self._types.values(), key=lambda one: one.name))

    def __len__(self) -> int:
        return len(self._types)

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def __repr__(self) -> str:
        return f"Catalogue({self.name!r}, {len(self)} types{', closed' if self.closed else ''})"

    def _write(self, name: str, data: object, max_payload_bytes: int) -> str:
        """Check data of a type and return its JSON text, as `record()` asks."""
        if (event_type := self._types.get(name)) is not None:
            return event_type.write(data, max_payload_bytes)
        if self.closed:
            meant = did_you_mean(name, self._types)
            tell(self.validate, RecordError(f"type: {name} is not in the catalogue, which is closed{meant}"))
        return encode(data, max_payload_bytes)


def tell(validate: Validation, error: OutboxError) -> None:
    """Raise the error, log it, or let it be: whichever the policy says."""
    if validate == "strict":
        raise error
    if validate == "warn":
        log.warning("recorded all the same: %s", error)


def check_validation(value: object) -> None:
    """Raise ArgumentError unless it is a policy, or None."""
    if value is not None and value not in get_args(Validation):
        raise ArgumentError(f"validate: must be one of {', '.join(get_args(Validation))}, not {brief(value)}")


class _OfProcess(Catalogue):
    """The process's own: what `outbox.record()` asks."""

    def __init__(self) -> None:
        super().__init__()
        self._hook, self.write = OF_PROCESS, None
        self.outbox = recording._default  # noqa: SLF001 - one library; whoever imports it records by this one
        self._place_hook()


default = _OfProcess()
"""The catalogue of the process."""
