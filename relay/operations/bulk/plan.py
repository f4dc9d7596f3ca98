"""How much a bulk operation would put back, counted by the statements that relays use; changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from outbox.ids import DeliveryId, EventId, SubscriptionId
from outbox.subscriptions.filters import Answer, FilteredEvent, stored_filter
from relay.operations.bulk.request import resolve
from relay.store.bulk_pages import PHASES, Work, page_of, page_statement, utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from relay.operations.bulk.request import BulkRequest, Kind, Resolved
    from relay.store.bulk_pages import Found

__all__ = ["COUNTED", "Plan", "SampledEvent", "plan_bulk", "plan_of"]

COUNTED = 10_000  # exactly up to so many
SAMPLED = 5
_LOOK = 20_000
_SECONDS = 10.0  # then the count is a least one
_FILTERED = 500  # payloads that are read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledEvent:
    """One of the first events that would be put back; `delivery_id` is of its dead letter, or of what waits."""

    id: EventId
    type: str
    recorded_at: datetime
    delivery_id: DeliveryId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an operation would put back now. `exact` is false where there are `count` or more.

    passed_over: dead letters that cannot be put back: unreadable, not resolved, or of a removed subscription.
    not_sendable_because: why nothing is sent to the subscription at the moment; what is put back waits.
    """

    kind: Kind
    subscription_id: SubscriptionId | None
    count: int
    exact: bool
    passed_over: int
    not_sendable_because: str | None
    sample: tuple[SampledEvent, ...]


def plan_bulk(connection: Connection, tenant: str | None, request: BulkRequest) -> Plan:
    """Count what the request would put back, exactly up to 10,000, and sample it. Raises as `resolve` does."""
    return plan_of(connection, resolve(connection, tenant, request))


def plan_of(connection: Connection, asked: Resolved) -> Plan:
    """Count what was resolved."""
    until = time.monotonic() + _SECONDS
    first: list[Found] = []
    count = passed_over = 0
    exact = True
    for found, not_possible in _pages(connection, _work(connection, asked)):
        count += len(found)
        passed_over += not_possible
        first += found[: SAMPLED - len(first)]
        if count >= COUNTED or time.monotonic() > until:
            exact, count = False, min(count, COUNTED)
            break
    return Plan(
        kind=asked.kind, subscription_id=asked.subscription_id, count=count, exact=exact, passed_over=passed_over,
        not_sendable_because=_obstacle(connection, asked.subscription_id), sample=_sample(connection, first),
    )  # fmt: skip


_BEGIN = text(f"""
select {utc("clock_timestamp()")} as now, (select last_value from outbox.events_seq) as drawn,
       (select min(first_seq) - 1 from outbox.resolutions where at >= cast(:since as timestamptz)) as before
""")  # noqa: S608 - constants


def _work(connection: Connection, asked: Resolved) -> Work:
    since = asked.parameters.get("since")
    row = connection.execute(_BEGIN, {"since": since}).one()
    after = -1 if since is None else row.drawn if row.before is None else row.before
    return Work(
        kind=asked.kind, phase=PHASES[asked.kind][0], subscription_id=asked.subscription_id, tenant=asked.tenant,
        parameters=asked.parameters, started_at=row.now, up_to_seq=row.drawn, after_seq=after, filter=asked.filter,
        room=_LOOK,
    )  # fmt: skip


def _pages(connection: Connection, work: Work) -> Iterator[tuple[list[Found], int]]:
    """Yield what each page would put back, and how much of it cannot be."""
    left: Work | None = work
    while left is not None:
        statement, parameters = page_statement(left, look=_LOOK)
        rows = connection.exec_driver_sql(statement, parameters).all()
        page = page_of(left, rows, look=_LOOK)
        yield _filtered(connection, left.filter, page.to_put_back), page.passed_over
        left = page.left.next_phase() if page.ended else page.left


_PAYLOADS = text("select seq, type, key, payload, metadata from outbox.events where seq = any(cast(:seqs as bigint[]))")


def _filtered(connection: Connection, filter_text: str | None, found: Sequence[Found]) -> list[Found]:
    if filter_text is None:
        return list(found)
    filter_ = stored_filter(filter_text)
    matching: list[Found] = []
    for at in range(0, len(found), _FILTERED):
        some = found[at : at + _FILTERED]
        rows = connection.execute(_PAYLOADS, {"seqs": [one.event_seq for one in some]})
        seqs = {row.seq for row in rows if _matches(filter_, row)}
        matching += [one for one in some if one.event_seq in seqs]
    return matching


def _matches(filter_: Any, row: Any) -> bool:
    return filter_.answer(FilteredEvent(row.type, row.payload, key=row.key, metadata=row.metadata)) is Answer.MATCH


_SAMPLE = text("""
select seq, id, type, recorded_at from outbox.events where seq = any(cast(:seqs as bigint[]))
union all (select distinct on (event_seq) event_seq, event_id, type, recorded_at from outbox.dead_letters l
           where event_seq = any(cast(:seqs as bigint[]))
             and not exists (select from outbox.events e where e.seq = l.event_seq)
           order by event_seq)
""")


def _sample(connection: Connection, first: Sequence[Found]) -> tuple[SampledEvent, ...]:
    rows = connection.execute(_SAMPLE, {"seqs": [one.event_seq for one in first]})
    events = {row.seq: row for row in rows}
    return tuple(
        SampledEvent(
            id=EventId.of(row.id), type=row.type, recorded_at=row.recorded_at, delivery_id=DeliveryId.maybe(one.id)
        )
        for one in first
        if (row := events.get(one.event_seq)) is not None
    )


_OBSTACLE = text("""
select case when paused_at is not null then 'paused' when disabled_at is not null then 'disabled'
            when held_until > clock_timestamp() then 'held' end
from outbox.subscriptions where id = :id
""")


def _obstacle(connection: Connection, subscription_id: SubscriptionId | None) -> str | None:
    found: str | None = connection.execute(_OBSTACLE, {"id": subscription_id}).scalar()
    return found
