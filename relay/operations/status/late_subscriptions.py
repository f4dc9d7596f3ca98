"""Which subscriptions are behind or failing, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.store.sendable import BROKEN, WANTED
from outbox.control.tenancy import operator_only, own
from outbox.errors import NotFoundError
from outbox.ids import DeliveryId, SubscriptionId
from relay.operations.status.delivery_counts import oldest_since
from relay.operations.status.documents import FailedAttempt, StuckSubscription, SubscriptionHealth
from relay.store.claims import DUE_SINCE

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

__all__ = ["LASTING_HOLD", "LATE_SECONDS", "Retries", "find_stuck", "read_health", "retries_of", "subscription_health"]

LATE_SECONDS = 30
"""What has been due, or pending, for longer than this waits longer than a relay needs."""

_SAMPLE = 2000

LASTING_HOLD = f"""
coalesce(s.held_until > now() - make_interval(secs => {LATE_SECONDS}) and coalesce((
    select at from outbox.attempts
    where subscription_id = s.id and at > now() - make_interval(secs => {2 * LATE_SECONDS})
      and verdict not in ('test', 'cancelled') order by at desc limit 1)
    <= s.held_until - make_interval(secs => {LATE_SECONDS}), true), false)"""  # noqa: S608 - the parts are constants
"""The condition that a hold of subscription s is a state to be told of; an operator must not see two in turn.

An endpoint that answers 429 with Retry-After: 1 is held, and open for a moment, again and again. So a hold of which a
whole LATE_SECONDS is left after the last attempt is a state, and lasts for as long beyond its end, until the next
attempt. A shorter one is none: who is behind stays so through it. Either way one finding stays while nothing changes;
it changes with an answer whose Retry-After is on the other side of LATE_SECONDS, and is true each time.
"""
_SENT_TO = f"{WANTED} and not {BROKEN} and not {LASTING_HOLD}"

# Behind: the oldest due delivery waits longer than a relay needs. Failing: retries wait among those due next.
_STUCK = f"""
with late as (
    select s.id, d.since as due_at from outbox.subscriptions s cross join lateral ({oldest_since()}) d
    where {_SENT_TO} and d.since < now() - make_interval(secs => :late)
    order by d.since limit 5),
failing as (
    select subscription_id as id, min(due_at) as due_at, count(*) as retries,
           (array_agg(delivery order by attempts desc, due_at))[1] as delivery
    from (
        select id as delivery, subscription_id, {DUE_SINCE} as due_at, attempts from outbox.deliveries
        where lease is null order by deliveries.due_at limit :sample) next_due
    where attempts > 0 group by subscription_id order by count(*) desc limit 5)
select s.id, s.shown_url as url, s.tenant, s.name, max(c.retries) as retries,
       (array_agg(c.delivery order by c.delivery))[1] as delivery,
       extract(epoch from clock_timestamp() - min(c.due_at)) as oldest_seconds
from (select id, due_at, 0::bigint as retries, null::uuid as delivery from late union all select * from failing)
     c(stuck, due_at, retries, delivery)
