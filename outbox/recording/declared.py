"""The place where a catalogue of event types meets `record()` and `subscribe()`, which know nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Collection

__all__ = ["OF_PROCESS", "Declared"]


class Declared:
    """What is declared. `write` checks data of a type and returns its JSON text; None while there is nothing to check.

    Its arguments are the type, the data and the longest text in bytes; it raises what `record()` does. `names` are the
    types; `closed`, whether there are no others.
    """

    write: Callable[[str, object, int], str] | None = None
    names: Collection[str] = ()
    closed: bool = False


OF_PROCESS = Declared()
"""What `outbox.record()` and `outbox.subscribe()` ask: the default catalogue puts its check and its types here."""
