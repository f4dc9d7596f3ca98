"""Read a payload and write a result: JSON with every digit as it was.

The encoder of the standard library does both in one stretch. What an expression makes may hold one thing many times, so
a result is measured before it is written, each thing as often as it stands there.
"""

from __future__ import annotations

import json
import os
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
"""The data of a larger event, passed on as a whole, are written as they were recorded, at no cost."""

_LONG_INTEGER = 4000  # digits; Python refuses to read an int of more than 4,300
_CONTAINERS = (list, dict)
_RECORDED = Digits.of(os.urandom(16).hex())  # stands for the event's data until the rest is written
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
    is_large = len(budget.payload) > SMALL_PAYLOAD and type(budget.data) in _CONTAINERS
    try:
        if is_large and value is budget.data:
            return budget.payload.encode()
        written = _text(value, budget, most, recorded=is_large).encode()
    except UnicodeEncodeError:
        raise TransformationError("the result holds a lone surrogate, which is no text") from None
    if len(written) > MAX_RESULT_BYTES:
        raise _too_large(MAX_RESULT_BYTES)
    return written


def text_of(value: Any, budget: Budget) -> str:
    """Return a value within an expression as compact JSON."""
    return _text(value, budget, MAX_RESULT_BYTES)


def _text(value: Any, budget: Budget, most: int, *, recorded: bool = False) -> str:
    """Return a value as JSON of at most so many characters. `recorded`: with the event's data as recorded."""
    _measure(value, budget, most, recorded=recorded)
    try:
        text = unquote(_encode(value))
    except RecursionError:
        raise TransformationError("the result is nested deeper than can be written") from None
    if recorded:
        text = text.replace(_RECORDED.text, budget.payload)
    if len(text) > most:
        raise _too_large(most)
    return text


def _measure(value: Any, budget: Budget, most: int, *, recorded: bool) -> None:
    """Spend what writing a value costs. Raises TransformationError where it is certain to be too long.

    With `recorded` the event's data are replaced by what stands for them: only what the expression made can hold them,
    and nothing reads that any more.
    """
    characters, open_ = 0, [[value]]
    while open_:
        container: Any = open_.pop()
        budget.spend(2 * len(container) + 3)
        elements: Any = container
        if type(container) is dict:
            elements = container.values()
            characters += sum(map(len, container))
        for element in elements:
            kind = type(element)
            if kind is str or kind is Digits:
                characters += len(element)
            elif kind is list or kind is dict:
                if recorded and element is budget.data:
                    characters += len(budget.payload)
                else:
                    open_.append(element)
        if characters > most + len(budget.payload):  # the marks of numbers were counted along
            raise _too_large(most)
        if recorded:
            _replace_data(container, budget.data)
    budget.spend(characters // 50)


def _replace_data(container: Any, data: Any) -> None:
    for place, element in list(container.items() if type(container) is dict else enumerate(container)):
        if element is data:
            container[place] = _RECORDED


def _too_large(most: int) -> TransformationError:
    return TransformationError(f"the result has more than {most:,} characters for this event; select less of it")
