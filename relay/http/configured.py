"""Make the sender and the address policy that the configuration asks for.

Everybody who sends calls these, so that nobody forgets the policy or the proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox._version import __version__
from outbox.subscriptions.addresses import AddressPolicy
from relay.http.dial import DirectDialler
from relay.http.sender import HttpSender
from relay.http.tunnel import TunnelDialler

if TYPE_CHECKING:
    from relay.config.options import Config
    from relay.http.dial import Dialler

__all__ = ["USER_AGENT", "make_dialler", "make_policy", "make_sender"]

USER_AGENT = f"outbox-relay/{__version__}"


def make_policy(config: Config) -> AddressPolicy:
    """Return what may be dialled under this configuration."""
    return AddressPolicy(config.allow_networks, allow_http=config.allow_http, allow_ports=config.allow_ports)


def make_dialler(config: Config) -> DirectDialler | TunnelDialler:
    """Return what reaches endpoints: directly, or through the egress proxy where one is set."""
    if config.egress_proxy is None:
        return DirectDialler(make_policy(config))
    return TunnelDialler(make_policy(config), config.egress_proxy)


def make_sender(config: Config, dialler: Dialler | None = None) -> HttpSender:
    """Return the one way out of this process, for one event loop; closing it closes its dialler too.

    `dialler`: from `make_dialler`, where the caller needs it besides; else one is made.
    """
    return HttpSender(
        dialler or make_dialler(config),
        user_agent=USER_AGENT,
        connections_per_endpoint=config.max_in_flight,  # the window of each subscription is smaller
    )
