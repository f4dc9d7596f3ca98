"""Signature schemes: ways to sign a subscription's requests, so that existing receivers verify them unchanged.

A scheme is a declaration (built_in.py), with code only where it computes differently. A subscription names one of
SCHEMES. `declare()` adds a scheme, `signer()` returns what the relay signs with, `named()` returns the whole scheme.
Every scheme also sends webhook-id and webhook-timestamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from outbox.errors import ArgumentError, SubscriptionError
from outbox.signing.schemes.built_in import ROWS
from outbox.signing.schemes.declaration import SchemeDeclaration, is_scheme_name
from outbox.signing.schemes.hmac_scheme import scheme_of
from outbox.signing.schemes.notely import for_node_receivers, for_python_receivers
from outbox.signing.schemes.scheme import Scheme, Signer
from outbox.signing.schemes.standard_ed25519 import with_ed25519

__all__ = [
    "ROWS",
    "SCHEMES",
    "UNSIGNED",
    "Scheme",
    "SchemeDeclaration",
    "Signer",
    "declare",
    "named",
    "sent_headers",
    "signer",
    "written_headers",
]

_CODE = {"standard": with_ed25519, "notely": for_python_receivers, "notely-node": for_node_receivers}
_schemes = {row.name: _CODE.get(row.name, scheme_of)(row) for row in ROWS}

UNSIGNED = "none"
"""The scheme of a subscription whose requests are not signed. It is none of SCHEMES, since nothing verifies by it."""

SCHEMES = MappingProxyType(_schemes)
"""Every scheme that is known here, by name."""


def declare(declaration: SchemeDeclaration) -> None:
    """Add a user's own scheme in this process, so that a subscription may name it.

    The same declaration may be repeated. Relays read theirs from the tables `[schemes.NAME]` of their configuration.
    Every header that the scheme writes is reserved: no subscription may have an own header of that name.

    Raises SubscriptionError when another scheme has the name, and ArgumentError for what is no declaration.
    """
    if not isinstance(declaration, SchemeDeclaration):
        raise ArgumentError(f"declaration: give a SchemeDeclaration, not {type(declaration).__qualname__}")
    known = _schemes.setdefault(declaration.name, scheme_of(declaration))
    if known.row != declaration:
        raise SubscriptionError(f"schemes.{declaration.name}: another scheme has this name; choose a name of its own")


def named(name: object) -> Scheme:
    """Return the scheme of this name. Raises SubscriptionError."""
    if isinstance(name, str) and str.__str__(name) == UNSIGNED:
        raise SubscriptionError("scheme: none signs nothing and verifies nothing; only a new subscription may name it")
    scheme = SCHEMES.get(str.__str__(name)) if isinstance(name, str) else None
    if scheme is None:
        raise SubscriptionError(f"scheme: choose one of {', '.join(SCHEMES)}{_how_to_declare(name)}")
    return scheme


def _how_to_declare(name: object) -> str:
    if type(name) is not str or not is_scheme_name(name):
        return ""
    return f"; or declare {name}: [schemes.{name}] in the relay's configuration, outbox.declare_scheme() in Python"


def signer(name: str, secrets: Sequence[str]) -> Signer:
    """Return the signer of the scheme `name` for these secrets, newest first.

    A scheme that carries one signature signs with the newest. By `none` only the id and the time are sent. Raises
    SubscriptionError when the scheme is unknown, a secret cannot be used, or there is no secret.
    """
    if name == UNSIGNED:
        return Signer(_unsigned)
    scheme = named(name)
    if not secrets:
        raise SubscriptionError("secret: there is none; a message is never sent unsigned")
    return Signer(scheme.sign(secrets))


def _unsigned(message_id: bytes, _type: bytes, timestamp: bytes, _body: bytes) -> bytes:
    return b"webhook-id: %b\r\nwebhook-timestamp: %b\r\n" % (message_id, timestamp)


def sent_headers(name: str) -> frozenset[str]:
    """Return every header that a request of this scheme has by it, in lower case. Raises SubscriptionError."""
    return frozenset(("webhook-id", "webhook-timestamp") if name == UNSIGNED else named(name).sends)


def written_headers() -> frozenset[str]:
    """Return every header that a scheme writes, in lower case. No subscription may have an own header of that name."""
    return frozenset(name for scheme in SCHEMES.values() for name in scheme.sends)
