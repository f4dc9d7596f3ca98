"""Replay: deliver again, by hand. Each replay makes a new delivery with an id of its own, so nobody settles it twice.

A dead letter becomes a delivery again and is gone as a dead letter, in one statement. What was delivered or cancelled
is sent once more. An event that could not be resolved goes back to pending. What is on its way and has never ended is
left alone; whatever has ended once gets one delivery more for each replay by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from outbox.control import audit
from outbox.control.filters import Filters
from outbox.control.replay.replayable import (
    Candidate,
    Matching,
    ReplayError,
    candidates_by_filter,
    candidates_by_id,
    columns_of,
    count_by_filter,
    refuse_other_tenants,
    unknown_subscription,
)
from outbox.control.store import replay as store
from outbox.ids import DeliveryId, EventId, SubscriptionId

__all__ = [
    "Asked", "Candidate", "Matching", "ReplayError", "candidates_by_filter", "candidates_by_id", "count_by_filter",
    "replay",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asked to be replayed, for the audit: by ids, or by filter and state.

    `to`: another subscription, or `all` for every one that it matches now.
    """

    names: Sequence[str] = ()
    filters: Filters | None = None
    state: str | None = None
    to: str | None = None


def replay(
    connection: Connection, tenant: str | None, candidates: Sequence[Candidate], asked: Asked | None = None
) -> list[DeliveryId]:
    """Put the candidates back and return the ids of the new deliveries, due now. All or nothing.

    The audit notes it, with what was `asked`.

    Raises:
        ReplayError: a payload is pruned or unreadable; a subscription is removed, another tenant's, or never had it.
        NotFoundError: an event is another tenant's than who asks.
    """
    refuse_other_tenants(connection, tenant, candidates)
    direct = [item for item in candidates if item.subscription_id is not None]
    unresolved = [item for item in candidates if item.subscription_id is None]
    _refuse_unresolved_without_dead_letter(unresolved)
    buried = [item.dead for item in candidates if item.dead is not None]
    _refuse_unreadable(connection, buried)
    store.restore_events(connection, buried)
    _refuse_impossible(connection, direct)
    resolved_again = store.put_back(connection, [item.dead for item in unresolved if item.dead is not None])
    made = [DeliveryId.of(uuid) for uuid in store.revive(connection, **columns_of(direct))]
    _note(connection, candidates, asked or Asked(), made, resolved_again)
    return made


def _note(
    connection: Connection, candidates: Sequence[Candidate], asked: Asked, made: list[DeliveryId], resolved_again: int
) -> None:
    events = connection.execute(text(_EVENTS), columns_of(candidates)).all()
    names = [EventId.of(name) if name.startswith("evt_") else DeliveryId.of(name) for name in asked.names]
    dead = [item.dead for item in candidates if item.dead is not None]
    ids = [*names, *dead, *(EventId.of(row.id) for row in events)]
    audit.note(
        connection, "replayed", count=len(made) + resolved_again, ids=ids,
        subject=ids[0] if len(names) == 1 or len(candidates) == 1 else None, tenants=(row.tenant for row in events),
        filters=asked.filters, more={"state": asked.state, "to": asked.to, "deliveries": made},
    )  # fmt: skip


_EVENTS = "select id, tenant from outbox.events where seq = any(cast(:seqs as bigint[])) order by seq"


def _refuse_unresolved_without_dead_letter(unresolved: Sequence[Candidate]) -> None:
    if any(item.dead is None for item in unresolved):
        raise ReplayError("event: went to no subscription so far; name one with --to sub_…, or say --to-all")


_UNREADABLE = """
select delivery_id from outbox.dead_letters where delivery_id = any(cast(:ids as uuid[])) and payload is null limit 1
"""


def _refuse_unreadable(connection: Connection, dead: Sequence[DeliveryId]) -> None:
    unreadable = connection.execute(text(_UNREADABLE), {"ids": list(dead)}).scalar()
    if unreadable is not None:
        raise ReplayError(
            f"dead letter: {DeliveryId.of(unreadable)} has no payload, because the server could not read it; purge it,"
            " or mend the event's row and then the dead letter: see docs/troubleshooting.md"
        )


# Locks the events. Retention skips a locked event, or has deleted it before. Another replay of the event waits, and
# then sees our deliveries.
_HOLD = "select seq from outbox.events where seq = any(cast(:seqs as bigint[])) order by seq for no key update"

_IMPOSSIBLE = """
select c.seq, e.id as event_id, e.tenant, c.subscription_id, s.tenant as subscriber, s.removed_at is null as alive
from unnest(cast(:seqs as bigint[]), cast(:subscription_ids as uuid[])) c(seq, subscription_id)
left join outbox.events e on e.seq = c.seq and e.seq = any(cast(:seqs as bigint[]))
left join outbox.subscriptions s on s.id = c.subscription_id
where e.id is null or s.id is null or s.removed_at is not null or s.tenant not in (e.tenant, '*')
limit 1
"""


def _refuse_impossible(connection: Connection, direct: Sequence[Candidate]) -> None:
    columns = columns_of(direct)
    connection.execute(text(_HOLD), columns)
    row = connection.execute(text(_IMPOSSIBLE), columns).one_or_none()
    if row is None:
        return
    subscription = SubscriptionId.of(row.subscription_id)
    if row.subscriber is None:
        raise unknown_subscription(subscription)
    if not row.alive:
        raise ReplayError(f"subscription: {subscription} is removed; name another with --to sub_…")
    if row.event_id is None:
        raise ReplayError(f"event: number {row.seq} is pruned after its retention; its payload is gone")
    raise ReplayError(f"subscription: {subscription} is another tenant's than {EventId.of(row.event_id)}")