join outbox.subscriptions s on s.id = c.stuck
where {_SENT_TO}
group by s.id order by min(c.due_at) limit 5
"""  # noqa: S608 - the parts are constants

_LAST_ATTEMPT = """
select at, outcome, status, error from outbox.attempts
where subscription_id = :id and verdict not in ('test', 'cancelled') and at > now() - interval '7 days'
order by at desc limit 1
"""

_BACKLOG = """
select count(*) filter (where due_at <= now()) as due, count(*) as outstanding
from (select due_at from outbox.deliveries where subscription_id = :id order by due_at limit 1001) bounded
"""

_HELD = """
select extract(epoch from held_until - clock_timestamp()) from outbox.subscriptions
where id = :id and held_until > clock_timestamp()
"""

_DEAD = """
select count(*) from (select 1 from outbox.dead_letters where subscription_id = :id limit 1001) bounded
"""


def find_stuck(connection: Connection, tenant: str | None) -> tuple[StuckSubscription, ...]:
    """Return at most five subscriptions that are behind or whose deliveries are being retried, the oldest first.

    For the operator only.
    """
    operator_only(tenant, "status")
    rows = connection.execute(text(_STUCK), {"late": LATE_SECONDS, "sample": _SAMPLE}).all()
    return tuple(
        StuckSubscription(
            subscription_id=SubscriptionId.of(row.id),
            url=row.url,
            tenant=row.tenant,
            name=row.name,
            behind_seconds=float(row.oldest_seconds) if row.oldest_seconds > LATE_SECONDS else None,
            retries=row.retries,
            failed=None if row.delivery is None else _read_failed(connection, row.delivery),
            health=read_health(connection, row.id),
        )
        for row in rows
    )


_FAILED = """
select delivery_id, at, outcome, status, error from outbox.attempts
where delivery_id = :id and outcome not in ('delivered', 'stood_still') and at > now() - interval '7 days'
order by at desc limit 1
"""


def _read_failed(connection: Connection, delivery_id: UUID) -> FailedAttempt | None:
    row = connection.execute(text(_FAILED), {"id": delivery_id}).mappings().one_or_none()
    if row is None:
        return None
    return FailedAttempt(**dict(row) | {"delivery_id": DeliveryId.of(row["delivery_id"])})


_KNOWN = f"select from outbox.subscriptions where id = :id and {own('tenant')}"


def subscription_health(connection: Connection, tenant: str | None, subscription_id: UUID | str) -> SubscriptionHealth:
    """Return what waits for one subscription, removed ones too, and how its last attempt went. Raises NotFoundError."""
    uuid = SubscriptionId.of(subscription_id)
    if connection.execute(text(_KNOWN), {"id": uuid, "asking": tenant}).one_or_none() is None:
        raise NotFoundError(f"subscription: no {uuid}, or it is removed")
    return read_health(connection, uuid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How many deliveries of a subscription wait for a retry (counted to 1,001): the first and last of their times."""

    count: int
    first_at: datetime
    last_at: datetime


# Those that `outbox.control.by_hand` would make due: what was never tried has a time of its own.
_RETRIES = f"""
select count(*) as count, min(due_at) as first_at, max(due_at) as last_at from (
    select due_at from outbox.deliveries
    where subscription_id = :id and lease is null and due_at > clock_timestamp() and due_at < 'infinity'
      and attempts > 0 and exists (select from outbox.subscriptions where id = :id and {own("tenant")})
    order by due_at limit 1001) bounded
"""  # noqa: S608


def retries_of(connection: Connection, tenant: str | None, subscription_id: UUID | str) -> Retries | None:
    """Return how many deliveries of a subscription wait for a retry, counted up to 1,001, and until when; or None."""
    asked = {"id": SubscriptionId.of(subscription_id), "asking": tenant}
    row = connection.execute(text(_RETRIES), asked).mappings().one()
    return Retries(**row) if row["count"] else None


def read_health(connection: Connection, uuid: UUID) -> SubscriptionHealth:
    """Return the health of a subscription that is known to be there."""
    backlog = connection.execute(text(_BACKLOG), {"id": uuid}).one()
    at, outcome, status, error = connection.execute(text(_LAST_ATTEMPT), {"id": uuid}).one_or_none() or (None,) * 4
    held = connection.execute(text(_HELD), {"id": uuid}).scalar_one_or_none()
    return SubscriptionHealth(
        due=backlog.due,
        outstanding=backlog.outstanding,
        dead=connection.execute(text(_DEAD), {"id": uuid}).scalar_one(),
        held_seconds=None if held is None else float(held),
        last_attempt_at=at,
        last_outcome=outcome,
        last_status=status,
        last_error=error,
    )
