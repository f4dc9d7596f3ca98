"""A secret in memory: text that is redacted everywhere but in `reveal()`, and functions whose failure shows none."""

from __future__ import annotations

import functools
import hmac
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

from outbox.errors import ArgumentError, OutboxError

__all__ = ["NeverPickled", "Secret", "hides_secrets"]

P = ParamSpec("P")
R = TypeVar("R")


FRAMES_NOTED = 20
"""Of the traceback of an error that is not ours; frames of the driver come last."""


class NeverPickled:
    """A value that holds a secret: it can be copied within the process, where it is the same value, but not pickled."""

    __slots__ = ()

    def __copy__(self) -> NeverPickled:
        return self

    def __deepcopy__(self, memo: object) -> NeverPickled:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        kind = type(self).__name__
        raise TypeError(f"{kind}: holds a secret and cannot be pickled; pass on only what is needed where it is needed")


class Secret(NeverPickled):
    """Secret text. `reveal()` returns it; repr, str and every format give `***`.

    It is not a str, so nothing joins, logs or serialises it by accident. It can be copied within the process, but not
    pickled. Equal texts are equal secrets, compared in constant time. Raises ArgumentError for what is no text.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ArgumentError(f"text: a secret is text, not {type(text).__qualname__}")
        self.__text = text

    def reveal(self) -> str:
        """Return the text."""
        return self.__text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, other_text = (text.encode("utf-8", "surrogatepass") for text in (self.__text, other.__text))
        return hmac.compare_digest(mine, other_text)

    def __hash__(self) -> int:
        return hash((Secret, self.__text))


def hides_secrets(function: Callable[P, R]) -> Callable[P, R]:
    """Let the traceback of what the function raises end at its call: error trackers collect the locals of each frame.

    For an OutboxError nothing is lost, its message says it all. Any other error keeps its causes, without their frames,
    and a note of where it was raised.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        outer = sys.exc_info()[1]
        try:
            return function(*args, **kwargs)
        except Exception as error:
            del args, kwargs
            _forget_frames(error, outer)
            raise error  # noqa: TRY201 - a bare raise would bring the frames back

    return call


def _forget_frames(error: BaseException, outer: BaseException | None) -> None:
    """Take the frames from an error and from what led to it, up to the one that the caller handles already."""
    if isinstance(error, OutboxError):
        error.__cause__, error.__context__ = None, outer
    elif error.__traceback__:
        error.add_note("raised in\n" + "".join(traceback.format_tb(error.__traceback__, -FRAMES_NOTED)).rstrip())
    each: BaseException | None = error
    seen: set[int] = set()
    while each is not None and each is not outer and id(each) not in seen:
        seen.add(id(each))
        _redact(each)
        each = each.__cause__ or each.__context__


def _redact(error: Any) -> None:
    """Take from one error its frames and what it quotes of the arguments."""
    error.__traceback__ = None
    if isinstance(error, UnicodeEncodeError | UnicodeDecodeError):
        error.args, error.object = (), error.object[:0]  # the text that could not be encoded
    if getattr(error, "params", None) is not None:  # SQLAlchemy's errors hold the statement's parameters
        error.params = None
    original = getattr(error, "orig", None)
    if isinstance(original, BaseException):
        original.__traceback__ = None
