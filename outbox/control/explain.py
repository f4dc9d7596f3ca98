"""Why a subscription gets an event, or does not: by the filters that fan_out asks, also for a draft of an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from outbox._patterns import covers
from outbox._text import complaint
from outbox.control.filter_answers import FilterTest, ask_filter
from outbox.control.filters import Filters
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import own
from outbox.errors import NotFoundError, RecordError
from outbox.ids import EventId, SubscriptionId
from outbox.recording.arguments import checked_metadata, checked_type
from outbox.recording.payload import RawJSON, encode
from outbox.subscriptions.filters import Answer, FilteredEvent, parse, stored_filter
from outbox.subscriptions.rows import id_of

__all__ = [
    "Draft",
    "ExplainedEvent",
    "ExplainedSubscription",
    "explain_draft",
    "explain_event",
    "try_filter",
    "try_stored_filter",
]

_MAX_KEY_BYTES = 1024
_MAX_DRAFT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event that was not recorded: `data` is its payload as JSON text."""

    type: str
    data: str
    key: str | None = None
    tenant: str = ""
    metadata: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        checked_type(self.type)
        if self.metadata is not None:
            checked_metadata(self.metadata)
        if self.key is not None and (refused := complaint("key", self.key, _MAX_KEY_BYTES)):
            raise RecordError(refused)
        encode(RawJSON(self.data), _MAX_DRAFT_BYTES)

    def filtered(self) -> FilteredEvent:
        """Return it as filters see it."""
        return FilteredEvent(self.type, self.data, key=self.key, metadata=self.metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedSubscription:
    """What one subscription, as it is now, would get of an event, and why.

    `reason` is a name that stays: matched, removed, dropped, tenant, type, filter, and for a filter without a result
    filter_over_budget, filter_unreadable, filter_refused, filter_failed. For `filter` path, condition and found tell
    the first condition that does not hold. `waits` says why a delivery would not be sent now: paused, disabled, held.
    `gave_up` tells that its filter came to no result when the event was resolved, `changed_since` that it was changed
    after that.
    """

    id: SubscriptionId
    url: str
    matches: bool
    reason: str
    detail: str
    path: str | None = None
    condition: str | None = None
    found: str | None = None
    waits: str | None = None
    gave_up: bool = False
    changed_since: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedEvent:
    """An event, or a draft (then `id` is None), and its tenant's subscriptions; for the operator with their own."""

    id: EventId | None
    type: str
    tenant: str
    key: str | None
    resolved_at: datetime | None
    matched: int | None
    subscriptions: Page[ExplainedSubscription]


_EVENT = f"""
select e.*, r.at as resolved_at, r.matches[array_position(r.seqs, e.seq)] as matched,
       r.gave_up_seqs, r.gave_up_subscriptions
from (select seq, id, type, tenant, key, payload, metadata from outbox.events where id = :id
      union all
      (select event_seq, event_id, type, tenant, key, payload, metadata from outbox.dead_letters
       where event_id = :id limit 1)
      limit 1) e
left join lateral (
    select * from (select * from outbox.resolutions where first_seq <= e.seq order by first_seq desc limit 200) near
    where e.seq = any(seqs) order by at desc limit 1) r on true
where {own("e.tenant")}
"""  # noqa: S608 - the parts are constants

_LISTING = Listing(
    name="explained",
    columns={"subscription": "s.id"},
    own=own("s.tenant"),
    keys=(Key("s.id", "id", "uuid"),),
)
_SUBSCRIPTIONS = """
select s.id, s.tenant, s.shown_url as url, s.types, s.filter, s.updated_at,
       s.removed_at is not null as removed,
       s.paused_at is not null and s.drops_while_paused as drops,
       case when s.disabled_at is not null then 'disabled: ' || s.disabled_reason when s.paused_at is not null
            then 'paused' when s.held_until > clock_timestamp() then 'held by its Retry-After' end as waits
from outbox.subscriptions s
"""


@dataclass(frozen=True, slots=True)
class _About:
    """The event that is explained, and what is known of its resolution."""

    type: str
    tenant: str
    event: FilteredEvent
    resolved_at: datetime | None = None
    gave_up: frozenset[UUID] = frozenset()


def explain_event(
    connection: Connection,
    tenant: str | None,
    event_id: UUID | str,
    *,
    subscription: UUID | str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> ExplainedEvent:
    """Return for each subscription, as it is now, whether it gets this event, and why.

    Raises NotFoundError when it is none of this tenant's, was never recorded, or is past its retention.
    """
    row = _read_event(connection, tenant, event_id)
    pairs = zip(row.gave_up_seqs or (), row.gave_up_subscriptions or (), strict=True)
    gave_up = frozenset(identity for seq, identity in pairs if seq == row.seq)
    about = _About(row.type, row.tenant, _filtered(row), row.resolved_at, gave_up)
    return ExplainedEvent(
        id=EventId.of(row.id), type=row.type, tenant=row.tenant, key=row.key, resolved_at=row.resolved_at,
        matched=row.matched,
        subscriptions=_explain(connection, tenant, about, Filters(subscription=subscription, limit=limit), after),
    )  # fmt: skip


def explain_draft(
    connection: Connection,
    tenant: str | None,
    draft: Draft,
    *,
    subscription: UUID | str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> ExplainedEvent:
    """Return the same for an event that was not recorded. A tenant's draft is of that tenant, whatever it says."""
    of = draft.tenant if tenant is None else tenant
    about = _About(draft.type, of, draft.filtered())
    return ExplainedEvent(
        id=None, type=draft.type, tenant=of, key=draft.key, resolved_at=None, matched=None,
        subscriptions=_explain(connection, tenant, about, Filters(subscription=subscription, limit=limit), after),
    )  # fmt: skip


def try_filter(connection: Connection, tenant: str | None, filter: object, event: UUID | str | Draft) -> FilterTest:  # noqa: A002
    """Return what a filter that nobody has says of an event or a draft. Raises SubscriptionError for what is none."""
    return ask_filter(parse(filter), _event_of(connection, tenant, event))


def try_stored_filter(
    connection: Connection, tenant: str | None, subscription_id: UUID | str, event: UUID | str | Draft
) -> FilterTest:
    """Return what the filter of a subscription says of an event or a draft; without a filter that is a match."""
    statement = f"{_SUBSCRIPTIONS} where s.id = :id and {own('s.tenant')}"
    identity = id_of(connection, tenant, subscription_id)
    row = connection.execute(text(statement), {"id": identity, "asking": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"subscription: no {identity}")
    return ask_filter(stored_filter(row.filter or "{}"), _event_of(connection, tenant, event))


def _event_of(connection: Connection, tenant: str | None, event: UUID | str | Draft) -> FilteredEvent:
    if isinstance(event, Draft):
        return event.filtered()
    return _filtered(_read_event(connection, tenant, event))


def _filtered(row: Any) -> FilteredEvent:
    return FilteredEvent(row.type, row.payload, key=row.key, metadata=row.metadata)


def _read_event(connection: Connection, tenant: str | None, event_id: UUID | str) -> Any:
    uuid = EventId.of(event_id)
    row = connection.execute(text(_EVENT), {"id": uuid, "asking": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"event: no {uuid}; never recorded, or pruned after its retention")
    return row


def _explain(
    connection: Connection, tenant: str | None, about: _About, filters: Filters, after: str | None
) -> Page[ExplainedSubscription]:
    """Explain a page of the tenant's subscriptions, or the one that is asked for, whatever it is."""
    where, parameters = _LISTING.where(tenant, filters, after)
    if filters.subscription is None:
        where += " and s.tenant = any(array[:of, '*']) and s.removed_at is null"
        parameters["of"] = about.tenant
    rows = connection.execute(
        text(f"{_SUBSCRIPTIONS} where {where} {_LISTING.order_by} limit :limit"), parameters
    ).all()
    if filters.subscription is not None and not rows:
        raise NotFoundError(f"subscription: no {SubscriptionId.of(filters.subscription)}")
    return _LISTING.page(rows, filters.limit, lambda row: _explained(row, about))


def _explained(row: Any, about: _About) -> ExplainedSubscription:
    changed = about.resolved_at is not None and row.updated_at > about.resolved_at
    known: dict[str, Any] = {
        "id": SubscriptionId.of(row.id),
        "url": row.url,
        "gave_up": row.id in about.gave_up,
        "changed_since": changed,
    }
    if (refused := _refused(row, about)) is not None:
        return ExplainedSubscription(**known, matches=False, reason=refused[0], detail=refused[1])
    tested = ask_filter(stored_filter(row.filter or "{}"), about.event)
    waits = f", and waits: it is {row.waits}" if row.waits else ""
    return ExplainedSubscription(
        **known,
        matches=tested.matches,
        reason=_reason(tested),
        detail=f"it gets the event{waits}" if tested.matches else tested.detail,
        path=tested.path,
        condition=tested.condition,
        found=tested.found,
        waits=row.waits if tested.matches else None,
    )


def _reason(tested: FilterTest) -> str:
    if tested.answer == Answer.NO_MATCH:
        return "filter"
    return "matched" if tested.matches else f"filter_{tested.answer}"


def _refused(row: Any, about: _About) -> tuple[str, str] | None:
    """Return the reason and its words where it gets nothing whatever its filter says."""
    if row.removed:
        return "removed", "it is removed"
    if row.drops:
        return "dropped", "it is paused, and drops what comes meanwhile"
    if row.tenant not in (about.tenant, "*"):
        return "tenant", f"it is of tenant {row.tenant!r}, the event of {about.tenant!r}"
    if not any(covers(pattern, about.type) for pattern in row.types):
        return "type", f"none of its types covers {about.type}: {_first_of(row.types)}"
    return None


def _first_of(patterns: Sequence[str]) -> str:
    return ", ".join(patterns[:5]) + (f" and {len(patterns) - 5} more" if len(patterns) > 5 else "")
