"""The kinds of values that options have: how each is read from text and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from outbox.secret import Secret
from outbox.signing.schemes import SchemeDeclaration
from relay.config.database_url import normalised, redacted
from relay.config.egress_proxy import EgressProxy, parse_egress_proxy
from relay.config.schemes import parse_schemes, read_schemes
from relay.secrets import keyring

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Kind", "ListenAddress", "Network", "address", "boolean", "choice", "choices", "database_url",
           "egress_proxy", "header_name", "integer", "networks", "parts", "ports", "private_keys",
           "schemes"]  # fmt: skip

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Kind:
    """How one kind of value is read from text (flag, environment) and checked; both raise ValueError.

    redact: returns a secret value as redacted text; None for a value that is no secret. lines: the text may have
    several lines. to_text: how the value is shown, where that is not its str().
    """

    from_text: Callable[[str], object]
    check: Callable[[Any], Any]
    metavar: str
    redact: Callable[[Any], str] | None = None
    lines: bool = False
    to_text: Callable[[Any], str] | None = None


def integer(low: int, high: int) -> Kind:
    """Whole numbers within these bounds."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
        return value

    def from_text(text: str) -> object:
        return int(text) if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20 else text

    return Kind(from_text, check, "N")


def boolean() -> Kind:
    """true or false, or another word for them, such as yes or 0."""
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is not true or false")  # noqa: TRY004 - one type for every refused value
        return value

    return Kind(lambda text: words.get(text.lower(), text), check, "")


def choice(*words: str) -> Kind:
    """One of these words."""

    def check(value: object) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is not one of {', '.join(words)}")
        return str(value)

    return Kind(str, check, "|".join(words))


def choices(*words: str) -> Kind:
    """Some of these words, each once."""

    def check(value: object) -> tuple[str, ...]:
        given = list(value) if isinstance(value, list | tuple) else [value]
        for word in given:
            if word not in words:
                raise ValueError(f"{word!r} is not one of {', '.join(words)}")
        return tuple(word for word in words if word in given)

    return Kind(parts, check, ",".join(words))


def header_name() -> Kind:
    """The name of an HTTP header, or nothing."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9-]{0,100}", value, re.ASCII):
            raise ValueError(f"{value!r} is no name of a header such as X-Forwarded-Email")
        return value

    return Kind(str, check, "NAME")


def networks() -> Kind:
    """Networks in CIDR form; none of them may be every address."""

    def check(value: object) -> tuple[Network, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{value!r} is not a list of networks such as 127.0.0.0/8")  # noqa: TRY004
        return tuple(_network(item) for item in value)

    return Kind(parts, check, "CIDR,…")


def ports() -> Kind:
    """Port numbers."""

    def check(value: object) -> tuple[int, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{value!r} is not a list of ports such as 443,8443")  # noqa: TRY004
        return tuple(map(one.check, value))

    one = integer(1, 65_535)
    return Kind(lambda text: [one.from_text(part) for part in parts(text)], check, "N,…")


class ListenAddress(NamedTuple):
    """Where to listen; port 0 is a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_ADDRESS = re.compile(r"(?:(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+)):)?(?P<port>[0-9]{1,5})", re.ASCII)


def address(*, optional: bool = False) -> Kind:
    """Where to listen: host:port, [host]:port of IPv6, or a port alone, which is on this machine only.

    `optional`: may be none, and the host is named: what answers there wants no token.
    """

    def check(value: object) -> ListenAddress | None:
        if optional and (value is None or value == ""):
            return None
        if isinstance(value, tuple) and len(value) == 2:
            value = str(ListenAddress(*value))
        match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
        host = match and (match["v6"] or match["name"])
        if match is None or (optional and not host) or int(match["port"]) > 65_535:
            raise ValueError(f"{value!r} is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
        return ListenAddress(host or "127.0.0.1", int(match["port"]))

    return Kind(str, check, "HOST:PORT", to_text=str)


def parts(text: str) -> list[str]:
    """Return what stands between the commas, without blanks and what is empty."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _network(item: object) -> Network:
    try:
        network = ip_network(item if isinstance(item, str | IPv4Network | IPv6Network) else "")
    except ValueError as error:
        raise ValueError(f"{item!r} is not a network ({error}); write e.g. 10.1.0.0/16 or ::1/128") from None
    if network.prefixlen == 0:
        raise ValueError(f"{network} is every address; name only the networks that are needed, e.g. 10.1.0.0/16")
    return network


def database_url() -> Kind:
    """The address of the database, in any spelling that `relay.config.database_url` understands."""

    def check(value: object) -> Secret:
        text = value.reveal() if isinstance(value, Secret) else value
        if not isinstance(text, str):
            raise ValueError("not text; write postgresql://user:password@host:5432/name")  # noqa: TRY004
        return Secret(normalised(text) if text else text)

    return Kind(str, check, "URL", redact=lambda url: redacted(url.reveal()))


def private_keys() -> Kind:
    """Private keys that open sealed secrets."""

    def check(value: object) -> tuple[Secret, ...]:
        texts = value if isinstance(value, list | tuple) else (value,)
        keys = [text.reveal() if isinstance(text, Secret) else text for text in texts]
        if not all(isinstance(key, str) for key in keys):
            raise ValueError("not text; `relay secrets keygen` makes a key")
        return keyring.private_keys(" ".join(keys))

    return Kind(str, check, "KEY,…", redact=lambda keys: ",".join("***" for _ in keys), lines=True)


def egress_proxy() -> Kind:
    """An egress proxy's address, or none."""

    def check(value: object) -> EgressProxy | None:
        if value is None or isinstance(value, EgressProxy):
            return value
        if not isinstance(value, str):
            raise ValueError("not text; write http://proxy.example.com:3128")  # noqa: TRY004
        return parse_egress_proxy(value) if value else None

    return Kind(str, check, "URL", redact=lambda proxy: proxy.redacted if proxy else "")


def schemes() -> Kind:
    """Declared signature schemes: tables, or the path of the file that has them."""

    def check(value: object) -> tuple[SchemeDeclaration, ...]:
        if isinstance(value, tuple) and all(isinstance(each, SchemeDeclaration) for each in value):
            return value
        return parse_schemes(read_schemes(value) if isinstance(value, Path) else value)

    return Kind(lambda text: Path(text) if text else (), check, "FILE")
