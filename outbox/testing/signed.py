"""Signed requests as a relay sends them, for the tests of a receiver."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from outbox.ids import new_uuid7, text_id
from outbox.recording.arguments import checked_text, checked_type
from outbox.recording.payload import encode
from outbox.secret import Secret
from outbox.signing.verify import signed_headers

__all__ = ["SignedRequest", "signed_request"]

_MAX_BYTES = 64 * 1024 * 1024


class SignedRequest(NamedTuple):
    """The headers and the body of a POST; `headers` has the signature."""

    headers: dict[str, str]
    body: bytes


def signed_request(
    secret: str | Secret,
    type: str,  # noqa: A002 - the word of the interface
    data: object,
    *,
    scheme: str = "standard",
    id: str | None = None,  # noqa: A002
    timestamp: int | None = None,
) -> SignedRequest:
    """Return the request that a relay would send for this event, in the standard format.

    Give it to your test client: `client.post("/webhooks", content=request.body, headers=request.headers)`. A request
    with another secret, or with an old timestamp, is one that your receiver must refuse.

    Args:
        secret: the subscription's, as its scheme has it.
        type: the event's type.
        data: the event's data, as `record()` takes it.
        scheme: one of those that `relay schemes list` shows, or declared.
        id: the webhook-id; a new one by default. A relay repeats it where it sends again.
        timestamp: seconds since 1970 UTC; now by default.

    Raises:
        SubscriptionError: the scheme is unknown, or the secret is not one for it.
        RecordError: type or data were refused.
        ArgumentError: id or timestamp cannot be a header.
    """
    payload = encode(data, _MAX_BYTES)
    message_id = text_id("evt", new_uuid7()) if id is None else checked_text("id", id, 256)
    at = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    body = f'{{"type":"{checked_type(type)}","timestamp":"{at}Z","data":{payload}}}'.encode()
    headers = signed_headers(secret, message_id, body, timestamp=timestamp, scheme=scheme, type=type)
    return SignedRequest({"content-type": "application/json", **headers}, body)
