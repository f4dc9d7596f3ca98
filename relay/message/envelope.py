"""Build and send the requests of one subscription: its endpoint, its signer, its header lines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from outbox.signing import schemes
from relay.http.sender import Endpoint
from relay.message.authentication import RequestAdditions
from relay.message.body import body_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from relay.http.sender import Sender
    from relay.model.event import EventParts
    from relay.model.outcome import Outcome
    from relay.model.subscription import SubscriptionVersion
    from relay.secrets.keyring import Keyring

__all__ = ["Envelope"]

CONTENT_TYPE = b"content-type: application/json\r\n"


class Envelope:
    """Made once for each version of a subscription, used for each of its requests."""

    __slots__ = ("_additions", "_for_retry", "_lines", "_signer", "endpoint")

    def __init__(self, subscription: SubscriptionVersion, keyring: Keyring) -> None:
        """Open the secrets and parse the URL.

        Raises:
            KeyUnavailableError: a secret is sealed to a key that is not in the keyring.
            SubscriptionError: the URL, the scheme or a secret cannot be used.
        """
        opened = [(kind, keyring.open(text, subscription.id, kind).reveal()) for kind, text in subscription.secrets]
        self._signer = schemes.signer(subscription.scheme, [text for kind, text in opened if kind == "signing"])
        others = {kind: text for kind, text in opened if kind != "signing"}
        owner = subscription.id
        self._additions = RequestAdditions(subscription.url, others, owner) if others else None
        self.endpoint = self._additions.endpoint if self._additions else Endpoint.of(subscription.url, owner=owner)
        self._for_retry = replace(self.endpoint, for_retry=True)
        self._lines = CONTENT_TYPE + (self._additions.lines if self._additions else b"")

    def send(
        self, sender: Sender, event: EventParts, timestamp: bytes, timeout_seconds: float, attempt: int = 1
    ) -> Awaitable[Outcome]:
        """POST the event, signed with `timestamp` (seconds since 1970). Awaiting it raises for no expected failure.

        `attempt` is its number, from 1: whatever was not the first is a retry, and dials anew.
        """
        body, endpoint = body_of(event), self.endpoint if attempt == 1 else self._for_retry
        lines = self._lines + self._signer.lines(event.id, event.type, timestamp, body)
        if self._additions is not None:
            return self._additions.send(sender, lines, body, timeout_seconds, endpoint)
        return sender.send(endpoint, lines, body, timeout_seconds)
