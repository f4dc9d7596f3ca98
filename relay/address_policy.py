"""The address policy that the configuration adds up to, made here for all who send, lest an option is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.http.addresses import AddressPolicy

if TYPE_CHECKING:
    from relay.config import Config

__all__ = ["address_policy"]


def address_policy(config: Config) -> AddressPolicy:
    """Return what may be dialled under this configuration."""
    return AddressPolicy(config.allow_networks, allow_http=config.allow_http, allow_ports=config.allow_ports)
