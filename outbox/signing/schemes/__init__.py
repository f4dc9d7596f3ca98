"""Signature schemes: how a subscription's requests are signed, chosen so that its receiver verifies them unchanged.

A scheme is a declaration (rows.py), and code only where it computes differently. A subscription names one of SCHEMES;
`declare()` adds one, `signer()` is what the relay sends by, `named()` is for everything else. webhook-id and
webhook-timestamp go along in all of them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from outbox.errors import SubscriptionError
from outbox.signing.schemes.declaration import SchemeDeclaration, is_scheme_name
from outbox.signing.schemes.declared import scheme_of
from outbox.signing.schemes.notely import for_node_receivers, for_python_receivers
from outbox.signing.schemes.rows import ROWS
from outbox.signing.schemes.scheme import Scheme, Signer
from outbox.signing.schemes.standard import with_ed25519

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ROWS", "SCHEMES", "Scheme", "SchemeDeclaration", "Signer", "declare", "named", "signer", "written_headers"]

_CODE = {"standard": with_ed25519, "notely": for_python_receivers, "notely-node": for_node_receivers}
_schemes = {row.name: _CODE.get(row.name, scheme_of)(row) for row in ROWS}

SCHEMES = MappingProxyType(_schemes)
"""Every scheme that is known here, by name."""


def declare(declaration: SchemeDeclaration) -> None:
    """Make a scheme of the user's own known to this process, so that a subscription may name it.

    The same declaration may be repeated. Relays read theirs from the tables `[schemes.NAME]` of their configuration.
    Every header that the scheme writes is reserved: no subscription may have one of its own by that name.

    Raises SubscriptionError where another scheme has the name.
    """
    known = _schemes.setdefault(declaration.name, scheme_of(declaration))
    if known.row != declaration:
        raise SubscriptionError(f"schemes.{declaration.name}: another scheme has this name; choose a name of its own")


def named(name: object) -> Scheme:
    """Return the scheme of this name. Raises SubscriptionError."""
    scheme = SCHEMES.get(str.__str__(name)) if isinstance(name, str) else None
    if scheme is None:
        raise SubscriptionError(f"scheme: choose one of {', '.join(SCHEMES)}{_how_to_declare(name)}")
    return scheme


def _how_to_declare(name: object) -> str:
    if type(name) is not str or not is_scheme_name(name):
        return ""
    return f"; or declare {name}: [schemes.{name}] in the relay's configuration, outbox.declare_scheme() in Python"


def signer(name: str, secrets: Sequence[str]) -> Signer:
    """Return what signs requests by the scheme `name` with these secrets, newest first.

    A scheme that carries one signature signs with the newest. Raises SubscriptionError when the scheme is unknown, a
    secret unusable, or there is none.
    """
    scheme = named(name)
    if not secrets:
        raise SubscriptionError("secret: there is none; a message is never sent unsigned")
    return Signer(scheme.sign(secrets))


def written_headers() -> frozenset[str]:
    """Return every header that a scheme writes, in lower case: no subscription may have one of its own by that name."""
    return frozenset(name for scheme in SCHEMES.values() for name in scheme.sends)
