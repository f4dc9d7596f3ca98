"""The one way out of the process: which addresses may be dialled, connections, and the sender.

Nothing else opens a socket to a URL that a user gave.
"""

from outbox.subscriptions.addresses import AddressPolicy
from relay.http.dial import DirectDialler
from relay.http.sender import Endpoint, HttpSender, Sender
from relay.model.outcome import Outcome, OutcomeKind

__all__ = ["AddressPolicy", "DirectDialler", "Endpoint", "HttpSender", "Outcome", "OutcomeKind", "Sender"]
