"""The request of a delivery, made once more and signed now, for a person to repeat by hand; nothing is sent.

It is made by the envelope of every delivery, with the subscription as it is now. A signature is no secret: it is good
for one body and a few minutes. Secrets, tokens, own headers and URLs that are credentials are written out as `***`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread

from outbox.control.deliveries import show_delivery
from outbox.errors import NotFoundError
from outbox.formats import REDACTED
from outbox.ids import DeliveryId
from relay.message.envelope import Envelope
from relay.message.transformation.budget import TransformationError
from relay.operations.endpoint_tests.preview import NoNetwork, read_recorded
from relay.operations.endpoint_tests.request_and_response import Recorder
from relay.operations.endpoint_tests.tested_subscription import read_subscription
from relay.secrets.keyring import Keyring

if TYPE_CHECKING:
    from uuid import UUID

    from relay.model.event import EventParts
    from relay.operations.connection import Database
    from relay.operations.endpoint_tests.documents import SentRequest
    from relay.operations.endpoint_tests.tested_subscription import TestedSubscription

__all__ = ["RepeatableRequest", "repeat_request"]

_CURLS_OWN = ("host", "content-length")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatableRequest:
    """A request to repeat by hand: what it is, and a command for a POSIX shell.

    `redacted` names what is left out: headers, `url` and `body`. Where it names one, the command has `***` there, for a
    person to fill in; with another body the signature does not verify.
    """

    delivery_id: DeliveryId
    signed_at: int
    request: SentRequest
    redacted: tuple[str, ...]
    curl: str


async def repeat_request(database: Database, tenant: str | None, delivery_id: UUID | str) -> RepeatableRequest:
    """Return the request of a delivery as it would be sent now, alone, whatever state the delivery is in.

    Args:
        database: where the delivery is, and the relay's configuration.
        tenant: who asks; None is the operator.
        delivery_id: `dlv_…` or the UUID.

    Raises:
        NotFoundError: no such delivery of this tenant, its event or subscription is gone, or the event has no body in
            the subscription's format.
        KeyUnavailableError: a secret is sealed to a key that is not here.
    """
    uuid = DeliveryId.of(delivery_id)
    target, event = await to_thread.run_sync(_read, database, tenant, uuid)
    envelope = Envelope(target.subscription, Keyring(database.config.secret_key))
    recorder, seconds = Recorder(NoNetwork()), float(target.subscription.timeout_seconds)
    try:
        outcome = await envelope.send(recorder, envelope.transform(event), b"%d" % target.unix_seconds, seconds)
    except TransformationError as error:
        raise NotFoundError(f"request: the transformation makes none of this event: {error}") from None
    request = recorder.request(envelope.endpoint, target.shown_url, envelope.secrets)
    if request is None:
        raise NotFoundError(f"request: there is none of this event: {outcome.error}")
    redacted = _redacted(request, recorder)
    return RepeatableRequest(
        delivery_id=uuid, signed_at=target.unix_seconds, request=request, redacted=redacted, curl=_curl(request)
    )


def _read(database: Database, tenant: str | None, uuid: DeliveryId) -> tuple[TestedSubscription, EventParts]:
    with database.transaction() as connection:
        found = show_delivery(connection, tenant, uuid)
        if found.subscription_id is None or found.event_id is None:
            raise NotFoundError(f"delivery: {uuid} has no event any more, or never had one: there is nothing to repeat")
        target = read_subscription(connection, tenant, found.subscription_id)
        return target, read_recorded(connection, target, found.event_id)


def _redacted(request: SentRequest, recorder: Recorder) -> tuple[str, ...]:
    headers = [name for name, value in request.headers if value == REDACTED]
    url = ["url"] if REDACTED in request.url else []
    return (*headers, *url, *(["body"] if recorder.last_body != request.body else []))


def _curl(request: SentRequest) -> str:
    """Return the command; a body with anything that a terminal would obey is written in escapes and piped in."""
    lines = [f"curl -sS -i -X {request.method} {shlex.quote(request.url)}"]
    lines += [f"-H {shlex.quote(_header(*pair))}" for pair in request.headers if pair[0].lower() not in _CURLS_OWN]
    if request.body.isprintable():
        lines.append(f"--data-raw {shlex.quote(request.body)}")
        return " \\\n  ".join(lines)
    piped = f"printf %b {shlex.quote(''.join(map(_escaped, request.body)))} | "
    return piped + " \\\n  ".join([*lines, "--data-binary @-"])


def _header(name: str, value: str) -> str:
    return f"{name}: {value}" if value else f"{name};"  # which is how curl sends one without a value


def _escaped(character: str) -> str:
    """Return a character as printf's %b reads it."""
    if character == "\\":
        return "\\\\"
    return character if character.isprintable() else "".join(f"\\0{byte:03o}" for byte in character.encode())
