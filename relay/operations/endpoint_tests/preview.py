"""Make the request that an event would become for a subscription, and send nothing.

It is made by the envelope of every delivery, with two differences: it is signed with an example secret made for this
once, since a real signature could be sent on, and where a token would be fetched there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from anyio import to_thread
from sqlalchemy import text

from outbox.errors import NotFoundError
from outbox.ids import EventId, SubscriptionId, event_id_of
from outbox.recording.arguments import checked_metadata, checked_type
from outbox.recording.payload import RawJSON, encode
from outbox.recording.record import Outbox
from outbox.secret import Secret
from outbox.signing.verify import new_secret
from outbox.subscriptions.checks import check_transformation
from relay.message.envelope import Envelope
from relay.message.transformation.budget import TransformationError
from relay.model.event import EventParts
from relay.model.outcome import Outcome, OutcomeKind
from relay.operations.endpoint_tests.request_and_response import Recorder
from relay.operations.endpoint_tests.tested_subscription import make_event, read_subscription
from relay.secrets.keyring import Keyring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from relay.http.sender import Endpoint
    from relay.model.subscription import SubscriptionVersion
    from relay.operations.connection import Database
    from relay.operations.endpoint_tests.documents import SentRequest
    from relay.operations.endpoint_tests.tested_subscription import TestedSubscription

__all__ = ["DEFAULT_TYPE", "Draft", "NoNetwork", "PreviewedRequest", "preview", "read_recorded"]

DEFAULT_TYPE = "outbox.test"
EXAMPLE = "  (an example: the receiver gets another one)"

_EVENT = """
select e.id, e.tenant, e.type, e.key, e.payload, cast(e.metadata as text) as metadata,
       cast(extract(epoch from e.recorded_at - timestamptz '2000-01-01Z') * 1000000 as bigint) as recorded_at
from (select id, tenant, type, key, payload, recorded_at, metadata from outbox.events where id = :id
      union all
      (select event_id, tenant, type, key, payload, recorded_at, metadata from outbox.dead_letters
       where event_id = :id and payload is not null limit 1)
      limit 1) e
where exists (select from outbox.subscriptions s where s.id = :subscription_id and s.tenant in ('*', e.tenant))
"""
_TENANT = "select nullif(tenant, '*') from outbox.subscriptions where id = :id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event that is not recorded: its data as JSON text."""

    data: str
    type: str = DEFAULT_TYPE
    key: str | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedRequest:
    """What would be sent. Of headers that may hold a credential the names only; signed with an example secret.

    `example_headers` are those that depend on that secret: nobody receives their values. `error` tells why the event's
    transformation fails, or that it has no body in the format: the delivery would be a dead letter at once, and there
    is no request. `event_id` of a draft was made up.
    """

    subscription_id: SubscriptionId
    event_id: str
    is_draft: bool
    transformation: str | None
    ok: bool
    error: str | None
    request: SentRequest | None
    example_headers: tuple[str, ...] = ()

    @property
    def marked_headers(self) -> list[tuple[str, str]]:
        """The request's headers for people, where what nobody receives says so."""
        made = self.request.headers if self.request else ()
        return [(name, f"{value}{EXAMPLE}" if name in self.example_headers else value) for name, value in made]


async def preview(
    database: Database,
    tenant: str | None,
    subscription_id: UUID | str,
    event: UUID | str | Draft,
    *,
    transformation: str | None = None,
) -> PreviewedRequest:
    """Return the request that this event would be sent as, whatever state the subscription is in.

    Args:
        database: where the subscription is, and the relay's configuration.
        tenant: who asks; None is the operator.
        subscription_id: `sub_…`, the UUID, or its name.
        event: `evt_…` or the UUID of an event, or a draft of one.
        transformation: an expression to try in place of the subscription's own; '' for none.

    Raises:
        NotFoundError: no such subscription or event for this tenant, or the event's payload is gone.
        SubscriptionError: the expression, or what is stored, cannot be used.
        RecordError: type or data of the draft was refused.
        KeyUnavailableError: headers or authentication are sealed to a key that is not here.
    """
    if transformation is not None:
        transformation = check_transformation("transformation", transformation) or ""
    target, parts = await to_thread.run_sync(_read, database, tenant, subscription_id, event)
    version = _with_example_secrets(target.subscription)
    if transformation is not None:
        version = replace(version, transformation=transformation or None)
    keyring = Keyring(database.config.secret_key)
    other = Envelope(_with_example_secrets(version), keyring)
    request, examples, error = await _made(Envelope(version, keyring), other, parts, target)
    return PreviewedRequest(
        subscription_id=target.id,
        event_id=parts.id.decode(),
        is_draft=isinstance(event, Draft),
        transformation=version.transformation,
        ok=error is None,
        error=error,
        request=request,
        example_headers=examples,
    )


