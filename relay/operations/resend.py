"""Send a received request again to the application that received it, as its sender would: signed anew, same id.

The signature of then is not kept, and would be too old by now: whoever asks gives the secret that the application
verifies with. It goes out by relay.http, under the address policy of this relay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread

from outbox.control.inbox import forget_received, read_stored
from outbox.errors import SubscriptionError
from outbox.signing.verify import signed_headers
from relay.http.configured import make_policy, make_sender
from relay.http.sender import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from outbox.control.inbox import StoredRequest
    from outbox.ids import InboxId
    from outbox.secret import Secret
    from relay.config.options import Config
    from relay.http.sender import Sender
    from relay.operations.connection import Database

__all__ = ["Resent", "resend"]

_TIMEOUT_SECONDS = 30.0
_THE_SENDERS = {"content-length", "user-agent", "date", "host", "transfer-encoding"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resent:
    """What came of it. `ok`: the answer was 2xx; `known_before`: the message's id was known, and a copy did nothing."""

    id: InboxId
    message_id: str
    ok: bool
    known_before: bool
    outcome: str
    status: int | None
    milliseconds: int
    error: str | None


async def resend(
    database: Database,
    tenant: str | None,
    received_id: UUID | str,
    url: str,
    secret: str | Secret,
    *,
    scheme: str | None = None,
    sender_of: Callable[[Config], Sender] = make_sender,
) -> Resent:
    """Forget the id of a received request, POST the request to this URL, and return what was answered.

    Args:
        database: where the inbox is, and the relay's configuration.
        tenant: who asks; None is the operator.
        received_id: `inb_…` or the UUID.
        url: where the application receives it.
        secret: that the application verifies with.
        scheme: of the signature; default the one by which it was received.
        sender_of: makes the way out.

    Raises:
        NotFoundError: no such request of this tenant, or not all of it was kept.
        SubscriptionError: the URL, the scheme or the secret cannot be used, or this relay may not send to the URL;
            nothing was forgotten.
    """
    endpoint = Endpoint.of(url)
    if refusal := make_policy(database.config).refusal_of_url(endpoint.url):
        raise SubscriptionError(f"url: {refusal}")
    stored, lines, known = await to_thread.run_sync(_prepare, database, tenant, received_id, secret, scheme)
    sender = sender_of(database.config)
    try:
        outcome = await sender.send(endpoint, lines, stored.body, _TIMEOUT_SECONDS)
    finally:
        await sender.close()
    return Resent(
        id=stored.id, message_id=stored.message_id, ok=outcome.status is not None and 200 <= outcome.status < 300,
        known_before=known, outcome=str(outcome.kind), status=outcome.status, milliseconds=outcome.milliseconds,
        error=outcome.error,
    )  # fmt: skip


def _prepare(
    database: Database, tenant: str | None, received_id: UUID | str, secret: str | Secret, scheme: str | None
) -> tuple[StoredRequest, bytes, bool]:
    with database.transaction() as connection:
        stored = read_stored(connection, tenant, received_id)
        lines = _lines(stored, secret, scheme or stored.scheme)
        return stored, lines, forget_received(connection, tenant, stored.id)


def _lines(stored: StoredRequest, secret: str | Secret, scheme: str) -> bytes:
    """Return the headers as lines: those of a new signature, and what was kept of the others."""
    try:
        signed = signed_headers(secret, stored.message_id, stored.body, scheme=scheme)
    except ValueError:  # ArgumentError of an id that no header of ours can carry
        raise SubscriptionError(f"id: no sender of ours can send the id {stored.message_id!r}") from None
    names = {name.lower() for name in signed} | _THE_SENDERS
    kept = {name: value for name, value in stored.headers if name not in names and value.isprintable()}
    headers = {"content-type": "application/json"} | kept | signed
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1", "replace")
