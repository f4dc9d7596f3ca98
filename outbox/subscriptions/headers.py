"""The headers that a subscription may add to its requests: which names, which values, how many.

The rules hold twice, when a subscription is written and when a relay reads it, because a row can be written by hand. A
line end in a name or value would let its author write a second request; a name of the list below would change where
the request ends, whom it is for, or what a receiver takes for our signature.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from outbox.errors import SubscriptionError
from outbox.signing.schemes import written_headers
from outbox.signing.schemes.declaration import RELAY_HEADERS

__all__ = ["check_headers", "header_names", "is_reserved"]

MAX_HEADERS = 50
MAX_HEADERS_BYTES = 8192
"""Of names and values together, as they go on the wire."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")  # a token of RFC 9110
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")

# Names that begin like those which the relay and signatures write are reserved too. They are compared in lower case
# with "-" for "_", since many servers give both spellings to the application as one variable.
_RESERVED_PREFIXES = ("proxy-", "webhook-", "svix-", "x-hub-signature", "x-webhook-signature")

# A subscription that has one of these from the time when it could goes on: its own is sent.
_FREE_BEFORE = ("traceparent", "tracestate", "baggage")


def check_headers(value: object, *, stored: bool = False) -> dict[str, str]:
    """Return names to values. Raises SubscriptionError, which quotes no value.

    A mapping of name to value, or pairs. Names are tokens (RFC 9110), unlike each other in any case, none of them
    reserved; values are visible ASCII with spaces and tabs inside; 50 headers and 8 KiB at most. `stored`: a name that
    was free before it was reserved is kept.
    """
    pairs = _pairs(value)
    if len(pairs) > MAX_HEADERS:
        raise SubscriptionError(f"headers: {len(pairs)} headers, the limit is {MAX_HEADERS}")
    headers: dict[str, str] = {}
    for name, content in pairs:
        allowed = _FREE_BEFORE if stored else ()
        headers[_check_name(name, headers, allowed)] = _check_value(name, content)
    size = sum(len(name) + len(content) + len(": \r\n") for name, content in headers.items())
    if size > MAX_HEADERS_BYTES:
        raise SubscriptionError(f"headers: {size} bytes together, the limit is {MAX_HEADERS_BYTES}")
    return headers


def is_reserved(name: str) -> bool:
    """Tell whether the relay or a signature scheme owns this header, in any case."""
    if name.lower() == "user-agent":  # some receivers' firewalls let only known ones pass
        return False
    plain = name.lower().replace("_", "-")
    return plain in RELAY_HEADERS or plain in written_headers() or plain.startswith(_RESERVED_PREFIXES)


def header_names(hint: str) -> tuple[str, ...]:
    """Return the names that a stored hint lists: `X-Api-Key, X-Team`."""
    return tuple(hint.split(", ")) if hint else ()


def _pairs(value: object) -> list[tuple[object, object]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        pairs = [tuple(pair) for pair in value if isinstance(pair, tuple | list)]
        if len(pairs) == len(value) and all(len(pair) == 2 for pair in pairs):
            return [(pair[0], pair[1]) for pair in pairs]
    raise SubscriptionError("headers: give a mapping of name to value, such as {'X-Api-Key': '…'}")


def _check_name(name: object, known: Mapping[str, str], allowed: Collection[str]) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = _beginning(name) if isinstance(name, str) else f"a {type(name).__name__}"
        raise SubscriptionError(f"headers: {shown} is not a header name; use letters, digits and -, such as X-Api-Key")
    if len(name) > MAX_HEADERS_BYTES:
        raise SubscriptionError(f"headers: a name has {len(name)} characters; the limit is {MAX_HEADERS_BYTES}")
    if is_reserved(name) and name.lower() not in allowed:
        raise SubscriptionError(f"headers: {name} is set by the relay or by a signature; use another name")
    if name.lower() in (other.lower() for other in known):
        raise SubscriptionError(f"headers: {name} is given twice; letter case makes no difference")
    return name


def _beginning(name: str) -> str:
    """Return the part that can be a name: a value may follow it, as in `Authorization: Bearer …`."""
    token = _NAME.match(name)
    return f"'{token[0][:40] if token else ''}…'"


def _check_value(name: object, value: object) -> str:
    if not isinstance(value, str):
        raise SubscriptionError(f"headers: the value of {name} is a {type(value).__name__}; give text")
    if not _VALUE.fullmatch(value):
        raise SubscriptionError(
            f"headers: the value of {name} may hold visible ASCII, with spaces and tabs inside only; "
            "remove line ends and control characters, and encode what is not ASCII"
        )
    return value
