"""Which sender the configuration asks for: made here for all who send, so that none forgets policy or proxy."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from outbox._version import __version__
from relay.address_policy import address_policy
from relay.config import ConfigError
from relay.http.sender import DirectSender

if TYPE_CHECKING:
    from relay.config import Config
    from relay.http.sender import Sender

__all__ = ["USER_AGENT", "check_sender", "make_sender"]

USER_AGENT = f"outbox-relay/{__version__}"


def check_sender(config: Config) -> None:
    """Raise ConfigError when the package that serves the egress proxy is asked for and not installed."""
    if config.egress_proxy is not None and find_spec("httpcore") is None:
        raise ConfigError("egress_proxy: needs the extra 'proxy'; pip install 'outbox-relay[proxy]'")


def make_sender(config: Config) -> Sender:
    """Return the one way out of this process, for one event loop, to be closed after use; raises as `check_sender`."""
    check_sender(config)
    if config.egress_proxy is not None:
        from relay.http.proxied import ProxySender

        return ProxySender(address_policy(config), config.egress_proxy, user_agent=USER_AGENT)
    return DirectSender(
        address_policy(config),
        user_agent=USER_AGENT,
        connections_per_endpoint=config.max_in_flight,  # a route bounds its own; several may share an origin
    )
