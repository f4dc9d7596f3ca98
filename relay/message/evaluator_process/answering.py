"""Answer what the process is asked. Whatever goes wrong becomes an answer."""

from __future__ import annotations

import gc
import json
import marshal
import traceback
from typing import TYPE_CHECKING

from outbox.subscriptions.filters import Answer, FilteredEvent, FilterSet, stored_filter
from relay.message.evaluator_process.evaluator import PING
from relay.message.evaluator_process.requests import FAILED, MADE, REFUSED, UNKNOWN
from relay.message.formats import FormatError, Formatter
from relay.message.transformation.budget import TransformationError
from relay.message.transformation.transformation import Transformation
from relay.model.event import EventParts

if TYPE_CHECKING:
    from relay.message.evaluator_process.requests import FiltersAsked, FormatAsked, TransformationAsked

__all__ = ["answer"]

KEPT_TEXT_MAX = 4 * 1024 * 1024  # of the filters that are kept compiled; that is some fifteen times as much


def answer(request: bytes) -> bytes:
    """Return the answer to one request; see requests.py."""
    if request == PING:
        return PING
    gc.disable()  # there are no cycles to be found in what is read, only time to be lost
    try:
        asked = marshal.loads(request)  # noqa: S302 - the relay made it
        if asked[0] == "filters":
            return _filtered(asked)
        return MADE + (_formatted(asked) if asked[0] == "format" else _transformed(asked))
    except (TransformationError, FormatError) as error:
        return REFUSED + str(error).encode()
    except MemoryError:
        return REFUSED + b"it needs more memory for this event than an evaluation may have"
    except Exception as error:  # noqa: BLE001 - the relay tells it, and the next request is another one
        last = traceback.extract_tb(error.__traceback__)[-1]
        return FAILED + f"{type(error).__name__} at {last.filename}:{last.lineno}".encode()
    finally:
        gc.enable()


def _transformed(asked: TransformationAsked) -> bytes:
    _, expression, identity, type_, tenant, key, recorded_at, payload, metadata = asked
    event = EventParts(identity, type_, tenant, key, recorded_at, payload, metadata=metadata)
    return Transformation(expression).of(event).payload


def _formatted(asked: FormatAsked) -> bytes:
    _, name, settings, secret, identity, type_, tenant, key, recorded_at, payload = asked
    event = EventParts(identity, type_, tenant, key, recorded_at, payload)
    return Formatter(name, settings, secret).body_of(event).content


def _filtered(asked: FiltersAsked) -> bytes:
    _, digest, texts, type_, key, payload, metadata = asked
    if texts is not None:
        KNOWN.put(digest, texts)
    filters = KNOWN.sets.get(digest)
    if filters is None:
        return UNKNOWN
    event = FilteredEvent(type_.decode(), payload, key=key, metadata=metadata)
    found = [(name, one.answer(event)) for name, one in filters.candidates(event)]
    return MADE + json.dumps([[name.hex(), said] for name, said in found if said is not Answer.NO_MATCH]).encode()


class _Known:
    """The sets of filters that were told last, those that fit; one fits in any case."""

    def __init__(self) -> None:
        self.sets: dict[bytes, FilterSet] = {}
        self._sizes: dict[bytes, int] = {}

    def put(self, digest: bytes, texts: dict[bytes, str]) -> None:
        size = sum(map(len, texts.values()))
        while self._sizes and sum(self._sizes.values()) + size > KEPT_TEXT_MAX:
            oldest = next(iter(self._sizes))
            del self._sizes[oldest], self.sets[oldest]
        self.sets[digest] = FilterSet({name: stored_filter(text) for name, text in texts.items()})
        self._sizes[digest] = size


KNOWN = _Known()
