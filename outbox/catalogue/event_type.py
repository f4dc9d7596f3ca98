"""An event type: a name, what its data is, and the verbs that record it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, Unpack, overload

from outbox._text import brief, complaint
from outbox.catalogue import collection
from outbox.catalogue.collection import Catalogue, Validation, check_validation, tell
from outbox.catalogue.models import model_of
from outbox.catalogue.problems import told
from outbox.errors import ArgumentError, PayloadError, PayloadInvalid, RecordError
from outbox.event_types.declared_type import DeclaredType
from outbox.recording.arguments import checked_type
from outbox.recording.event import EventOptions
from outbox.recording.payload import encode
from outbox.recording.record import Event
from outbox.recording.targets import Target

__all__ = ["EventType"]

T = TypeVar("T")
_MAX_TEXT_BYTES = 8_192
_MAX_EXAMPLE_BYTES = 65_536


class EventType(Generic[T]):
    """A declared event type. It joins its catalogue when it is made, so declare it once, at the top of a module.

    Args:
        name: as `record()` takes it: `order.placed`.
        model: what the data is: a pydantic model, dataclass, TypedDict or msgspec Struct (each by that library; the
            extra `catalogue` has pydantic), or a JSON Schema as a mapping. None is any JSON.
        description: for people who receive it, up to 8,192 bytes of text.
        example: data of it, for the pages; it must be right. At most 65,536 bytes as JSON.
        version: a whole number from 1 on. It is for people: it is not sent. A change that breaks receivers, which a
            push refuses unless it is told otherwise, must raise it; for a change that not everybody can follow at
            once, declare a type of another name (`order.placed.v2`), and record both for a while.
        deprecated: what to use in its place. Recording it then warns once, with a DeprecationWarning.
        validate: `strict`, `warn` or `off`; default what its catalogue says.
        catalogue: where it belongs; default the process's own.

    Raises ArgumentError where an argument is wrong; the message names it.
    """

    @overload
    def __init__(
        self: EventType[T], name: str, model: type[T], *, description: str = "",
        example: object = None, version: int = 1, deprecated: str | None = None,
        validate: Validation | None = None, catalogue: Catalogue | None = None,
    ) -> None: ...  # fmt: skip

    @overload
    def __init__(
        self: EventType[Any], name: str, model: Mapping[str, Any] | None = None, *, description: str = "",
        example: object = None, version: int = 1, deprecated: str | None = None, validate: Validation | None = None,
        catalogue: Catalogue | None = None,
    ) -> None: ...  # fmt: skip

    def __init__(
        self,
        name: str,
        model: type[T] | Mapping[str, Any] | None = None,
        *,
        description: str = "",
        example: object = None,
        version: int = 1,
        deprecated: str | None = None,
        validate: Validation | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.name = _checked_name(name)
        _check_text("description", description)
        if deprecated is not None and not _check_text("deprecated", deprecated).strip():
            raise ArgumentError("deprecated: is empty; say what to use in its place")
        if type(version) is not int or not 1 <= version < 2**31:
            raise ArgumentError(f"version: must be a whole number from 1 on, not {brief(version)}")
        check_validation(validate)
        if catalogue is not None and not isinstance(catalogue, Catalogue):
            raise ArgumentError(f"catalogue: must be an outbox.Catalogue, not {brief(catalogue)}")
        self.validate = validate
        self.catalogue = collection.default if catalogue is None else catalogue
        self._model = model_of(model)
        self._warns = deprecated is not None
        self.declaration = DeclaredType(
            type=self.name, version=version, description=description, deprecated=deprecated,
            schema=None if self._model is None else self._model.schema,
            example=None if example is None else self._checked_example(example),
        )  # fmt: skip
        self.catalogue.add(self)

    def record(self, session_or_connection: Target, data: T, /, **options: Unpack[EventOptions]) -> Event:
        """Record an event of this type, as `outbox.record()` does, with the same options and errors.

        Raises PayloadInvalid where the data is not what is declared.
        """
        return self.catalogue.outbox.record(session_or_connection, self.name, data, **options)

    def emit(self, data: T, /, **options: Unpack[EventOptions]) -> Event:
        """Record an event of this type on the session in use, as `outbox.emit()` does. Raises as `record`."""
        return self.catalogue.outbox.emit(self.name, data, **options)

    async def arecord(self, connection: Any, data: T, /, **options: Unpack[EventOptions]) -> Event:
        """The same on a raw psycopg AsyncConnection or asyncpg connection, as `outbox.arecord()` does."""
        return await self.catalogue.outbox.arecord(connection, self.name, data, **options)

    def check(self, data: object) -> None:
        """Check data as `record()` does under `strict`, and write nothing. Raises PayloadError."""
        self._payload(data, self.catalogue.outbox.max_payload_bytes, "strict")

    def write(self, data: object, max_payload_bytes: int) -> str:
        """Return the JSON text of data, checked as the policy says; the catalogue asks for it when it is recorded."""
        if self._warns:
            self._warns = False
            message = f"event type {self.name} is deprecated: {self.declaration.deprecated}"
            warnings.warn(message, DeprecationWarning, stacklevel=_callers_level())
        return self._payload(data, max_payload_bytes, self.validate or self.catalogue.validate)

    def _payload(self, data: object, max_payload_bytes: int, validate: Validation) -> str:
        if self._model is None:
            return encode(data, max_payload_bytes)
        ready, unsure = self._model.prepare(data)
        payload = encode(ready, max_payload_bytes)
        if unsure and validate != "off" and (problems := self._model.problems(payload)):
            tell(validate, PayloadInvalid(f"{told(problems)} ({self.name})"))
        return payload

    def _checked_example(self, example: object) -> str:
        try:
            return self._payload(example, _MAX_EXAMPLE_BYTES, "strict")
        except PayloadError as error:
            raise ArgumentError(f"example: {error}") from None

    def __repr__(self) -> str:
        return f"EventType({self.name!r}, version={self.declaration.version})"


def _checked_name(value: object) -> str:
    try:
        return checked_type(value, "name")
    except RecordError as error:
        raise ArgumentError(str(error)) from None


def _check_text(name: str, value: object) -> str:
    if refused := complaint(name, value, _MAX_TEXT_BYTES):
        raise ArgumentError(refused)
    return str.__str__(value)


def _callers_level() -> int:
    """Return the level, seen from who asks, of the first frame that is not of this library."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 - what warnings itself counts by
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "outbox":
        level, frame = level + 1, frame.f_back
    return level
