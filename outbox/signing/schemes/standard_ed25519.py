"""The scheme `standard`: Ed25519 beside HMAC, which no declaration can say.

Keys `whsk_` sign v1a and keys `whpk_` verify it, over the same text as v1. Each secret, of either kind, adds an element
to the same header.
"""

from __future__ import annotations

from collections.abc import Callable

from outbox.errors import SubscriptionError
from outbox.signing.schemes import ed25519
from outbox.signing.schemes.declaration import SchemeDeclaration
from outbox.signing.schemes.hmac_scheme import Form, hmac_element, hmac_matches, scheme_of
from outbox.signing.schemes.keys import check_whsec, new_whsec, whsec_key
from outbox.signing.schemes.scheme import KeyRule, Scheme

__all__ = ["with_ed25519"]


def with_ed25519(row: SchemeDeclaration) -> Scheme:
    """Return the scheme of a declaration, which signs and verifies by Ed25519 too."""
    return scheme_of(row, keys=_KEYS, maker=_element, matches=_matches, note=_NOTE)


def _check(text: object) -> str:
    """Return a secret in its canonical spelling. Its prefix tells whether it is for v1a or v1."""
    if isinstance(text, str) and text.startswith(ed25519.PUBLIC):
        raise SubscriptionError("secret: whpk_ is the public key, which only verifies; give the whsk_ key")
    if isinstance(text, str) and text.startswith(ed25519.SIGNING):
        return ed25519.check(text)
    return check_whsec(text)


def _public_key(secret: str) -> str:
    return ed25519.public_key(secret) if secret.startswith(ed25519.SIGNING) else ""


def _element(form: Form, secret: str) -> Callable[[bytes], bytes]:
    if isinstance(secret, str) and secret.startswith(ed25519.SIGNING):
        return ed25519.signing(secret)
    return hmac_element(form, secret)


def _matches(form: Form, secret: str, elements: list[bytes], signed: bytes) -> bool:
    """Tell whether one of the elements is this secret's signature. Elements of other versions are ignored."""
    if isinstance(secret, str) and secret.startswith((ed25519.SIGNING, ed25519.PUBLIC)):
        verifies = ed25519.verifying(secret)
        return any(verifies(element, signed) for element in elements if element.startswith(b"v1a,"))
    return hmac_matches(form, secret, elements, signed)


_KEYS = KeyRule(whsec_key, _check, {"hmac": new_whsec, "ed25519": ed25519.new}, _public_key)
_NOTE = "a key whsk_… signs v1a,… by Ed25519 over the same text, and whpk_… verifies it"
