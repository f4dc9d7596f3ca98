"""Which endpoints this application lets people subscribe: by default what a relay's address policy allows by default.

A relay checks again at every request, by its own configuration and the address that a name has then. Here is refused
what can never be delivered: an address or name that the policy forbids, plain http, a port of another protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from outbox._text import brief
from outbox.errors import ArgumentError, SubscriptionError
from outbox.subscriptions.addresses import AddressPolicy, Network
from outbox.subscriptions.url import Url

__all__ = ["allow_endpoints", "also_allowed", "require_allowed"]

_chosen = [AddressPolicy()]
_also: dict[object, list[Any]] = {}  # by the block that allows them: blocks may end in any order


def allow_endpoints(
    *, allow_networks: Iterable[str | Network] = (), allow_http: bool = False, allow_ports: Iterable[int] = ()
) -> None:
    """Say in this process, when it starts, which endpoints may be subscribed besides public https ones.

    Give what the relay has in RELAY_ALLOW_NETWORKS, RELAY_ALLOW_HTTP and RELAY_ALLOW_PORTS: the relay decides by those
    at each request. Another call replaces this one; without arguments it is the default again.

    Args:
        allow_networks: networks in CIDR form, such as 127.0.0.0/8; then names of private networks are allowed too.
        allow_http: whether a URL may begin with http://.
        allow_ports: the only ports there may be; empty: all but those of other protocols, such as 25.

    Raises:
        ArgumentError: an argument was refused; what was allowed before stays.
    """
    if not isinstance(allow_http, bool):
        raise ArgumentError(f"allow_http: {brief(allow_http)} is not True or False")
    networks, ports = _listed("allow_networks", allow_networks), _listed("allow_ports", allow_ports)
    try:
        policy = AddressPolicy(networks, allow_http=allow_http, allow_ports=ports)
    except ValueError as error:
        raise ArgumentError(str(error)) from None
    _chosen[0] = policy


@contextmanager
def also_allowed(allow_networks: Iterable[str]) -> Iterator[None]:
    """Allow these networks, and plain http, besides what is allowed, inside this block; for tests."""
    block, networks = object(), _listed("allow_networks", allow_networks)
    AddressPolicy().widened(networks)  # a network that is none is refused here
    _also[block] = networks
    try:
        yield
    finally:
        del _also[block]


def require_allowed(name: str, url: Url) -> None:
    """Raise SubscriptionError, whose message begins with `name`, for a URL that a relay would not call."""
    policy = _chosen[0]
    for networks in [*_also.values()]:
        policy = policy.widened(networks)
    refusal = policy.refusal_of_url(url)
    if refusal is not None:
        raise SubscriptionError(f"{name}: {refusal}")


def _listed(name: str, value: object) -> list[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ArgumentError(f"{name}: {brief(value)} is not a list")
    return [*value]