def _differing(one: SentRequest | None, other: SentRequest | None) -> tuple[str, ...]:
    """Return the headers that depend on the signing secret, whatever the scheme calls them."""
    theirs = dict(other.headers) if other else {}
    return tuple(name for name, value in (one.headers if one else ()) if theirs.get(name) != value)


async def _made(
    envelope: Envelope, other: Envelope, event: EventParts, target: TestedSubscription
) -> tuple[SentRequest | None, tuple[str, ...], str | None]:
    """Return the request, its headers that the other envelope makes otherwise, and why there is none."""
    try:
        sent = envelope.transform(event)
    except TransformationError as error:
        return None, (), f"transformation: {error}"
    request, why_none = await _recorded(envelope, sent, target)
    again, _ = await _recorded(other, sent, target)
    return request, _differing(request, again), why_none  # without a request the event has no body in the format


async def _recorded(
    envelope: Envelope, event: EventParts, target: TestedSubscription
) -> tuple[SentRequest | None, str | None]:
    recorder, seconds = Recorder(NoNetwork()), float(target.subscription.timeout_seconds)
    outcome = await envelope.send(recorder, event, b"%d" % target.unix_seconds, seconds)
    request = recorder.request(envelope.endpoint, target.shown_url, envelope.secrets)
    return request, None if request else outcome.error


class NoNetwork:
    """Takes requests and sends none. Every answer is a token, for who asks for one; it is shown to nobody."""

    async def send(self, _endpoint: Endpoint, _headers: bytes, _body: bytes, _timeout_seconds: float) -> Outcome:
        """Answer at once."""
        return Outcome(OutcomeKind.DELIVERED, 200, 0, excerpt=b'{"access_token":"example","token_type":"bearer"}')

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _with_example_secrets(subscription: SubscriptionVersion) -> SubscriptionVersion:
    def example(kind: str, stored: Secret) -> Secret:
        return Secret(new_secret(subscription.scheme)) if kind == "signing" else stored

    return replace(subscription, secrets=tuple((kind, example(kind, stored)) for kind, stored in subscription.secrets))


def _read(
    database: Database, tenant: str | None, subscription_id: UUID | str, event: UUID | str | Draft
) -> tuple[TestedSubscription, EventParts]:
    with database.transaction() as connection:
        target = read_subscription(connection, tenant, subscription_id)
        if isinstance(event, Draft):
            return target, _draft(connection, target, event)
        return target, read_recorded(connection, target, event)


def _draft(connection: Connection, target: TestedSubscription, draft: Draft) -> EventParts:
    payload = encode(RawJSON(draft.data), Outbox().max_payload_bytes)
    whose = connection.execute(text(_TENANT), {"id": UUID(bytes=target.subscription.id)}).scalar_one()
    event = make_event(connection, checked_type(draft.type), payload)
    metadata = None if draft.metadata is None else checked_metadata(draft.metadata)
    return replace(event, tenant=whose or "", key=draft.key, metadata=None if metadata is None else metadata.encode())


def read_recorded(connection: Connection, target: TestedSubscription, event_id: UUID | str) -> EventParts:
    """Return an event of the subscription's tenant as it is sent. Raises NotFoundError."""
    uuid = EventId.of(event_id)
    parameters = {"id": uuid, "subscription_id": UUID(bytes=target.subscription.id)}
    row: Any = connection.execute(text(_EVENT), parameters).one_or_none()
    if row is None:
        raise NotFoundError(f"event: no {uuid} of the subscription's tenant; never recorded, or pruned by now")
    identity, payload = event_id_of(row.id.bytes), row.payload.encode()
    metadata = row.metadata and row.metadata.encode()
    return EventParts(identity, row.type.encode(), row.tenant, row.key, row.recorded_at, payload, metadata=metadata)
