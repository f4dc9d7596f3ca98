"""Every call of the API, named as in its description. Filters are those of the command line, as text.

Ids are text or ids; a result is a frozen document. What makes something takes `once`, an Idempotency-Key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from outbox.control.attempts import Attempt, ListedAttempt
from outbox.control.audit import AuditEntry
from outbox.control.dead_letters import DeadLetterDetails, ListedDeadLetter
from outbox.control.deliveries import DeliveryDetails, ListedDelivery
from outbox.control.events import DeadDelivery, EventDetails, ListedEvent
from outbox.control.findings import Finding
from outbox.recording.record import Event
from outbox.statistics import Point, Statistics
from outbox.subscriptions import NewSubscription, Subscription, TenantLimit
from relay.client.call import Call, path_of
from relay.client.reading import read_as, read_page
from relay.client.results import (
    Cancelled,
    Health,
    OwnToken,
    Purged,
    ReadSubscription,
    Replayed,
    Retried,
    SetLimit,
)
from relay.operations.sending import Resumed, Sending
from relay.operations.status.breakers import Breaker
from relay.operations.tenant_retention import TenantRetention
from relay.operations.tokens import NewToken, Token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outbox.control.explain import ExplainedEvent, FilterTest
    from outbox.control.pages import Page
    from outbox.control.track import EventTrack
    from relay.operations.bulk.operations import BulkOperation
    from relay.operations.bulk.plan import Plan
    from relay.operations.erase.erasure import Erasure, Receipt
    from relay.operations.erase.request import ErasePlan
    from relay.operations.probe.documents import CheckedEndpoint, SentTest
    from relay.operations.probe.preview import PreviewedRequest
    from relay.operations.status.documents import Status

T = TypeVar("T")


def _get(kind: type[T], path: str, *names: object, **query: Any) -> Call[T]:
    return Call(method="GET", path=path_of(path, *names), query=query, read=lambda found, _: read_as(kind, found))


def _list(kind: type[T], path: str, *names: object, **query: Any) -> Call[Page[T]]:
    return Call(method="GET", path=path_of(path, *names), query=query, read=lambda found, _: read_page(kind, found))


def _send(
    kind: type[T], method: str, path: str, *names: object, body: Any = None, once: str | None = None,
    etag: str | None = None,
) -> Call[T]:  # fmt: skip
    given = {"Idempotency-Key": once, "If-Match": etag}
    return Call(
        method=method,
        path=path_of(path, *names),
        body=body,
        headers={name: value for name, value in given.items() if value is not None},
        read=lambda found, _: read_as(kind, found),
    )


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _subscription(found: Mapping[str, Any], headers: Mapping[str, str]) -> ReadSubscription:
    return ReadSubscription(
        subscription=read_as(Subscription, found),
        breaker=read_as(Breaker, found["breaker"]),
        etag=headers.get("etag", ""),
    )


def add_subscription(
    url: str, types: Sequence[str], *, once: str | None = None, **settings: Any
) -> Call[NewSubscription]:
    """Subscribe a URL; `settings` are those of `outbox.subscriptions.add`, credentials as their JSON."""
    body = {"url": url, "types": list(types), **settings}
    return _send(NewSubscription, "POST", "/subscriptions", body=body, once=once)


def list_subscriptions(**filters: Any) -> Call[Page[ReadSubscription]]:
    """List subscriptions; filters: tenant, state, type, after, limit."""
    from outbox.control.pages import Page

    pages = _list(object, "/subscriptions", **filters)
    return pages.then(lambda page: Page(tuple(_subscription(_mapping(item), {}) for item in page), page.next))


def _mapping(value: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = value
    return found


def get_subscription(subscription_id: object) -> Call[ReadSubscription]:
    """Show one subscription, with its breaker and its version."""
    return Call(method="GET", path=path_of("/subscriptions/{}", subscription_id), read=_subscription)


def change_subscription(subscription_id: object, etag: str, **changes: Any) -> Call[Subscription]:
    """Change fields of the version that was read; `*` is any version. None puts a field back to its default."""
    return _send(Subscription, "PATCH", "/subscriptions/{}", subscription_id, body=changes, etag=etag)


def remove_subscription(subscription_id: object, etag: str = "*") -> Call[Subscription]:
    """End a subscription for good."""
    return _send(Subscription, "DELETE", "/subscriptions/{}", subscription_id, etag=etag)


def pause_subscription(subscription_id: object, *, drop: bool = False) -> Call[Subscription]:
    """Stop sending until it is resumed."""
    return _send(Subscription, "POST", "/subscriptions/{}/pause", subscription_id, body={"drop": drop})


def disable_subscription(subscription_id: object, reason: str) -> Call[Subscription]:
    """Stop sending for a reason that everybody is shown."""
    return _send(Subscription, "POST", "/subscriptions/{}/disable", subscription_id, body={"reason": reason})


def resume_subscription(subscription_id: object) -> Call[Subscription]:
    """Send again."""
    return _send(Subscription, "POST", "/subscriptions/{}/resume", subscription_id)


def rotate_secret(subscription_id: object, *, once: str | None = None, **given: Any) -> Call[NewSubscription]:
    """Give it a new secret; given: secret, scheme, key_type, overlap_seconds."""
    return _send(NewSubscription, "POST", "/subscriptions/{}/rotate-secret", subscription_id, body=given, once=once)


def get_health(subscription_id: object) -> Call[Health]:
    """Show what waits for it, and its breaker."""
    return _get(Health, "/subscriptions/{}/health", subscription_id)


def send_test_message(subscription_id: object, *, type: str = "outbox.test", **data: Any) -> Call[SentTest]:  # noqa: A002
    """Send one test message; `data=…` is any JSON, or RawJSON that is sent as it is written."""
    from relay.operations.probe.documents import SentTest

    return _send(SentTest, "POST", "/subscriptions/{}/test", subscription_id, body={"type": type, **data})


def check_subscription(subscription_id: object) -> Call[CheckedEndpoint]:
    """Look at the way to the endpoint and send nothing."""
    from relay.operations.probe.documents import CheckedEndpoint

    return _send(CheckedEndpoint, "POST", "/subscriptions/{}/check", subscription_id)


def preview_request(subscription_id: object, **about: Any) -> Call[PreviewedRequest]:
    """Show the request that an event becomes: event_id, or type, key and data; transformation."""
    from relay.operations.probe.preview import PreviewedRequest

    return _send(PreviewedRequest, "POST", "/subscriptions/{}/preview", subscription_id, body=about)


def ask_stored_filter(subscription_id: object, **about: Any) -> Call[FilterTest]:
    """Ask its filter about an event (event_id) or a draft (type, key, data)."""
    from outbox.control.explain import FilterTest

    return _send(FilterTest, "POST", "/subscriptions/{}/filter-test", subscription_id, body=about)


def ask_filter(filter: Mapping[str, Any], **about: Any) -> Call[FilterTest]:  # noqa: A002 - the field's name
    """Ask a filter that nobody has."""
    from outbox.control.explain import FilterTest

    return _send(FilterTest, "POST", "/filter-test", body={"filter": filter, **about})


def record_event(type: str, data: Any, *, once: str, **more: Any) -> Call[Event]:  # noqa: A002
    """Record an event outside of your transaction, one for each `once`; more: key, tenant, available_at, priority."""
    return _send(Event, "POST", "/events", body={"type": type, "data": data, **_given(**more)}, once=once)


def get_events(**filters: Any) -> Call[Page[ListedEvent]]:
    """List events; filters: since, until, type, tenant, key, text, after, limit."""
    return _list(ListedEvent, "/events", **filters)


def get_event(event_id: object) -> Call[EventDetails]:
    """Show one event."""
    return _get(EventDetails, "/events/{}", event_id)


def explain_recorded(event_id: object, **filters: Any) -> Call[ExplainedEvent]:
    """Say for each subscription whether it gets this event, and why; filters: subscription, after, limit."""
    from outbox.control.explain import ExplainedEvent

    return _get(ExplainedEvent, "/events/{}/explanation", event_id, **filters)


def get_event_track(event_id: object, **filters: Any) -> Call[EventTrack]:
    """Tell the track of an event, and who gets it; filters: subscription, tenant (who asks), after, limit."""
    from outbox.control.track import EventTrack

    return _get(EventTrack, "/events/{}/track", event_id, **filters)


def explain_unrecorded(type: str, data: Any, **more: Any) -> Call[ExplainedEvent]:  # noqa: A002
    """The same for a draft; more: key, tenant, subscription, limit."""
    from outbox.control.explain import ExplainedEvent

    return _send(ExplainedEvent, "POST", "/events/explain", body={"type": type, "data": data, **_given(**more)})


def get_outstanding(event_id: object, after: str | None = None) -> Call[Page[ListedDelivery]]:
    """List what is still to deliver of an event."""
    return _list(ListedDelivery, "/events/{}/deliveries", event_id, after=after)


def get_event_attempts(event_id: object, after: str | None = None) -> Call[Page[Attempt]]:
    """List the attempts of an event's deliveries."""
    return _list(Attempt, "/events/{}/attempts", event_id, after=after)


