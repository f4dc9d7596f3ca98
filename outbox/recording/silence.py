"""Blocks in which events are not recorded, all or those of some types.

As a session in use, a silence is kept in a context variable. It ends with its block, also for tasks that were begun
inside and go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from outbox._patterns import check_patterns, covers
from outbox.errors import ArgumentError, SubscriptionError

__all__ = ["is_silenced", "silenced"]


class _Silence:
    __slots__ = ("is_open", "patterns")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = patterns
        self.is_open = True


_silences: ContextVar[tuple[_Silence, ...]] = ContextVar("outbox_silences", default=())


@contextmanager
def silenced(*types: str) -> Iterator[None]:
    """Record no event inside this block, or none of these types.

    What `record()` is given is checked as always; the event that it returns has `recorded` False. Blocks nest: an inner
    one adds to the outer. Threads do not see it, unless they run in a copy of the context; tasks begun inside do.

    Args:
        types: patterns as subscriptions have them: an exact type, a prefix and `.*`, or `*`; none: every type.

    Raises:
        ArgumentError: one is no pattern.
    """
    try:
        silence = _Silence(check_patterns("types", types or ("*",)))
    except SubscriptionError as error:
        raise ArgumentError(str(error)) from None
    outer = _silences.get()
    inner = (*outer, silence)
    _silences.set(inner)
    try:
        yield
    finally:
        silence.is_open = False
        if _silences.get() is inner:
            _silences.set(outer)


def is_silenced(type_: str) -> bool:
    """Tell whether events of this type are not recorded here."""
    silences = _silences.get()
    return bool(silences) and any(
        silence.is_open and any(covers(pattern, type_) for pattern in silence.patterns) for silence in silences
    )
