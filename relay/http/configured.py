"""Make the sender and the address policy that the configuration asks for.

Everybody who sends calls these, so that nobody forgets the policy or the proxy.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from outbox._version import __version__
from relay.config.options import ConfigError
from relay.http.addresses import AddressPolicy
from relay.http.sender import DirectSender

if TYPE_CHECKING:
    from relay.config.options import Config
    from relay.http.sender import Sender

__all__ = ["USER_AGENT", "check_sender", "make_policy", "make_sender"]

USER_AGENT = f"outbox-relay/{__version__}"


def make_policy(config: Config) -> AddressPolicy:
    """Return what may be dialled under this configuration."""
    return AddressPolicy(config.allow_networks, allow_http=config.allow_http, allow_ports=config.allow_ports)


def check_sender(config: Config) -> None:
    """Raise ConfigError when the package that serves the egress proxy is asked for and not installed."""
    if config.egress_proxy is not None and find_spec("httpcore") is None:
        raise ConfigError("egress_proxy: needs the extra 'proxy'; pip install 'outbox-relay[proxy]'")


def make_sender(config: Config) -> Sender:
    """Return the one way out of this process, for one event loop, to be closed after use; raises as `check_sender`."""
    check_sender(config)
    if config.egress_proxy is not None:
        from relay.http.proxied import ProxySender

        return ProxySender(make_policy(config), config.egress_proxy, user_agent=USER_AGENT)
    return DirectSender(
        make_policy(config),
        user_agent=USER_AGENT,
        connections_per_endpoint=config.max_in_flight,  # each endpoint bounds its own; several may share an origin
    )