def get_event_dead_letters(event_id: object, after: str | None = None) -> Call[Page[DeadDelivery]]:
    """List the dead letters of an event."""
    return _list(DeadDelivery, "/events/{}/dead-letters", event_id, after=after)


def get_deliveries(**filters: Any) -> Call[Page[ListedDelivery]]:
    """List deliveries; filters: those of attempts, and state."""
    return _list(ListedDelivery, "/deliveries", **filters)


def get_delivery(delivery_id: object) -> Call[DeliveryDetails]:
    """Show one delivery with its attempts."""
    return _get(DeliveryDetails, "/deliveries/{}", delivery_id)


def get_delivery_attempts(delivery_id: object, after: str | None = None) -> Call[Page[Attempt]]:
    """List the attempts of a delivery."""
    return _list(Attempt, "/deliveries/{}/attempts", delivery_id, after=after)


def _chosen(ids: Sequence[object] | None, filters: Mapping[str, Any] | None, *, dry_run: bool) -> dict[str, Any]:
    names = None if ids is None else [str(one) for one in ids]
    return _given(ids=names, filter=filters and _given(**filters), dry_run=dry_run)


def retry_deliveries(
    ids: Sequence[object] | None = None, filters: Mapping[str, Any] | None = None, *, dry_run: bool = False
) -> Call[Retried]:
    """Make due now what waits for a retry: by ids or by filters."""
    return _send(Retried, "POST", "/deliveries/retry", body=_chosen(ids, filters, dry_run=dry_run))


