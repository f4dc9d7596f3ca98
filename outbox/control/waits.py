"""What an outstanding delivery waits for, and until when: everything that keeps it, what lasts first.

The database says what is paused, held, limited or behind what; a relay that looks at the same rows takes it when none
of it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.attempts import failure_of
from outbox.control.tenancy import own
from outbox.control.times import rough, utc
from outbox.ids import DeliveryId

__all__ = ["KeptDelivery", "Waits", "count_behind", "read_waits", "waits_of_pending"]

MOST_AHEAD = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """One thing that a delivery waits for. `until` is None where nobody knows when it ends.

    `reason` is a name that stays: removed, sending, unreported, sending_paused, disabled, paused, sorting, behind,
    breaker, retry, later, held, no_relay, limit, tenant_limit, slowed, in_flight, batch, turn; for an event pending.
    """

    reason: str
    detail: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDelivery:
    """An outstanding delivery and all that it waits for."""

    id: DeliveryId
    waits: tuple[Waits, ...]


_WAITS = text(f"""
select d.id, d.attempts, nullif(d.due_at, 'infinity') as due_at, d.due_at = 'infinity' as parked,
       d.due_at > clock_timestamp() as is_later, d.lease is not null as leased,
       s.id is null or s.removed_at is not null as removed, s.disabled_at, s.disabled_reason, s.paused_at,
       s.sorting_since, case when s.held_until > clock_timestamp() then s.held_until end as held, s.batch_events,
       s.rate_limit, s.max_in_flight,
       (select paused_at from outbox.sending) as all_paused_at,
       (select reason from outbox.sending where cast(:asking as text) is null) as all_paused_reason,
       h.opened_at, h.probe_at, a.delivery_id as failed_id, a.outcome as failed_outcome, a.status as failed_status,
       a.error as failed_error, t.rate_limit as tenant_rate,
       case when l.allowed_at > clock_timestamp() then l.allowed_at end as limited_until,
       case when l.measured_from > clock_timestamp() - interval '10 minutes' then l.slowed_to end as slowed_to,
       (select c.allowed_at from outbox.limits c
        where c.id = t.id and c.allowed_at > clock_timestamp()) as tenant_limited_until,
       (select sum(slots) from outbox.in_flight f
        where f.subscription_id = s.id and f.ends_at > clock_timestamp()) as in_flight,
       (select count(*) from outbox.relays where seen_at > clock_timestamp() - interval '15 seconds') as relays,
       (select b.id from outbox.deliveries b where b.subscription_id = d.subscription_id and b.lane = d.lane
        and d.due_at = 'infinity' and isfinite(b.due_at) limit 1) as head,
       (select count(*) from (
            select from outbox.deliveries b
            where b.subscription_id = d.subscription_id and b.due_at < d.due_at and b.lease is null
            order by b.due_at limit {MOST_AHEAD + 1}) before) as ahead
from outbox.deliveries d
left join outbox.subscriptions s on s.id = d.subscription_id
left join outbox.health h on h.subscription_id = d.subscription_id
left join lateral (
    select delivery_id, outcome, status, error from outbox.attempts
    where h.opened_at is not null and subscription_id = d.subscription_id and outcome <> 'delivered'
      and outcome <> 'stood_still' and verdict not in ('test', 'cancelled')
      and at > clock_timestamp() - interval '7 days'
    order by at desc limit 1) a on true
left join outbox.limits l on l.id = d.subscription_id
left join outbox.tenant_limits t on t.tenant = s.tenant
where d.id = any(cast(:ids as uuid[])) and {own("s.tenant")}
""")  # noqa: S608 - constants


def read_waits(connection: Connection, tenant: str | None, delivery_ids: Sequence[UUID]) -> tuple[KeptDelivery, ...]:
    """Return what each of these waits for that is outstanding, and the tenant's."""
    rows = connection.execute(_WAITS, {"ids": list(delivery_ids), "asking": tenant})
    return tuple(KeptDelivery(id=DeliveryId.of(row.id), waits=tuple(_waits(row))) for row in rows)


_BEHIND = text(f"""
select count(*) from (
    select from outbox.deliveries d join outbox.subscriptions s on s.id = d.subscription_id
    join outbox.deliveries b on b.subscription_id = d.subscription_id and b.lane = d.lane and not isfinite(b.due_at)
    where d.id = :id and isfinite(d.due_at) and {own("s.tenant")} limit {MOST_AHEAD + 1}) behind
""")  # noqa: S608 - constants


