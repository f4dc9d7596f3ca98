"""The one way out of the process: which addresses may be dialled, connections, and the sender.

Nothing else opens a socket to a URL that a user gave.
"""

from relay.http.addresses import AddressPolicy
from relay.http.outcome import Outcome, OutcomeKind
from relay.http.sender import DirectSender, Endpoint, Sender

__all__ = ["AddressPolicy", "DirectSender", "Endpoint", "Outcome", "OutcomeKind", "Sender"]