def retry_delivery(delivery_id: object) -> Call[Retried]:
    """Make one delivery due now."""
    return _send(Retried, "POST", "/deliveries/{}/retry", delivery_id)


def cancel_deliveries(
    ids: Sequence[object] | None = None, filters: Mapping[str, Any] | None = None, *, dry_run: bool = False
) -> Call[Cancelled]:
    """Cancel for good what is outstanding: by ids or by filters."""
    return _send(Cancelled, "POST", "/deliveries/cancel", body=_chosen(ids, filters, dry_run=dry_run))


def cancel_delivery(delivery_id: object) -> Call[Cancelled]:
    """Cancel one delivery for good."""
    return _send(Cancelled, "POST", "/deliveries/{}/cancel", delivery_id)


def replay_deliveries(
    ids: Sequence[object] | None = None,
    filters: Mapping[str, Any] | None = None,
    *,
    to: object = None,
    to_all: bool = False,
    state: str = "dead",
    dry_run: bool = False,
    once: str | None = None,
) -> Call[Replayed]:
    """Deliver again: by ids of deliveries, dead letters or events, or by filters."""
    more = _given(to=to and str(to), to_all=to_all or None, state=None if ids is not None else state)
    body = _chosen(ids, filters, dry_run=dry_run) | more
    return _send(Replayed, "POST", "/replays", body=body, once=once)


def get_dead_letters(**filters: Any) -> Call[Page[ListedDeadLetter]]:
    """List dead letters; filters: since, until, type, tenant, key, subscription, event, text, after, limit."""
    return _list(ListedDeadLetter, "/dead-letters", **filters)


def get_dead_letter(delivery_id: object) -> Call[DeadLetterDetails]:
    """Show one dead letter with its payload."""
    return _get(DeadLetterDetails, "/dead-letters/{}", delivery_id)


def redrive_dead_letter(delivery_id: object, *, once: str | None = None) -> Call[Replayed]:
    """Deliver one dead letter again."""
    return _send(Replayed, "POST", "/dead-letters/{}/redrive", delivery_id, once=once)


def redrive_dead_letters(
    ids: Sequence[object] | None = None,
    filters: Mapping[str, Any] | None = None,
    *,
    dry_run: bool = False,
    once: str | None = None,
) -> Call[Replayed]:
    """Deliver dead letters again: by ids or by filters."""
    return _send(Replayed, "POST", "/dead-letters/redrive", body=_chosen(ids, filters, dry_run=dry_run), once=once)


def purge_dead_letter(delivery_id: object) -> Call[Purged]:
    """Delete one dead letter for good."""
    return _send(Purged, "DELETE", "/dead-letters/{}", delivery_id)