def count_behind(connection: Connection, tenant: str | None, delivery_id: UUID | str) -> int:
    """Return how many wait behind an outstanding delivery that is the first of its key, counted up to 1,001."""
    found: int = connection.execute(_BEHIND, {"id": DeliveryId.of(delivery_id), "asking": tenant}).scalar_one()
    return found


def waits_of_pending(connection: Connection) -> Waits:
    """Return why an event that was found is not resolved yet."""
    relays: int = connection.execute(
        text("select count(*) from outbox.relays where seen_at > clock_timestamp() - interval '15 seconds'")
    ).scalar_one()
    if not relays:
        return Waits(reason="no_relay", detail="no relay runs: relay run")
    return Waits(reason="pending", detail="a relay resolves it in its turn: relay status")


def _waits(row: Any) -> Iterator[Waits]:
    if row.removed:
        yield Waits(reason="removed", detail="its subscription was removed; it is cleared away")
        return
    if row.leased and row.is_later:
        yield Waits(reason="sending", detail="a relay is sending it now", until=row.due_at)
        return
    yield from _stopped(row)
    yield from _timed(row)
    if row.parked or row.is_later:
        return
    yield from _limited(row)


def _stopped(row: Any) -> Iterator[Waits]:
    """Yield what a person or the endpoint's state keeps, for as long as it stands."""
    if row.all_paused_at is not None:
        why = f" ({row.all_paused_reason})" if row.all_paused_reason else ""
        yield Waits(reason="sending_paused", detail=f"all sending is paused since {utc(row.all_paused_at)}{why}")
    if row.disabled_at is not None:
        since = f"disabled since {utc(row.disabled_at)}"
        yield Waits(reason="disabled", detail=f"its subscription is {since}: {row.disabled_reason}")
    if row.paused_at is not None:
        yield Waits(reason="paused", detail=f"its subscription is paused since {utc(row.paused_at)}")
    if row.sorting_since is not None:
        yield Waits(reason="sorting", detail="its subscription's backlog is being put in order")
    if row.opened_at is not None:
        opened = f"its endpoint failed too often{_last_failure(row)}: the breaker is open since {utc(row.opened_at)}"
        yield Waits(reason="breaker", detail=f"{opened}, and one delivery is tried next", until=row.probe_at)


def _last_failure(row: Any) -> str:
    """Return in brackets how its last failed attempt failed, and of which delivery that was."""
    if row.failed_id is None:
        return ""
    cause = failure_of(row.failed_outcome, row.failed_status, row.failed_error)
    return f" ({cause}; the last was {DeliveryId.of(row.failed_id)})"


def _timed(row: Any) -> Iterator[Waits]:
    """Yield what it is behind, and the times that it waits for."""
    if row.parked:
        head = "another" if row.head is None else str(DeliveryId.of(row.head))
        yield Waits(reason="behind", detail=f"{head} with the same key goes first")
    elif row.is_later and row.attempts:
        yield Waits(reason="retry", detail=f"backs off after attempt {row.attempts}", until=row.due_at)
    elif row.is_later:
        yield Waits(reason="later", detail="the event is not to be sent before", until=row.due_at)
    if row.held is not None:
        yield Waits(reason="held", detail="its endpoint asked to wait (Retry-After)", until=row.held)


def _limited(row: Any) -> Iterator[Waits]:
    """Yield what keeps one that is due."""
    if row.leased:
        yield Waits(reason="unreported", detail="a relay had it and did not report; it is taken again, alone")
    if not row.relays:
        yield Waits(reason="no_relay", detail="no relay runs: relay run")
    if row.limited_until is not None and row.rate_limit is not None:
        detail = f"its limit of {row.rate_limit} is used up"
        yield Waits(reason="limit", detail=detail, until=row.limited_until)
    if row.slowed_to is not None and row.ahead + 1 > row.slowed_to:  # else it goes within a second
        takes = f"its endpoint takes no more than {rough(row.slowed_to)} requests a second"
        yield Waits(reason="slowed", detail=takes)
    if row.tenant_limited_until is not None:
        detail = f"its tenant's limit of {row.tenant_rate} is used up"
        yield Waits(reason="tenant_limit", detail=detail, until=row.tenant_limited_until)
    if row.max_in_flight is not None and (row.in_flight or 0) >= row.max_in_flight:
        yield Waits(reason="in_flight", detail=f"{row.max_in_flight} requests are on the wire, as many as it may have")
    if row.batch_events is not None:
        yield Waits(reason="batch", detail="it is gathered with others into one request")
    if not row.leased:
        ahead = f"more than {MOST_AHEAD}" if row.ahead > MOST_AHEAD else str(row.ahead)
        yield Waits(reason="turn", detail=f"it is due, and {ahead} of its subscription were due before it")
