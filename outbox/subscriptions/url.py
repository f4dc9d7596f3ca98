"""Strict syntax of an endpoint's URL: one parser whose result is stored, checked, shown and dialled.

It refuses what other parsers read in different ways (user info, backslashes, white space, unusual spellings of an
address) instead of repairing it. A host outside ASCII is taken by IDNA 2008 (RFC 5891) as it stands or not at all, and
stored in its xn-- form. Errors never quote the path or the query, where people like to put tokens.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from outbox.errors import SubscriptionError

__all__ = ["Url", "bracketed", "parse_url"]

MAX_URL_OCTETS = 8000
"""RFC 9110 asks everyone to support request lines of this length, and nobody to support more."""

MAX_NAME_OCTETS = 253
MAX_LABEL_OCTETS = 63

DEFAULT_PORTS = {"http": 80, "https": 443}
"""The schemes there are, and the port of each."""

_SHAPE = re.compile(r"(?P<scheme>[^:/?]*)://(?P<authority>[^/?]*)(?P<path>/[^?]*)?(?P<query>\?.*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_TARGET = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]]|%[0-9A-Fa-f]{2})*")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0]")
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
        host = bracketed(self.host)
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def bracketed(host: str) -> str:
    """Return a host as it stands in a URL, before its port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def parse_url(text: object) -> Url:
    """Return the URL, or raise SubscriptionError whose message begins with `url:`."""
    shape = _SHAPE.fullmatch(_check_characters(text))
    if shape is None:
        raise _refusal("must begin with https://")
    scheme = shape["scheme"].lower()
    if scheme not in DEFAULT_PORTS or not shape["scheme"].isascii():
        raise _refusal("its scheme must be https or http")
    if "@" in shape["authority"]:
        raise _refusal("holds a user name; remove everything between // and @")
    authority = _AUTHORITY.fullmatch(shape["authority"])
    if authority is None:
        raise _refusal("must name one host, then optionally : and a port number")
    url = Url(scheme, _host(authority["host"]), _port(authority["port"], scheme), _target(shape), "")
    return replace(url, text=_check_length(f"{scheme}://{url.authority}{url.target}"))


def _refusal(reason: str) -> SubscriptionError:
    return SubscriptionError(f"url: {reason}")


def _check_characters(text: object) -> str:
    if not isinstance(text, str) or not text:
        raise _refusal("must be text, such as https://example.com/hooks")
    if _UNSAFE.search(_check_length(text)):
        raise _refusal("holds a space or a control character; remove or percent-encode it")
    if "#" in text:
        raise _refusal("has a fragment (#…), which is never sent; remove it")
    if "\\" in text:
        raise _refusal("holds a backslash; write / or %5C")
    return text


def _check_length(text: str) -> str:
    if len(text) > MAX_URL_OCTETS:
        raise _refusal(f"{len(text)} characters long; at most {MAX_URL_OCTETS} are allowed")
    return text


def _port(digits: str | None, scheme: str) -> int:
    port = DEFAULT_PORTS[scheme] if digits is None else int(digits)
    if not 0 < port < 65536:
        raise _refusal("its port must be 1 to 65535")
    return port


def _target(shape: re.Match[str]) -> str:
    target = (shape["path"] or "/") + (shape["query"] or "")
    if not _TARGET.fullmatch(target):
        raise _refusal("its path or query holds a character that must be percent-encoded")
    return target


def _host(written: str) -> str:
    if written.startswith("["):
        return _address(written[1:-1], ipaddress.IPv6Address)
    name = written.removesuffix(".")
    labels = [_label(label) for label in name.split(".")] if len(name) <= MAX_NAME_OCTETS else [""]
    if _NUMBER.fullmatch(labels[-1]):
        return _address(written, ipaddress.IPv4Address)
    stored = ".".join(labels)
    if len(stored) > MAX_NAME_OCTETS or not all(map(_LABEL.fullmatch, labels)):
        raise _refusal("its host is not a name such as hooks.example.com")
    return stored


def _label(written: str) -> str:
    """Return one label of a name as it is stored. The caller refuses wrong labels in ASCII."""
    label = written.lower() if written.isascii() else written
    if label.isascii() and not label.startswith("xn--"):
        return label
    if len(label) > MAX_LABEL_OCTETS or (stored := _a_label(label)) is None:
        raise _refusal("its host is not a name of IDNA 2008; write it in lower case, as people read it or in xn-- form")
    return stored


def _a_label(label: str) -> str | None:
    """Return the xn-- form of a label that IDNA 2008 allows as it stands (nothing is mapped), or None."""
    import idna  # not at the top: few hosts need it, and `import outbox` loads SQLAlchemy only

    try:
        stored = idna.alabel(idna.ulabel(label)).decode("ascii")
    except ValueError:  # idna.IDNAError, and what its punycode raises
        return None
    return stored if stored.startswith("xn--") and label in (stored, idna.ulabel(stored)) else None


def _address(written: str, family: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> str:
    try:
        address = family(written)
    except ValueError:
        raise _refusal("its host looks like a number; write an address as 192.0.2.1 or [2001:db8::1]") from None
    if "%" in written:
        raise _refusal("its host has a zone id (%…), which only this machine could understand")
    return str(address)