def purge_dead_letters(
    ids: Sequence[object] | None = None, filters: Mapping[str, Any] | None = None, *, dry_run: bool = False
) -> Call[Purged]:
    """Delete dead letters for good: by ids or by filters."""
    return _send(Purged, "POST", "/dead-letters/purge", body=_chosen(ids, filters, dry_run=dry_run))


def get_status() -> Call[Status]:
    """Tell what is stuck, why, and whether anything was lost."""
    from relay.operations.status.documents import Status

    return _get(Status, "/status")


def get_findings() -> Call[tuple[Finding, ...]]:
    """List what a person should look at."""
    return _get(tuple[Finding, ...], "/findings")


def get_sending() -> Call[Sending]:
    """Show the switch of all sending."""
    return _get(Sending, "/sending")


def pause_sending(reason: str | None = None) -> Call[Sending]:
    """Stop all sending."""
    return _send(Sending, "POST", "/sending/pause", body=_given(reason=reason))


def resume_sending() -> Call[Resumed]:
    """Let all relays send again."""
    return _send(Resumed, "POST", "/sending/resume")


def get_tenant_limits(**page: Any) -> Call[Page[TenantLimit]]:
    """List the tenants that have a limit; page: after, limit."""
    return _list(TenantLimit, "/tenant-limits", **page)


def set_tenant_limit(tenant: str, rate_limit: str | None, rate_burst: int | None = None) -> Call[SetLimit]:
    """Limit a tenant's requests; None takes the limit away."""
    body = {"tenant": tenant, "rate_limit": rate_limit, "rate_burst": rate_burst}
    return _send(SetLimit, "PUT", "/tenant-limits", body=body)


def get_attempts(**filters: Any) -> Call[Page[ListedAttempt]]:
    """List attempts; filters: those of dead letters, and outcome, status."""
    return _list(ListedAttempt, "/attempts", **filters)


def get_statistics(**filters: Any) -> Call[Statistics]:
    """Count what was delivered and what failed; filters: over, tenant, type, subscription."""
    return _get(Statistics, "/statistics", **filters)


def rank_statistics(by: str, **filters: Any) -> Call[tuple[Statistics, ...]]:
    """The same of each subscription, tenant or type; filters: over, tenant, type, limit."""
    return _get(tuple[Statistics, ...], "/statistics/ranking", by=by, **filters)


def get_series(**filters: Any) -> Call[tuple[Point, ...]]:
    """The same over time; filters: over, tenant, type, subscription, step_seconds."""
    return _get(tuple[Point, ...], "/statistics/series", **filters)


def plan_bulk_operation(kind: str, **filters: Any) -> Call[Plan]:
    """Count what would be put back; filters: subscription, since, until, type, tenant, reason."""
    from relay.operations.bulk.plan import Plan

    return _send(Plan, "POST", "/bulk-operations/plan", body={"kind": kind, **filters})


def add_bulk_operation(kind: str, *, once: str | None = None, **given: Any) -> Call[BulkOperation]:
    """Plan and keep a bulk operation; given: the filters of its plan, rate, start."""
    from relay.operations.bulk.operations import BulkOperation

    return _send(BulkOperation, "POST", "/bulk-operations", body={"kind": kind, **given}, once=once)


def list_bulk_operations(**filters: Any) -> Call[Page[BulkOperation]]:
    """List bulk operations; filters: since, until, tenant, subscription, state, after, limit."""
    from relay.operations.bulk.operations import BulkOperation

    return _list(BulkOperation, "/bulk-operations", **filters)


def get_bulk_operation(operation_id: object) -> Call[BulkOperation]:
    """Show one operation and how far it is."""
    from relay.operations.bulk.operations import BulkOperation

    return _get(BulkOperation, "/bulk-operations/{}", operation_id)


def set_bulk_operation_rate(operation_id: object, rate: int) -> Call[BulkOperation]:
    """Let it go faster or slower."""
    from relay.operations.bulk.operations import BulkOperation

    return _send(BulkOperation, "PUT", "/bulk-operations/{}/rate", operation_id, body={"rate": rate})


def start_bulk_operation(operation_id: object) -> Call[BulkOperation]:
    """Let relays begin what is planned."""
    return _bulk(operation_id, "start")


def pause_bulk_operation(operation_id: object) -> Call[BulkOperation]:
    """Put nothing more back."""
    return _bulk(operation_id, "pause")


def resume_bulk_operation(operation_id: object, rate: int | None = None) -> Call[BulkOperation]:
    """Go on where it was, at this rate where one is given."""
    return _bulk(operation_id, "resume", body=_given(rate=rate))


