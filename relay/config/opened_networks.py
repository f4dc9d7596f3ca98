"""What networks open that the policy forbids by default, in words for a warning.

To open one network that is wanted needs no warning: 10.1.0.0/16, 127.0.0.0/8. One that spans whole ranges of other
kinds does, as 0.0.0.0/1 does with loopback and the private networks; so does whatever reaches the metadata service of a
cloud, which hands out the machine's own credentials, and IPv6 ranges that stand for every IPv4 address.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING

from outbox.subscriptions.addresses import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["opened"]

Network = IPv4Network | IPv6Network

_METADATA = tuple(
    map(ip_network, ("169.254.169.254/32", "169.254.170.2/32", "168.63.129.16/32", "192.0.0.192/32",
                     "100.100.100.200/32", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128"))
)  # fmt: skip
_RANGES = (
    *TABLE,
    *((ip_network(network), kind) for network, kind in (
        ("::/128", "this machine"), ("::1/128", "loopback"), ("::ffff:0:0/96", "every IPv4 address, mapped"),
        ("64:ff9b::/96", "every IPv4 address, by NAT64"), ("64:ff9b:1::/48", "every IPv4 address, by NAT64"),
        ("2002::/16", "every IPv4 address, by 6to4"), ("fc00::/7", "private"), ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"), ("ff00::/8", "multicast"),
    )),
)  # fmt: skip


def opened(networks: Iterable[Network]) -> list[str]:
    """Return in words what these networks open together that calls for a warning, each kind once; [] for nothing."""
    given = _merged(networks)
    found = ["every address"] if any(network.prefixlen == 0 for network in given) else []
    found += [kind for network, kind in _RANGES if _spans(given, network) or _stands_for_ipv4(given, network, kind)]
    if any(_overlap(one, place) for one in given for place in _METADATA):
        found.append("cloud metadata services")
    return list(dict.fromkeys(found))


def _merged(networks: Iterable[Network]) -> list[Network]:
    listed = list(networks)
    return [
        *collapse_addresses(network for network in listed if isinstance(network, IPv4Network)),
        *collapse_addresses(network for network in listed if isinstance(network, IPv6Network)),
    ]


def _spans(given: list[Network], special: Network) -> bool:
    """Tell whether a network holds this whole range and more."""
    return any(one.version == special.version and one != special and _within(special, one) for one in given)


def _stands_for_ipv4(given: list[Network], special: Network, kind: str) -> bool:
    return "every IPv4" in kind and any(_overlap(one, special) for one in given)


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and outer.prefixlen <= inner.prefixlen and _overlap(inner, outer)


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
