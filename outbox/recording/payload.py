"""Turn Python values into the exact JSON text that is stored and sent.

Ordinary data (str, int, float, bool, None in dicts with str keys, lists and tuples) goes through the C encoder of the
standard library (plain_data.py). Anything else, and anything wrong, goes through `_Writer`, which converts, checks, and
knows the path.
Both write the same text for ordinary data: no spaces, key order kept, UTF-8 rather than escapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring
from types import NoneType
from typing import Any, NoReturn
from uuid import UUID

from outbox.errors import PayloadError, PayloadTooLarge
from outbox.recording import raw_json as _raw_json
from outbox.recording.foreign import is_lazy_text, mend_of
from outbox.recording.plain_data import MAX_DEPTH, encode_plain

__all__ = ["RawJSON", "encode", "step_text"]

_NAME = re.compile(r"[^\W\d]\w{0,63}", re.ASCII)
_NOT_FINITE = "NaN and Infinity are not JSON; use None or str"
_END = object()


@dataclass(frozen=True, slots=True)
class RawJSON:
    """JSON text that is stored and sent exactly as written, spaces and number spelling included.

    It is validated when the event is recorded: one JSON value by RFC 8259, no NaN or Infinity, no duplicate key, no NUL
    or lone surrogate, and the limits on depth and size of any other data.
    """

    text: str = field(repr=False)


def encode(data: object, max_payload_bytes: int) -> str:
    """Return `data` as compact JSON text of at most `max_payload_bytes` bytes in UTF-8.

    Raises:
        PayloadTooLarge: the text is longer.
        PayloadError: the data has no exact JSON form; the message names the path, like `data.items[3].price`.
    """
    text = encode_plain(data, max_payload_bytes)
    if text is None:
        text = _Writer(max_payload_bytes).write(data)
    size = len(text) if text.isascii() else len(text.encode())
    if size > max_payload_bytes:
        raise _too_large(str(size), max_payload_bytes)
    return text


def _too_large(size: str, max_payload_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"data: {size} bytes as JSON, but max_payload_bytes is {max_payload_bytes}; "
        "store the bulk elsewhere and send a reference"
    )


@dataclass(slots=True)
class _Open:
    """A dict, list or dataclass that is being written."""

    value: object
    members: Iterator[tuple[Any, Any]]
    keyed: bool
    step: str | int | None = None


class _Writer:
    """Writes one value without recursion: deep data cannot crash it, and it finds every cycle."""

    def __init__(self, max_payload_bytes: int, *, inside: str = "data", depth: int = 0) -> None:
        self._max = max_payload_bytes
        self._room = max_payload_bytes
        self._inside = inside
        self._depth = depth
        self._chunks: list[str] = []
        self._open: list[_Open] = []

    def write(self, data: object) -> str:
        self._value(data)
        while self._open:
            container = self._open[-1]
            member = next(container.members, _END)
            if member is _END:
                self._open.pop()
                self._put("}" if container.keyed else "]")
            else:
                self._member(container, *member)  # type: ignore[misc] # _END is not a pair
        return "".join(self._chunks)

    def _put(self, chunk: str) -> None:
        self._room -= len(chunk)
        if self._room < 0:
            raise _too_large(f"at least {self._max - self._room}", self._max)
        self._chunks.append(chunk)

    def _member(self, container: _Open, step: Any, value: object) -> None:
        if container.step is not None:
            self._put(",")
        if container.keyed:
            self._key(container, step)
        container.step = step
        self._value(value)

    def _key(self, container: _Open, key: object) -> None:
        container.step = None
        if not isinstance(key, str) and is_lazy_text(key):
            key = str(key)
        if not isinstance(key, str):
            self._refuse(f"a key is of type {_kind(key)}; JSON has only text as keys: use str")
        self._put(self._string(key, "a key has") + ":")

    def _value(self, value: object) -> None:
        """Write a value that has no members, or open one that has."""
        scalar = _SCALAR_TEXT.get(type(value))
        if scalar is not None:
            self._put(scalar(self, value))
        elif isinstance(value, Enum):
            self._value(value.value)
        elif isinstance(value, dict):
            self._enter(value, iter(value.items()), keyed=True)
        elif isinstance(value, list | tuple):
            self._enter(value, enumerate(value), keyed=False)
        else:
            self._other(value)

    def _other(self, value: Any) -> None:
        scalar = next((text for kind, text in _SCALAR_TEXT.items() if isinstance(value, kind)), None)
        if scalar is not None:
            self._put(scalar(self, value))
        elif callable(getattr(type(value), "model_dump", None)):
            self._value(self._model(value))
        elif is_dataclass(value) and not isinstance(value, type):
            members = ((each.name, getattr(value, each.name)) for each in fields(value))
            self._enter(value, members, keyed=True)
        elif is_lazy_text(value):
            self._put(self._string(str(value)))
        else:
            self._refuse(f"{_kind(value)} {mend_of(value) or 'has no JSON form here; convert it first'}")

    def _enter(self, value: object, members: Iterator[tuple[Any, Any]], *, keyed: bool) -> None:
        if any(container.value is value for container in self._open):
            self._refuse("the value contains itself (a cycle)")
        if self._nesting() >= MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH} levels")
        self._put("{" if keyed else "[")
        self._open.append(_Open(value, members, keyed))

    def _model(self, model: Any) -> object:
        """Return what a pydantic model gives in JSON mode."""
        try:
            return model.model_dump(mode="json")
        except (ValueError, TypeError, RecursionError) as error:
            raise PayloadError(f"{self._path()}: {_kind(model)}.model_dump(mode='json') failed") from error

    def _string(self, value: str, has: str = "the text has") -> str:
        if "\0" in value:
            self._refuse(f"{has} a NUL character (\\u0000), which PostgreSQL cannot hold; remove it")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                self._refuse(f"{has} a lone surrogate, which is not Unicode text; decode it properly first")
        return encode_basestring(value)

    def _int(self, value: int) -> str:
        try:
            return int.__repr__(value)
        except ValueError:
            return self._refuse("the number has too many digits; use str")

    def _float(self, value: float) -> str:
        if not math.isfinite(value):
            self._refuse(_NOT_FINITE)
        return float.__repr__(value)

    def _decimal(self, value: Decimal) -> str:
        """Return the exact digits as a JSON number: 19.90 stays 19.90."""
        if not value.is_finite():
            self._refuse(_NOT_FINITE)
        return str(value)

    def _datetime(self, value: datetime) -> str:
        """Return RFC 3339 text. Its offset has no seconds, so a time with such an offset becomes UTC."""
        offset = value.utcoffset()
        if offset is None:
            self._refuse("a datetime without time zone is ambiguous; give it a tzinfo, e.g. datetime.now(UTC)")
        if offset.total_seconds() % 60:
            try:
                value, offset = value.astimezone(UTC), timedelta(0)
            except OverflowError:
                self._refuse("the datetime is outside the years 1 to 9999 in UTC")
        text = value.isoformat()
        return f'"{text}"' if offset else f'"{text[:-6]}Z"'

    def _raw(self, value: RawJSON) -> str:
        text = value.text
        if not isinstance(text, str):
            self._refuse(f"RawJSON takes str, not {_kind(text)}; decode it first")
        if len(text) > self._room:
            raise _too_large(f"at least {self._max - self._room + len(text)}", self._max)
        deepest = MAX_DEPTH - self._nesting()
        if text.count("[") + text.count("{") > deepest and _raw_json.depth(text) > deepest:
            self._refuse(f"nested deeper than {MAX_DEPTH} levels")
        try:
            parsed = _raw_json.parse(text)
        except ValueError as error:
            self._refuse(f"RawJSON is not strict JSON: {error}")
        if "\\u" in text or not text.isascii():
            _Writer(len(text), inside=self._path(), depth=self._nesting()).write(parsed)
        return text

    def _nesting(self) -> int:
        return self._depth + len(self._open)

    def _path(self) -> str:
        steps = [step_text(container.step) for container in self._open]
        path = self._inside + "".join(steps)
        return path if len(path) <= 200 else f"{path[:120]}…{path[-60:]}"

    def _refuse(self, reason: str) -> NoReturn:
        raise PayloadError(f"{self._path()}: {reason}")


_SCALAR_TEXT: dict[type, Callable[[_Writer, Any], str]] = {
    str: _Writer._string,  # noqa: SLF001 - the table belongs to the class
    bool: lambda _, value: "true" if value else "false",
    int: _Writer._int,  # noqa: SLF001
    float: _Writer._float,  # noqa: SLF001
    NoneType: lambda _, __: "null",
    Decimal: _Writer._decimal,  # noqa: SLF001
    datetime: _Writer._datetime,  # noqa: SLF001
    date: lambda _, value: f'"{value.isoformat()}"',
    UUID: lambda _, value: f'"{value}"',
    RawJSON: _Writer._raw,  # noqa: SLF001
}


def _kind(value: object) -> str:
    return type(value).__qualname__


def step_text(step: str | int | None) -> str:
    """Return a step of a path as it is shown: `.cents`, `[2]`, `['odd key']`."""
    if step is None:
        return ""
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _NAME.fullmatch(step) else f"[{step[:40]!a}]"