def cancel_bulk_operation(operation_id: object) -> Call[BulkOperation]:
    """End it for good."""
    return _bulk(operation_id, "cancel")


def _bulk(operation_id: object, verb: str, body: Any = None) -> Call[BulkOperation]:
    from relay.operations.bulk.operations import BulkOperation

    return _send(BulkOperation, "POST", "/bulk-operations/{}/{}", operation_id, verb, body=body)


def plan_an_erasure(kind: str, value: str, **more: Any) -> Call[ErasePlan]:
    """Count what would be erased; more: path, within."""
    from relay.operations.erase.request import ErasePlan

    return _send(ErasePlan, "POST", "/erasures/plan", body={"kind": kind, "value": value, **_given(**more)})


def request_an_erasure(kind: str, value: str, *, once: str | None = None, **more: Any) -> Call[Erasure]:
    """Erase for good; more: path, within, cancel_undelivered."""
    from relay.operations.erase.erasure import Erasure

    return _send(Erasure, "POST", "/erasures", body={"kind": kind, "value": value, **_given(**more)}, once=once)


def list_erasures(**page: Any) -> Call[Page[Erasure]]:
    """List erasures; page: since, until, after, limit."""
    from relay.operations.erase.erasure import Erasure

    return _list(Erasure, "/erasures", **page)


def get_erasure(erasure_id: object) -> Call[Erasure]:
    """Show one erasure and how far it is."""
    from relay.operations.erase.erasure import Erasure

    return _get(Erasure, "/erasures/{}", erasure_id)


def get_receipt(erasure_id: object) -> Call[Receipt]:
    """Show the receipt of an erasure that is done."""
    from relay.operations.erase.erasure import Receipt

    return _get(Receipt, "/erasures/{}/receipt", erasure_id)


def resume_erasure(erasure_id: object, *, cancel_undelivered: bool = False) -> Call[Erasure]:
    """Go on with one that met something undelivered."""
    from relay.operations.erase.erasure import Erasure

    body = {"cancel_undelivered": cancel_undelivered}
    return _send(Erasure, "POST", "/erasures/{}/resume", erasure_id, body=body)


def cancel_erasure(erasure_id: object) -> Call[Erasure]:
    """Erase nothing more."""
    from relay.operations.erase.erasure import Erasure

    return _send(Erasure, "POST", "/erasures/{}/cancel", erasure_id)


def get_tenant_retention(**page: Any) -> Call[Page[TenantRetention]]:
    """List the tenants of whom less is kept; page: after, limit."""
    return _list(TenantRetention, "/tenant-retention", **page)


def keep_for(tenant: str, **days: int | None) -> Call[TenantRetention]:
    """Keep what is a tenant's for so long; days: events_days, attempts_days, dead_letters_days."""
    return _send(TenantRetention, "PUT", "/tenant-retention", body={"tenant": tenant, **days})


def get_audit(**filters: Any) -> Call[Page[AuditEntry]]:
    """List who changed what; filters: since, until, tenant, subject, actor, action, after, limit."""
    return _list(AuditEntry, "/audit", **filters)


def get_own_token() -> Call[OwnToken]:
    """Tell what the token of this call is and may do."""
    return _get(OwnToken, "/token")


def list_tokens(**filters: Any) -> Call[Page[Token]]:
    """List tokens; filters: tenant, revoked, after, limit."""
    return _list(Token, "/tokens", **filters)


def make_token(name: str, rights: Sequence[str], *, once: str | None = None, **more: Any) -> Call[NewToken]:
    """Make a token; more: tenant, and expires_at (RFC 3339) or expires_days."""
    body = {"name": name, "rights": list(rights), **more}
    made = _send(object, "POST", "/tokens", body=body, once=once)
    return made.then(lambda found: NewToken(token=read_as(Token, found), text=_mapping(found)["token"]))


def revoke_token(token_id: object) -> Call[Token]:
    """End a token at once."""
    return _send(Token, "DELETE", "/tokens/{}", token_id)


def get_schemes() -> Call[list[dict[str, Any]]]:
    """List how requests can be signed."""
    return _get(list[dict[str, Any]], "/schemes")


def get_scheme(name: str) -> Call[dict[str, Any]]:
    """Show what a scheme signs."""
    return _get(dict[str, Any], "/schemes/{}", name)


def get_formats() -> Call[list[dict[str, Any]]]:
    """List the shapes that a body can have."""
    return _get(list[dict[str, Any]], "/formats")
