"""Replays: deliver again, by hand. How to call these is said in outbox.deliveries.

Each replay is a new delivery, due now, with a schedule of its own; the webhook-id stays the event's. A dead letter is
gone once it is replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Unpack
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from outbox._text import brief
from outbox.control.asking import Tenant, Where, connection_of, listed, whose
from outbox.control.filters import Filters
from outbox.control.replay import replay as _replay
from outbox.control.replay.replay import Matching
from outbox.errors import ArgumentError
from outbox.ids import DeliveryId, EventId, SubscriptionId
from outbox.subscriptions.value_checks import check_bool

__all__ = ["Matching", "Replayed", "replay", "replay_matching"]

_STATES = ["dead", "delivered", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What was put back, or in a dry run would be.

    count: how many, with events that are resolved again. deliveries: the new ones; none in a dry run. more: whether
    more match than the limit let through: ask once more, since what is on its way is left out. matching: how many
    passed the filters before, whatever the limit and on their way again or not, exactly up to 100,000; None of what
    was named by ids.
    """

    count: int
    deliveries: tuple[DeliveryId, ...]
    more: bool = False
    matching: Matching | None = None


def replay(
    connection: Session | Connection,
    names: str | UUID | Sequence[str | UUID],
    *,
    tenant: Tenant = "",
    to: str | UUID | None = None,
    to_all: bool = False,
) -> Replayed:
    """Deliver these again, all or none: `dlv_…`, dead or done; `evt_…`, to every subscription that had it.

    Args:
        connection: a Session or Connection; the caller commits.
        names: ids; a UUID is a delivery's.
        tenant: whose.
        to: to this subscription instead.
        to_all: to every subscription that the event matches now.

    Raises:
        NotFoundError: one is none of this tenant's.
        ReplayError: one is still on its way, its payload is gone, or a subscription cannot have it.
    """
    asked, asking, ids = connection_of(connection, to_write=True), whose(tenant), _names_of(names)
    check_bool("to_all", to_all)
    only = _text(to)
    found = [one for name in ids for one in _replay.candidates_by_id(asked, asking, name, only, to_all=to_all)]
    made = _replay.replay(asked, asking, found, _replay.Asked(ids, to="all" if to_all else only))
    return Replayed(count=_counted(found, made), deliveries=tuple(made))


def replay_matching(
    connection: Session | Connection,
    *,
    tenant: Tenant = "",
    state: Literal["dead", "delivered", "cancelled"] = "dead",
    to: str | UUID | None = None,
    dry_run: bool = False,
    **where: Unpack[Where],
) -> Replayed:
    """Deliver again what passes filters, the oldest first: dead letters, or what was delivered or cancelled.

    Args:
        connection: a Session or Connection; the caller commits.
        tenant: whose.
        state: of which.
        to: to this subscription instead.
        dry_run: count only.
        where: since, until, type, key, subscription, at least one of them; limit, 50, at most 9999.

    Raises:
        FilterError: a filter was refused.
        ReplayError: no filter is given, or something cannot be replayed; nothing was changed.
    """
    asked, asking = connection_of(connection, to_write=True), whose(tenant)
    check_bool("dry_run", dry_run)
    if state not in _STATES:
        raise ArgumentError(f"state: {brief(state)} is not one of {', '.join(_STATES)}")
    filters, only = Filters(**where), _text(to)
    found = _replay.candidates_by_filter(asked, asking, replace(filters, limit=filters.limit + 1), state=state, to=only)
    chosen, more = found[: filters.limit], len(found) > filters.limit
    matching = _replay.count_by_filter(asked, asking, filters, state=state)
    if dry_run:
        return Replayed(count=len(chosen), deliveries=(), more=more, matching=matching)
    made = _replay.replay(asked, asking, chosen, _replay.Asked((), filters, state, only))
    return Replayed(count=_counted(chosen, made), deliveries=tuple(made), more=more, matching=matching)


def _names_of(names: str | UUID | Sequence[str | UUID]) -> list[str]:
    return [
        str((EventId if isinstance(one, EventId) or str(one).startswith("evt_") else DeliveryId).of(one, "names"))
        for one in listed(names, "names")
    ]


def _text(to: str | UUID | None) -> str | None:
    return None if to is None else str(SubscriptionId.of(to, "to"))


def _counted(found: Sequence[_replay.Candidate], made: Sequence[DeliveryId]) -> int:
    return len(made) + sum(item.subscription_id is None for item in found)
