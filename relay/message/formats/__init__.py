"""The bodies of all formats but the standard one: each a pure function from an event to bytes and header lines.

outbox.formats declares what a format is called and can be told. Here is one module a family, one line a format;
receivers.py has what the answers of known receivers mean. `Formatter` is one format with one subscription's settings.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from outbox import formats
from outbox.errors import SubscriptionError
from relay.message.body import body_of
from relay.message.echoes import redact_echoes, spellings_of
from relay.message.formats import chat, cloudevents, pagerduty, plain, zapier
from relay.message.formats.json_text import quoted
from relay.message.formats.maker import FormatError
from relay.message.formats.receivers import ANSWERS
from relay.message.formats.wording import parsed_up_to
from relay.model.event import Body
from relay.model.receiver_rules import read_answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.message.formats.maker import Family
    from relay.model.event import EventParts
    from relay.model.outcome import Outcome

__all__ = ["FORMATS", "Batch", "FormatError", "Formatter", "batch_of"]

FORMATS: Mapping[str, Family] = {
    **plain.FORMATS, **cloudevents.FORMATS, **chat.FORMATS, **pagerduty.FORMATS, **zapier.FORMATS,
}  # fmt: skip
"""What makes the bodies, by format; those of `standard` are made in body.py."""


_TELLING = 16  # characters: shorter pieces of a URL are words, and stand everywhere


class Formatter:
    """Makes the bodies of one subscription. Two with equal settings share the bytes, by way of the event.

    content_type: of each request. answers: what the receiver's answers mean, () where its rules are not known.
    secrets: what must not be shown of a request or its answer, in every spelling. parses_up_to: bytes of data that are
    parsed to make a body, which holds whoever does it; 0 where they are put in as they are.
    """

    __slots__ = ("_key", "_make", "_secret", "answers", "content_type", "format", "parses_up_to", "secrets", "settings")

    def __init__(self, name: str, settings: Mapping[str, Any], secret: str = "", url: str = "") -> None:
        """Check what is stored, since a row can be written by hand.

        Raises:
            SubscriptionError: the format is not known, or cannot be told this.
        """
        self.format = formats.named(name)
        checked = formats.check_settings(self.format, settings)
        if self.format.secret and not secret:
            raise SubscriptionError(f"format_secret: {name} needs its {self.format.secret}, and there is none")
        self.settings, self._secret = checked, secret
        self._make = FORMATS[name](checked, secret)
        self.parses_up_to = _parses_up_to(name, checked)
        self._key = f"{name}\n{json.dumps(checked, sort_keys=True)}\n{secret}"
        self.content_type = self.format.content_type
        if name == "cloudevents-binary":
            self.content_type = checked.get("datacontenttype", self.content_type)
        self.answers = ANSWERS.get(name, ())
        self.secrets = spellings_of([*filter(None, [secret]), *_redacted_parts(url, formats.shown_url(url, name))])

    def body_of(self, event: EventParts) -> Body:
        """Return the event's body; the event keeps it. Raises FormatError where it has none in this format."""
        made = self.kept(event)
        if made is None:
            try:
                made = event.bodies[self._key] = self._make(event)
            except RecursionError:
                raise FormatError("data: is nested too deep for this format; record it flatter") from None
        return made

    def read(self, outcome: Outcome) -> Outcome:
        """Return the outcome as the receiver means its answer, without the secrets of the request."""
        return read_answer(redact_echoes(outcome, self.secrets), self.answers)

    def kept(self, event: EventParts) -> Body | None:
        """Return the body that the event keeps of a former call; None where it has none."""
        return event.bodies.get(self._key)

    @property
    def _quoted_secret(self) -> bytes:
        return quoted(self._secret).encode("utf-8", "replace")[1:-1]

    @property
    def placeholder(self) -> str:
        """Return what stands for the secret where a body is made that this process completes: it is as long."""
        return "?" * len(self._quoted_secret)

    def keep(self, event: EventParts, content: bytes) -> None:
        """Let the event keep the body that another process made, which was told the placeholder for the secret.

        The secret stands in a body before anything that comes from an event.
        """
        if self._secret:
            content = content.replace(self.placeholder.encode(), self._quoted_secret, 1)
        event.bodies[self._key] = Body(content)


def _parses_up_to(name: str, settings: Mapping[str, Any]) -> int:
    if name in chat.FORMATS:
        return parsed_up_to(settings.get("text"))
    if name == "pagerduty":
        return parsed_up_to(settings["summary"]) if "summary" in settings else 0
    return sys.maxsize if name == "zapier" else 0


def _redacted_parts(url: str, shown: str) -> list[str]:
    """Return what of a URL is not shown, as a whole and in its longer pieces: an answer may repeat one of them."""
    if url == shown:
        return []
    secret = url[len(shown.partition(formats.REDACTED)[0]) :]
    return [piece for piece in (secret, *re.split("[/?&=]", secret)) if len(piece) >= _TELLING]


class Batch(NamedTuple):
    """Several events in one body."""

    content_type: str
    content: bytes


def _part_of(event: EventParts) -> bytes:
    return b'{"id":"%b",%b' % (event.id, body_of(event)[1:])


def batch_of(events: Sequence[EventParts], formatter: Formatter | None = None) -> Batch:
    """Return the events as one body: a JSON array of what each would be alone. None is the standard format.

    That has an event's id in a header; in a batch it is the first member of its part, so that a receiver can tell an
    event that comes again in another batch.

    Raises:
        SubscriptionError: the receiver of this format takes one event at a time.
        FormatError: one of the events has no body in this format.
    """
    form = formats.FORMATS["standard"] if formatter is None else formatter.format
    if not form.batch:
        raise SubscriptionError(f"format: {form.name} takes one event at a time; send no batches, or choose another")
    bodies = [_part_of(event) if formatter is None else formatter.body_of(event).content for event in events]
    return Batch(form.batch, cloudevents.batched(bodies))
