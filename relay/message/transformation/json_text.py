"""Read a payload and write a result: JSON with every digit as it was.

The encoder of the standard library does the long stretches: what a small payload holds is written at once. What the
expression made may hold one thing many times, and a part of a large payload may be large: these are written part by
part, each paid for before, and writing ends as soon as there is too much.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, NoReturn

from outbox.transformation import Digits, unquote
from relay.message.transformation.budget import TransformationError

if TYPE_CHECKING:
    from relay.message.transformation.budget import Budget

__all__ = ["MAX_PAYLOAD_BYTES", "MAX_RESULT_BYTES", "bytes_of", "decoded", "payload_of", "text_of"]

MAX_PAYLOAD_BYTES = 1_048_576
MAX_RESULT_BYTES = 1_048_576
SMALL_RESULT_BYTES = 65_536
"""A result may always have so many bytes; a larger one at most twice those of its payload. Memory is shared out by the
size of the payload, so that what is made of it may not be of another order."""

SMALL_PAYLOAD = 65_536
"""Any part of a payload up to this size is written in one go, which takes two or three milliseconds at the most."""

_LONG_INTEGER = 4000  # digits; Python refuses to read an int of more than 4,300
_WORDS = {type(None): "null"}
_SCALARS = {str, int, bool, type(None), Digits}
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def decoded(payload: bytes) -> str:
    """Return the text of a payload. Raises TransformationError where it is too large, or no UTF-8."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise TransformationError(
            f"the event's data has {len(payload):,} bytes, and at most {MAX_PAYLOAD_BYTES:,} can be read"
        )
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise TransformationError("the event's data is no text in UTF-8") from None


def payload_of(text: str) -> Any:
    """Return the value of a payload. Raises TransformationError for one that is nested too deep, or no JSON."""
    try:
        return _decode(text)
    except RecursionError:
        raise TransformationError("the event's data is nested deeper than can be read") from None
    except ValueError:
        pass
    try:
        return _decode_long(text)
    except ValueError:
        raise TransformationError("the event's data cannot be read as JSON") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _integer(text: str) -> int | Digits:
    return int(text) if len(text) < _LONG_INTEGER else Digits.of(text)


_decode = json.JSONDecoder(parse_float=Digits.of, parse_constant=_no_constant).decode
_decode_long = json.JSONDecoder(parse_float=Digits.of, parse_int=_integer, parse_constant=_no_constant).decode


def bytes_of(value: Any, budget: Budget) -> bytes:
    """Return a result as compact JSON in UTF-8. Raises TransformationError where it is too large, or no text."""
    most = min(MAX_RESULT_BYTES, max(SMALL_RESULT_BYTES, 2 * len(budget.payload)))
    try:
        written = _Writer(budget, most).write(value).encode()
    except UnicodeEncodeError:
        raise TransformationError("the result holds a lone surrogate, which is no text") from None
    if len(written) > MAX_RESULT_BYTES:
        raise _too_large(MAX_RESULT_BYTES)
    return written


def text_of(value: Any, budget: Budget) -> str:
    """Return a value within an expression as compact JSON."""
    return _Writer(budget, MAX_RESULT_BYTES).write(value)


def _too_large(most: int) -> TransformationError:
    return TransformationError(f"the result has more than {most:,} characters; select less of it")


class _Writer:
    """Writes one value; `most` is how many characters its text may have."""

    __slots__ = ("_budget", "_chunks", "_most", "_room", "_texts")

    def __init__(self, budget: Budget, most: int) -> None:
        self._budget = budget
        self._most = self._room = most
        self._chunks: list[str] = []
        self._texts: dict[int, str] = {}  # of what the payload holds: often the same thing again

    def write(self, value: Any) -> str:
        try:
            self._write(value)
        except RecursionError:
            raise TransformationError("the result is nested deeper than can be written") from None
        return "".join(self._chunks)

    def _put(self, text: str) -> None:
        self._room -= len(text)
        if self._room < 0:
            raise _too_large(self._most)
        self._chunks.append(text)

    def _write(self, value: Any) -> None:
        kind = type(value)
        if kind is str:
            self._budget.spend(len(value) // 50)
            self._put(encode_basestring(value))
        elif kind is Digits:
            self._put(value.text)
        elif kind is not dict and kind is not list:
            self._put(_WORDS.get(kind) or repr(value).lower())
        elif len(self._budget.payload) <= SMALL_PAYLOAD and id(value) not in self._budget.made:
            self._write_small(value)
        elif value is self._budget.data:
            self._put(self._budget.payload)  # as it was recorded, at no cost
        else:
            self._write_parts(value)

    def _write_small(self, value: Any) -> None:
        text = self._texts.get(id(value))
        if text is None:
            text = self._texts[id(value)] = unquote(_encode(value))
            self._budget.spend(len(text) // 6)
        self._put(text)

    def _write_parts(self, value: Any) -> None:
        keyed = type(value) is dict
        elements = value.values() if keyed else value
        self._budget.spend(2 * len(value) + 5)
        if _SCALARS.issuperset(map(type, elements)):
            self._budget.spend(sum(len(element) for element in elements if isinstance(element, str)) // 50)
            self._put(unquote(_encode(value)))
            return
        self._budget.spend(4 * len(value))
        separator = "{" if keyed else "["
        for name in value:
            self._put(separator)
            separator = ","
            if keyed:
                self._put(encode_basestring(name) + ":")
            self._write(value[name] if keyed else name)
        self._put("}" if keyed else "]")
