"""Signature schemes: how a subscription's requests are signed, chosen so that its receiver verifies them unchanged.

Each scheme owns its rule for secrets, the text that is signed, its header lines and its verification. A subscription
names one of SCHEMES; `signer()` is what the relay sends by, `named()` is for everything else. webhook-id and
webhook-timestamp go along in all of them, webhook-signature in `standard` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.errors import SubscriptionError
from outbox.signing.schemes.notely import NOTELY, NOTELY_NODE
from outbox.signing.schemes.of_body import CONVOY, FULFIL, GITHUB, LEADS, SOUNDHASH
from outbox.signing.schemes.scheme import Scheme, Signer
from outbox.signing.schemes.stamped import CONVOY_ADVANCED, STRIPE
from outbox.signing.schemes.standard import STANDARD, SVIX

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HEADER_NAMES", "SCHEMES", "Scheme", "Signer", "named", "signer"]

SCHEMES = {
    scheme.name: scheme
    for scheme in (
        *(STANDARD, SVIX, STRIPE, GITHUB, CONVOY, CONVOY_ADVANCED),
        *(NOTELY, NOTELY_NODE, FULFIL, SOUNDHASH, LEADS),
    )
}
HEADER_NAMES = frozenset(name for scheme in SCHEMES.values() for name in scheme.sends)
"""Every header that a scheme writes, in lower case: no subscription may have one of its own by that name."""


def named(name: object) -> Scheme:
    """Return the scheme of this name. Raises SubscriptionError."""
    scheme = SCHEMES.get(str.__str__(name)) if isinstance(name, str) else None
    if scheme is None:
        raise SubscriptionError(f"scheme: choose one of {', '.join(SCHEMES)}")
    return scheme


def signer(name: str, secrets: Sequence[str]) -> Signer:
    """Return what signs requests by the scheme `name` with these secrets, newest first.

    A scheme that carries one signature signs with the newest. Raises SubscriptionError when the scheme is unknown, a
    secret unusable, or there is none.
    """
    scheme = named(name)
    if not secrets:
        raise SubscriptionError("secret: there is none; a message is never sent unsigned")
    return Signer(scheme.sign(secrets))
