"""Which addresses the relay may dial: public unicast ones, and the networks that the operator added.

The relay asks at each request, of the address that it dials; `outbox.subscribe` asks of the URL, by the same rules.

The table is our own. Python's `ipaddress` calls several transition, multicast and deprecated addresses global, and
which ones differs by version, so neither `is_global` nor `is_private` can be the policy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from outbox._text import brief
from outbox.subscriptions.url import Url

__all__ = ["AddressPolicy", "is_private_name", "literal_address"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Compared with the IANA Special-Purpose Address Registries of 2025-10-09 (newest entry: 100:0:0:1::/64, RFC 9780).
FORBIDDEN = {
    # IPv4: every entry of the registry, whatever its "globally reachable" column says
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared (carrier NAT)",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local (cloud metadata)",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "AS112 sink",
    "192.52.193.0/24": "AMT relay",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "AS112 sink",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved or broadcast",
    "168.63.129.16/32": "Azure host services",  # a public address, but virtual inside every Azure network
    # IPv6: nothing outside 2000::/3 (mapped, NAT64, local, multicast …), and these inside it
    "2001::/23": "protocol assignments (Teredo, AMT, ORCHID …)",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "2620:4f:8000::/48": "AS112 sink",
    "3fff::/20": "documentation",
}
TABLE = tuple((ipaddress.ip_network(network), reason) for network, reason in FORBIDDEN.items())
GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
ISATAP = frozenset((0x0000_5EFE, 0x0200_5EFE))
"""The upper half of an interface identifier whose lower half is an IPv4 address, under any prefix (RFC 5214)."""

# The "bad ports" of the WHATWG Fetch standard: services that could misread a request as their own protocol.
# fmt: off
_BAD_PORTS = frozenset((
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103,
    104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513,
    514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720,
    1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
))
# fmt: on

_PRIVATE_SUFFIXES = (".localhost", ".localdomain", ".local", ".internal", ".home.arpa")
_NO_DNS_SUFFIXES = (".onion", ".alt", ".invalid")  # RFC 7686, 9476, 6761: to ask the DNS for one only betrays it


def is_private_name(host: str) -> bool:
    """Tell whether only a private network can know this name: one label, or a suffix reserved for such use."""
    return "." not in host.strip(".") or host.endswith(_PRIVATE_SUFFIXES)


class AddressPolicy:
    """The operator's decision on what may be dialled; there is no switch that turns it off.

    `allow_networks` are CIDRs added to the public addresses, each for addresses written as it is: 10.0.0.0/8 does
    not open ::ffff:10.0.0.1 or any other IPv6 form. `allow_http` admits plain http. `allow_ports` are the only ports
    there are then; without them every port is, but those that belong to another protocol. Raises ValueError naming
    the network or port that cannot be used.
    """

    def __init__(
        self,
        allow_networks: Iterable[str | Network] = (),
        *,
        allow_http: bool = False,
        allow_ports: Iterable[int] = (),
    ) -> None:
        self._allowed = tuple(_network(network) for network in allow_networks)
        self._allow_http = allow_http
        self._ports = frozenset(_port(port) for port in allow_ports)

    def widened(self, allow_networks: Iterable[str | Network]) -> AddressPolicy:
        """Return a policy that allows these networks and plain http, too."""
        return AddressPolicy((*self._allowed, *allow_networks), allow_http=True, allow_ports=self._ports)

    def refusal(self, address: str | Address) -> str | None:
        """Return why this address may not be dialled, or None when it may."""
        parsed = ipaddress.ip_address(address)
        reason = None if self.adds(parsed) else _forbidden(parsed)
        return reason and f"{parsed} is not a public address: {reason}; add its network to allow_networks to permit it"

    def adds(self, address: str | Address) -> bool:
        """Tell whether the operator named a network that this address is in."""
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._allowed)

    def refusal_of_url(self, url: Url) -> str | None:
        """Return why nothing may be sent to this URL, whatever its name resolves to, or None when it may."""
        if url.scheme != "https" and not self._allow_http:
            return "plain http is not allowed; use https or set allow_http"
        address = literal_address(url.host)
        return self._refusal_of_port(url.port) or (
            self._refusal_of_name(url.host) if address is None else self.refusal(address)
        )

    def _refusal_of_port(self, port: int) -> str | None:
        if self._ports:
            return None if port in self._ports else f"port {port} is not one of allow_ports"
        return f"port {port} belongs to another protocol; use another port" if port in _BAD_PORTS else None

    def _refusal_of_name(self, host: str) -> str | None:
        if host.endswith(_NO_DNS_SUFFIXES):
            return "its host is a name that the DNS does not have"
        if is_private_name(host) and not self._allowed:
            return "its host is a name of a private network; add that network to allow_networks to permit it"
        return None


def literal_address(host: str) -> Address | None:
    """Return the address that a URL's host is, or None when the host is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _forbidden(address: Address) -> str | None:
    if address.version == 6:
        if address not in GLOBAL_UNICAST_V6:
            return "outside the global unicast range 2000::/3"
        if int(address) >> 32 & 0xFFFF_FFFF in ISATAP:
            return "ISATAP, an IPv4 address in an IPv6 one"
    return next((reason for network, reason in TABLE if address in network), None)


def _network(given: object) -> Network:
    try:
        network = ipaddress.ip_network(given if isinstance(given, str | Network) else "")
    except ValueError:
        raise ValueError(f"allow_networks: {brief(given)} is not a network such as 10.0.0.0/8 or fd00::/8") from None
    if network.prefixlen == 0:
        raise ValueError(f"allow_networks: {given} is every address; name the networks that are needed")
    return network


def _port(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 < given < 65_536:
        raise ValueError(f"allow_ports: {brief(given)} is not a port from 1 to 65535")
    return given
