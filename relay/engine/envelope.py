"""What the requests of one subscription have in common: where to, signed by what, with which header lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.signature import Signer
from relay.http.sender import Endpoint

if TYPE_CHECKING:
    from relay.engine.states import Event, Subscription
    from relay.http.outcome import Outcome
    from relay.http.sender import Sender
    from relay.keyring import Keyring

__all__ = ["Envelope"]


class Envelope:
    """Made once for each version of a subscription, used for each of its requests."""

    __slots__ = ("_signer", "endpoint")

    def __init__(self, subscription: Subscription, keyring: Keyring) -> None:
        """Open the secrets and parse the URL.

        Raises:
            KeyUnavailableError: a secret is sealed to a key that is not in the ring.
            SubscriptionError: the URL or a secret cannot be used.
        """
        opened = [(kind, keyring.open(text, subscription.id, kind)) for kind, text in subscription.secrets]
        self.endpoint = Endpoint.of(subscription.url)
        self._signer = Signer([secret.reveal() for kind, secret in opened if kind == "signing"])

    async def send(self, sender: Sender, event: Event, timestamp: bytes, timeout_seconds: float) -> Outcome:
        """POST the event, signed as of `timestamp` (seconds since 1970); never raises for an expected failure."""
        lines = self._signer.lines(event.id, event.type, timestamp, event.body)
        return await sender.send(self.endpoint, lines, event.body, timeout_seconds)
