"""Build and send the requests of one subscription: its endpoint, its signer, its header lines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from outbox.signing import schemes
from relay.http.begun import read_by
from relay.http.sender import Endpoint
from relay.message.authentication import RequestAdditions
from relay.message.body import body_of
from relay.message.echoes import redact_echoes
from relay.message.formats import FormatError, Formatter, batch_of
from relay.message.trace import Traced
from relay.message.transformation.transformation import Transformation
from relay.model.outcome import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from relay.http.sender import Sender
    from relay.model.event import EventParts
    from relay.model.subscription import SubscriptionVersion
    from relay.secrets.keyring import Keyring

__all__ = ["Envelope"]

CONTENT_TYPE = b"content-type: application/json\r\n"
BATCH_TYPE = b"batch"  # for schemes that send the type of the event in a header


class Envelope:
    """Made once for each version of a subscription, used for each of its requests.

    needs_time: making what is sent may take so long that it is to be waited for (relay.engine.transforming).
    """

    __slots__ = ("_additions", "_format_lines", "_lines", "_signer", "endpoint", "formatter", "needs_time",
                 "transformation")  # fmt: skip

    def __init__(self, subscription: SubscriptionVersion, keyring: Keyring) -> None:
        """Open the secrets and parse the URL.

        Raises:
            KeyUnavailableError: a secret is sealed to a key that is not in the keyring.
            SubscriptionError: the URL, the scheme, the transformation or a secret cannot be used.
        """
        opened = [(kind, keyring.open(text, subscription.id, kind).reveal()) for kind, text in subscription.secrets]
        self._signer = schemes.signer(subscription.scheme, [text for kind, text in opened if kind == "signing"])
        others = {kind: text for kind, text in opened if kind != "signing"}
        self.formatter = _formatter_of(subscription, others.pop("format_secret", ""))
        user_agent = self.formatter.format.user_agent if self.formatter else None
        owner, expression = subscription.id, subscription.transformation
        self.transformation = Transformation(expression) if expression else None
        self.needs_time = bool(expression) or (self.formatter is not None and self.formatter.parses_up_to > 0)
        self._additions = RequestAdditions(subscription.url, others, owner, user_agent) if others else None
        self.endpoint = (
            self._additions.endpoint if self._additions
            else Endpoint.of(subscription.url, owner=owner, user_agent=user_agent)
        )  # fmt: skip
        self._lines = self._content_type + (self._additions.lines if self._additions else b"")
        # A scheme may write the same header, and then does it for both.
        self._format_lines = self.formatter is not None and not (
            set(self.formatter.format.headers) & schemes.sent_headers(subscription.scheme)
        )

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """Return what of its format and URL must not be shown of a request, in every spelling."""
        return self.formatter.secrets if self.formatter else ()

    @property
    def _content_type(self) -> bytes:
        return f"content-type: {self.formatter.content_type}\r\n".encode("ascii") if self.formatter else CONTENT_TYPE

    def transform(self, event: EventParts) -> EventParts:
        """Return the event with the data that are to be sent; most subscriptions have no transformation.

        Raises TransformationError where the subscription's transformation makes nothing of the event.
        """
        return self.transformation.of(event) if self.transformation is not None else event

    def send(
        self, sender: Sender, event: EventParts, timestamp: bytes, timeout_seconds: float, attempt: int = 1
    ) -> Awaitable[Outcome]:
        """POST the event, signed with `timestamp` (seconds since 1970). Awaiting it raises for no expected failure.

        `attempt` is its number, from 1: whatever was not the first is a retry, and dials anew.
        `event` is what `transform` made of the recorded one.
        """
        endpoint = self.endpoint if attempt == 1 else replace(self.endpoint, for_retry=True)
        if event.trace is not None:
            sender = Traced(sender, event, endpoint, attempt)
        if self.formatter is not None:
            return self._send_formatted(self.formatter, sender, event, timestamp, timeout_seconds, endpoint)
        body = body_of(event)
        lines = self._lines + self._signer.lines(event.id, event.type, timestamp, body)
        if self._additions is not None:
            return self._additions.send(sender, lines, body, timeout_seconds, endpoint)
        return sender.send(endpoint, lines, body, timeout_seconds)

    def fit(self, event: EventParts) -> EventParts:
        """Return the event, which `transform` made, as it goes into a batch. Raises FormatError where it cannot."""
        if self.formatter is not None:
            self.formatter.body_of(event)  # the event keeps it
        return event

    async def send_batch(
        self, sender: Sender, events: Sequence[EventParts], batch_id: bytes, timestamp: bytes, timeout_seconds: float,
        attempt: int,
    ) -> Outcome:  # fmt: skip
        """POST events that `fit` returned, in one body that is signed once under the id of the batch.

        The events' traces are not sent along: a request has one.
        """
        endpoint = self.endpoint if attempt == 1 else replace(self.endpoint, for_retry=True)
        batch = batch_of(events, self.formatter)
        lines = f"content-type: {batch.content_type}\r\n".encode("ascii")
        lines += self._additions.lines if self._additions else b""
        lines += self._signer.lines(batch_id, BATCH_TYPE, timestamp, batch.content)
        if self._additions is not None:
            outcome = await self._additions.send(sender, lines, batch.content, timeout_seconds, endpoint)
        else:
            outcome = await sender.send(endpoint, lines, batch.content, timeout_seconds)
        return redact_echoes(outcome, self.secrets)

    def _send_formatted(
        self, formatter: Formatter, sender: Sender, event: EventParts, timestamp: bytes, timeout_seconds: float,
        endpoint: Endpoint,
    ) -> Awaitable[Outcome]:  # fmt: skip
        """Send the body of another format, and read the answer as its receiver means it."""
        try:
            body = formatter.body_of(event)
        except FormatError as error:
            return _unformatted(error)
        lines = self._lines + (body.lines if self._format_lines else b"")
        lines += self._signer.lines(event.id, event.type, timestamp, body.content)
        if self._additions is not None:
            sent = self._additions.send(sender, lines, body.content, timeout_seconds, endpoint)
        else:
            sent = sender.send(endpoint, lines, body.content, timeout_seconds)
        return read_by(formatter.read, sent)


async def _unformatted(error: FormatError) -> Outcome:
    return Outcome(OutcomeKind.UNFORMATTED, None, 0, str(error), sent=False)


def _formatter_of(subscription: SubscriptionVersion, secret: str) -> Formatter | None:
    """Return what makes the bodies; None for the standard format, which needs nothing."""
    if subscription.format == "standard":
        return None
    return Formatter(subscription.format, subscription.format_settings, secret, subscription.url)
