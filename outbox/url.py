"""Strict syntax of an endpoint's URL: one parser whose result is stored, checked, shown and dialled.

It refuses what other parsers read in different ways (user info, backslashes, white space, unusual spellings of an
address) instead of repairing it. Its errors never quote the path or the query, where people like to put tokens.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from outbox.errors import SubscriptionError

__all__ = ["Url", "parse_url"]

MAX_URL_OCTETS = 8000
"""RFC 9110 asks everyone to support request lines of this length, and nobody to support more."""

DEFAULT_PORTS = {"http": 80, "https": 443}
"""The schemes there are, and the port of each."""

_SHAPE = re.compile(r"(?P<scheme>[^:/?]*)://(?P<authority>[^/?]*)(?P<path>/[^?]*)?(?P<query>\?.*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_TARGET = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]]|%[0-9A-Fa-f]{2})*")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its one spelling: lower-case host (an IPv6 address without brackets), port always known.

    `target` is what goes into the request line, `text` the whole URL as it is stored and shown.
    """

    scheme: str
    host: str
    port: int
    target: str
    text: str

    @property
    def authority(self) -> str:
        """Return the value of the Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(text: object) -> Url:
    """Return the URL, or raise SubscriptionError whose message begins with `url:`."""
    shape = _SHAPE.fullmatch(_characters_checked(text))
    if shape is None:
        raise _refused("must begin with https://")
    scheme = shape["scheme"].lower()
    if scheme not in DEFAULT_PORTS:
        raise _refused("its scheme must be https or http")
    if "@" in shape["authority"]:
        raise _refused("holds a user name; remove everything between // and @")
    authority = _AUTHORITY.fullmatch(shape["authority"])
    if authority is None:
        raise _refused("must name one host, then optionally : and a port number")
    url = Url(scheme, _host(authority["host"]), _port(authority["port"], scheme), _target(shape), "")
    return Url(url.scheme, url.host, url.port, url.target, f"{scheme}://{url.authority}{url.target}")


def _refused(reason: str) -> SubscriptionError:
    return SubscriptionError(f"url: {reason}")


def _characters_checked(text: object) -> str:
    if not isinstance(text, str) or not text:
        raise _refused("must be text, such as https://example.com/hooks")
    if len(text) > MAX_URL_OCTETS:
        raise _refused(f"{len(text)} characters long; at most {MAX_URL_OCTETS} are allowed")
    if not text.isascii():
        raise _refused("holds characters outside ASCII; write the host in its xn-- form and percent-encode the rest")
    if not all("!" <= character <= "~" for character in text):
        raise _refused("holds a space or a control character; remove or percent-encode it")
    if "#" in text:
        raise _refused("has a fragment (#…), which is never sent; remove it")
    if "\\" in text:
        raise _refused("holds a backslash; write / or %5C")
    return text


def _port(digits: str | None, scheme: str) -> int:
    port = DEFAULT_PORTS[scheme] if digits is None else int(digits)
    if not 0 < port < 65536:
        raise _refused("its port must be 1 to 65535")
    return port


def _target(shape: re.Match[str]) -> str:
    target = (shape["path"] or "/") + (shape["query"] or "")
    if not _TARGET.fullmatch(target):
        raise _refused("its path or query holds a character that must be percent-encoded")
    return target


def _host(written: str) -> str:
    if written.startswith("["):
        return _address(written[1:-1], ipaddress.IPv6Address)
    name = written.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _address(written, ipaddress.IPv4Address)
    if len(name) > 253 or not all(_LABEL.fullmatch(label) and label != "xn--" for label in labels):
        raise _refused("its host is not a name such as hooks.example.com")
    return name


def _address(written: str, family: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> str:
    try:
        address = family(written)
    except ValueError:
        raise _refused("its host looks like a number; write an address as 192.0.2.1 or [2001:db8::1]") from None
    if "%" in written:
        raise _refused("its host has a zone id (%…), which only this machine could understand")
    return str(address)
