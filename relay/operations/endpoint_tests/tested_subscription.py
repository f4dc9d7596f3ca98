"""The subscription that is tested, read as sending needs it, and the attempt row of its test message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy import text

from outbox.control.findings import Finding
from outbox.control.test_messages import MOST_A_MINUTE
from outbox.control.times import utc
from outbox.errors import NotFoundError, ProbeError
from outbox.formats import shown_url
from outbox.ids import DeliveryId, SubscriptionId, event_id_of, new_uuid7
from outbox.subscriptions.rows import id_of
from relay.model.event import EventParts
from relay.store.settlement import storable
from relay.store.subscriptions import SUBSCRIPTIONS, subscription_of

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from relay.model.outcome import Outcome
    from relay.model.subscription import SubscriptionVersion

__all__ = [
    "Logged",
    "ProbeError",
    "TestedSubscription",
    "log_test",
    "make_event",
    "read_subscription",
    "require_home",
    "require_log",
    "require_patience",
]  # fmt: skip


class Logged(NamedTuple):
    """The attempt row of a test message: its delivery and when it was written."""

    delivery_id: DeliveryId
    at: datetime


@dataclass(frozen=True)
class TestedSubscription:
    """A subscription as it is now: what sending needs of it, and why nothing is sent to it by itself."""

    id: SubscriptionId
    subscription: SubscriptionVersion
    hindrance: Finding | None
    unix_seconds: int

    @property
    def shown_url(self) -> str:
        """Its URL as it may be shown."""
        return shown_url(self.subscription.url, self.subscription.format)


_SUBSCRIPTION = """
select id, paused_at, drops_while_paused, disabled_at, disabled_reason,
       (select paused_at from outbox.sending) as all_paused_at, outbox.is_copied() as copied,
       case when held_until > clock_timestamp() then held_until end as held,
       cast(floor(extract(epoch from clock_timestamp())) as bigint) as unix_seconds
from outbox.subscriptions
where id = :id and removed_at is null and (cast(:tenant as text) is null or tenant = :tenant)
"""
_NOW = "select cast(extract(epoch from clock_timestamp() - timestamptz '2000-01-01Z') * 1000000 as bigint)"
_RECENT = """
select count(*) from outbox.attempts
where subscription_id = :id and verdict = 'test' and at > clock_timestamp() - interval '1 minute'
"""
_MAY_LOG = """
insert into outbox.attempts (delivery_id, subscription_id, number, verdict, outcome, milliseconds)
select null, null, 1, 'test', '', 0 where false
"""
_LOG = """
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status, milliseconds,
                             error, url, address, headers, excerpt)
values (:delivery_id, null, :subscription_id, 1, 'test', :outcome, :status, :milliseconds,
        :error, :url, :address, :headers, :excerpt)
returning at
"""


def read_subscription(connection: Connection, tenant: str | None, subscription_id: UUID | str) -> TestedSubscription:
    """Read a subscription, whatever keeps it from getting events. Raises NotFoundError, also for a removed one."""
    uuid = id_of(connection, tenant, subscription_id)
    row = connection.execute(text(_SUBSCRIPTION), {"id": uuid, "tenant": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"subscription: no {uuid}, or it is removed")
    (found,) = connection.exec_driver_sql(SUBSCRIPTIONS, ([uuid],)).all()
    subscription = subscription_of((uuid.bytes, *found[1:]))
    return TestedSubscription(uuid, subscription, _hindrance(row), row.unix_seconds)


def _hindrance(row: Any) -> Finding | None:
    """Return why deliveries wait, and what ends that."""
    subject = SubscriptionId.of(row.id)
    resume = f"relay subscriptions resume {subject}"
    if row.copied:
        seen = "this database is a copy, and nothing is sent from it"
        return Finding(code="hindrance.copied", subject=subject, seen=seen, mend="relay adopt")
    if row.all_paused_at is not None:
        seen = f"all sending is paused since {utc(row.all_paused_at)}"
        return Finding(code="hindrance.sending", subject=subject, seen=seen, mend="relay resume-all")
    if row.disabled_at is not None:
        seen = f"disabled since {utc(row.disabled_at)} ({row.disabled_reason})"
        return Finding(code="hindrance.disabled", subject=subject, seen=seen, mend=resume)
    if row.paused_at is not None:
        dropping = ", what comes meanwhile is dropped" if row.drops_while_paused else ""
        seen = f"paused since {utc(row.paused_at)}{dropping}"
        return Finding(code="hindrance.paused", subject=subject, seen=seen, mend=resume)
    if row.held is None:
        return None
    seen = f"held back until {utc(row.held)}, as the endpoint asked"
    return Finding(code="hindrance.held", subject=subject, seen=seen)


def require_home(target: TestedSubscription) -> None:
    """Raise ProbeError where nothing at all may be sent: from a copy of a database."""
    if target.hindrance is not None and target.hindrance.code == "hindrance.copied":
        raise ProbeError(f"test: {target.hindrance.seen}; {target.hindrance.mend}, if it is to send")


def require_patience(connection: Connection, target: TestedSubscription) -> None:
    """Raise ProbeError when enough test messages went there in the last minute."""
    recent = connection.execute(text(_RECENT), {"id": UUID(bytes=target.subscription.id)}).scalar_one()
    if recent >= MOST_A_MINUTE:
        raise ProbeError(f"test: {recent} test messages went to {target.id} in the last minute; wait for the next one")


def require_log(connection: Connection) -> None:
    """Run the insert of the log without a row: a missing right is then found before the message is sent, not after."""
    connection.execute(text(_MAY_LOG))


def make_event(connection: Connection, type: str, payload: str) -> EventParts:  # noqa: A002 - called type everywhere
    """Return an event that is not recorded, with a new id and the database's time."""
    now: int = connection.execute(text(_NOW)).scalar_one()
    return EventParts(event_id_of(new_uuid7().bytes), type.encode(), "", None, now, payload.encode())


def log_test(connection: Connection, target: TestedSubscription, outcome: Outcome) -> Logged:
    """Write the attempt row of a test message, under the id of a delivery that does not exist."""
    delivery_id = DeliveryId.of(new_uuid7())
    row = {
        "delivery_id": delivery_id,
        "subscription_id": UUID(bytes=target.subscription.id),
        "outcome": outcome.kind,
        "status": outcome.status,
        "milliseconds": outcome.milliseconds,
        "error": _text(outcome.error),
        "url": target.shown_url,
        "address": outcome.address,
        "headers": _text(outcome.headers),
        "excerpt": outcome.excerpt,
    }
    at: datetime = connection.execute(text(_LOG), row).scalar_one()
    return Logged(delivery_id, at)


def _text(value: str | None) -> str | None:
    stored = storable(value)
    return None if stored is None else stored.decode()
