"""The one way out of the process: which addresses may be dialled, connections, and the sender.

Nothing else opens a socket to a URL that a user gave. In the order of a request:

- sender.py sends; configured.py makes it from the configuration, begun.py is a request that is under way
- the way: dial.py looks the name up (resolver.py), refuses private addresses (the rule is in
  outbox/subscriptions/addresses.py) and dials; tunnel.py and proxy_talk.py do so through an egress proxy
- the connection: pool.py, connection.py, tls.py (the subscription's certificates), tls_layer.py (TLS in TLS)
- the answer: reader.py reads and bounds it, response.py judges its head (Retry-After, keep-alive), conclusion.py makes
  the outcome of it (2xx, redirects, 4xx), irregularities.py counts endpoints that send what nobody asked for
"""

from outbox.subscriptions.addresses import AddressPolicy
from relay.http.dial import DirectDialler
from relay.http.sender import Endpoint, HttpSender, Sender
from relay.model.outcome import Outcome, OutcomeKind

__all__ = ["AddressPolicy", "DirectDialler", "Endpoint", "HttpSender", "Outcome", "OutcomeKind", "Sender"]
