"""The HMAC-SHA256 of the body alone, in hexadecimal, in a header of its own. The key is the secret's text in UTF-8.

    scheme     signature header                     further headers
    convoy     X-Convoy-Signature: {hex}
    fulfil     X-Webhook-Signature: sha256={hex}    X-Webhook-Event
    github     X-Hub-Signature-256: sha256={hex}    X-GitHub-Event, X-GitHub-Delivery
    leads      X-Webhook-Signature-256: sha256={hex}    X-Webhook-Timestamp
    soundhash  X-Webhook-Signature: {hex}

`github` is https://docs.github.com/webhooks (its receivers' middleware wants the further headers); `convoy` is the
simple signature of pkg/signature/signature.go of frain-dev/convoy. `fulfil`, `leads` (n8n) and `soundhash` are the
senders of three applications, for receivers that were written for those. The paper on `soundhash` names no header, and
that on `leads` neither the time's form nor the text it signs: the header is the one its peers use, the time is seconds
since 1970 like every other, the text is the body.

Nothing here covers an id or a time. Who records a request can send it again, and in `leads` with a newer time; only a
receiver that remembers ids notices the former. A request carries one signature, so that a rotation cannot overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outbox.errors import SignatureError
from outbox.signing.schemes.keys import TEXT_KEYS, any_equal, hex_mac, text_key
from outbox.signing.schemes.scheme import ALONG, Claim, Scheme
from outbox.signing.schemes.standard import TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from outbox.signing.schemes.scheme import Lines

__all__ = ["CONVOY", "FULFIL", "GITHUB", "LEADS", "SOUNDHASH", "of_body"]


def _as_sent(body: bytes) -> bytes:
    return body


@dataclass(frozen=True, slots=True)
class _OfBody:
    """One of these schemes: its header lines, and how its signature header is judged."""

    lines: bytes
    header: str
    prefix: bytes
    prefix_may_lack: bool
    timestamp_header: str | None
    text: Callable[[bytes], bytes]

    def sign(self, secrets: Sequence[str]) -> Lines:
        mac, template, text = hex_mac(text_key(secrets[0])), self.lines, self.text

        def lines(message_id: bytes, type_: bytes, timestamp: bytes, body: bytes) -> bytes:
            return template % {b"id": message_id, b"type": type_, b"at": timestamp, b"mac": mac(text(body))}

        return lines

    def judge(self, secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> Claim:
        signed = self.text(body)
        given = headers[self.header].encode("ascii", "replace")
        if self.prefix_may_lack and not given.startswith(self.prefix):
            given = self.prefix + given
        if not any_equal([self.prefix + hex_mac(text_key(secret))(signed) for secret in secrets], [given]):
            raise SignatureError(f"{self.header}: does not match the body and any secret")
        if self.timestamp_header is None:
            return Claim("", None)
        if not TIMESTAMP.fullmatch(headers[self.timestamp_header]):
            raise SignatureError(f"{self.timestamp_header}: must be whole seconds since 1970")
        return Claim("", int(headers[self.timestamp_header]))


def of_body(
    name: str,
    headers: dict[str, str],
    *,
    timestamp_header: str | None = None,
    text: Callable[[bytes], bytes] = _as_sent,
    prefix_may_lack: bool = False,
) -> Scheme:
    """Return a scheme whose signature covers the body alone.

    headers: by name, with %(id)b, %(type)b, %(at)b and %(mac)b where these go; the last is the signature's.
    timestamp_header: which of them, in lower case, a receiver compares with its clock.
    text: from the body to the bytes that are signed.
    prefix_may_lack: whether a receiver takes the hexadecimal without what stands before %(mac)b.
    """
    along = {each: f"%({part})b" for each, part in zip(ALONG, ("id", "at"), strict=True)}
    lines = "".join(f"{each}: {value}\r\n" for each, value in (headers | along).items()).encode()
    header, value = list(headers.items())[-1]
    prefix = value.removesuffix("%(mac)b").encode()
    family = _OfBody(lines, header.lower(), prefix, prefix_may_lack, timestamp_header, text)
    return Scheme(
        name,
        headers=tuple(each for each in (header.lower(), timestamp_header) if each),
        sends=tuple(each.lower() for each in (*headers, *along)),
        several_signatures=False,
        keys=TEXT_KEYS,
        sign=family.sign,
        judge=family.judge,
    )


CONVOY = of_body("convoy", {"X-Convoy-Signature": "%(mac)b"})
FULFIL = of_body("fulfil", {"X-Webhook-Event": "%(type)b", "X-Webhook-Signature": "sha256=%(mac)b"})
GITHUB = of_body(
    "github",
    {"X-GitHub-Event": "%(type)b", "X-GitHub-Delivery": "%(id)b", "X-Hub-Signature-256": "sha256=%(mac)b"},
)
LEADS = of_body(
    "leads",
    {"X-Webhook-Timestamp": "%(at)b", "X-Webhook-Signature-256": "sha256=%(mac)b"},
    timestamp_header="x-webhook-timestamp",
)
SOUNDHASH = of_body("soundhash", {"X-Webhook-Signature": "%(mac)b"})
