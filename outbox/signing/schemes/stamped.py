"""A time and signatures in one header: `t={timestamp},v1={hex}`, one v1 for each live secret.

`stripe`, https://docs.stripe.com/webhooks: HMAC-SHA256 over `{timestamp}.{body}`; the key is the whole text of the
secret, `whsec_` included.

`convoy-advanced`, pkg/signature/signature.go of frain-dev/convoy: HMAC-SHA256 over `{timestamp},{body}`.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from outbox.errors import SignatureError
from outbox.signing.schemes.keys import TEXT_KEYS, any_equal, hex_mac, new_whsec, text_key
from outbox.signing.schemes.scheme import ALONG, Claim, KeyRule, Scheme
from outbox.signing.schemes.standard import TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outbox.signing.schemes.scheme import Lines

__all__ = ["CONVOY_ADVANCED", "STRIPE"]

_ELEMENT = re.compile(r"([A-Za-z0-9]+)=(.*)", re.DOTALL)
_MAX_ELEMENTS = 64


def _sign(header: bytes, separator: bytes, secrets: Sequence[str]) -> Lines:
    macs = [hex_mac(text_key(secret)) for secret in secrets]
    template = b"webhook-id: %b\r\nwebhook-timestamp: %b\r\n" + header + b": t=%b%b\r\n"

    def lines(message_id: bytes, _type: bytes, timestamp: bytes, body: bytes) -> bytes:
        signed = b"%b%b%b" % (timestamp, separator, body)
        return template % (message_id, timestamp, timestamp, b"".join([b",v1=" + mac(signed) for mac in macs]))

    return lines


def _judge(header: str, separator: bytes, secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> Claim:
    timestamp, given = _parsed(header, headers[header])
    signed = b"%b%b%b" % (timestamp.encode(), separator, body)
    if not any_equal([hex_mac(text_key(secret))(signed) for secret in secrets], given):
        raise SignatureError(f"{header}: no v1 in it matches the body and any secret")
    return Claim("", int(timestamp))


def _parsed(header: str, value: str) -> tuple[str, list[bytes]]:
    """Return the timestamp and the v1 signatures; elements of other names are passed over."""
    texts = value.split(",")
    elements = [match.groups() for text in texts if (match := _ELEMENT.fullmatch(text))]
    if len(elements) != len(texts) or len(elements) > _MAX_ELEMENTS:
        raise SignatureError(f"{header}: must be t=…,v1=…, of at most {_MAX_ELEMENTS} elements")
    times = [content for name, content in elements if name == "t"]
    if len(times) != 1 or not TIMESTAMP.fullmatch(times[0]):
        raise SignatureError(f"{header}: must have one t, whole seconds since 1970")
    return times[0], [content.encode("ascii", "replace") for name, content in elements if name == "v1"]


def _scheme(name: str, header: str, separator: bytes, keys: KeyRule) -> Scheme:
    return Scheme(
        name,
        headers=(header.lower(),),
        sends=(header.lower(), *ALONG),
        several_signatures=True,
        keys=keys,
        sign=partial(_sign, header.encode(), separator),
        judge=partial(_judge, header.lower(), separator),
    )


STRIPE = _scheme("stripe", "Stripe-Signature", b".", KeyRule(TEXT_KEYS.check, {"hmac": new_whsec}))
CONVOY_ADVANCED = _scheme("convoy-advanced", "X-Convoy-Signature", b",", TEXT_KEYS)
