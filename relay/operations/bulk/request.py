"""What a bulk operation is asked to put back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import text

from outbox.control.filters import Filters
from outbox.control.times import rfc3339
from outbox.errors import NotFoundError, OutboxError
from outbox.ids import SubscriptionId

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

__all__ = ["BulkError", "BulkRequest", "Kind", "Resolved", "resolve"]

Kind = Literal["recover", "replay", "backfill", "redrive"]

_FIELDS: dict[str, tuple[set[str], set[str]]] = {  # required, and possible besides
    "recover": ({"subscription", "since"}, set()),
    "replay": ({"subscription", "since"}, {"until", "type"}),
    "backfill": ({"subscription"}, {"since", "until", "type"}),
    "redrive": (set(), {"subscription", "since", "until", "type", "tenant", "reason"}),
}


class BulkError(OutboxError):
    """A bulk operation was refused, or cannot become what was asked; nothing was changed. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRequest:
    """What to put back.

    - recover: what failed since a time for one subscription: its dead letters that died since, and deliveries that
      wait for a retry after a failure since.
    - replay: the events recorded in a window that went to the subscription before, delivered, cancelled or dead.
    - backfill: the events of the past that match the subscription and were never its delivery, after its filter.
    - redrive: dead letters by filter; `since` and `until` are about when they died, `reason` is the class of the last
      error, such as http_5xx.

    A timedelta is so long before the database's now. Raises BulkError where a field does not fit the kind.
    """

    kind: Kind
    subscription: UUID | str | None = None
    since: datetime | timedelta | None = None
    until: datetime | timedelta | None = None
    type: str | None = None
    tenant: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _FIELDS:
            raise BulkError(f"kind: {self.kind!r} is none of {', '.join(get_args(Kind))}")
        Filters(since=self.since, until=self.until, type=self.type, tenant=self.tenant, key=self.reason)  # checks text
        required, possible = _FIELDS[self.kind]
        given = {name for name in set().union(*_FIELDS["redrive"]) if getattr(self, name) is not None}
        for name in sorted(required - given):
            raise BulkError(f"{name}: is needed for {self.kind}")
        for name in sorted(given - required - possible):
            raise BulkError(f"{name}: does not apply to {self.kind}; leave it out")
        if not given:
            raise BulkError("filter: none given; give at least one of subscription, since, until, type, tenant, reason")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request whose names were found and whose times are dates. parameters: as they are stored."""

    kind: Kind
    tenant: str | None
    subscription_id: SubscriptionId | None
    parameters: dict[str, Any]
    filter: str | None


_TARGET = text("select tenant, filter, removed_at from outbox.subscriptions where id = :id")
_NOW = text("select clock_timestamp()")


def resolve(connection: Connection, tenant: str | None, request: BulkRequest) -> Resolved:
    """Find what the request names.

    Raises:
        NotFoundError: the subscription is none of this tenant's.
        BulkError: it is removed; or a tenant asks for another tenant's dead letters.
    """
    if tenant is not None and request.tenant not in (None, tenant):
        raise BulkError("tenant: only your own; leave it out")
    subscription_id = None if request.subscription is None else SubscriptionId.of(request.subscription)
    filter_ = None
    if subscription_id is not None:
        filter_ = _filter_of(connection, tenant, subscription_id)
    now = connection.execute(_NOW).scalar_one()
    given: dict[str, Any] = {
        "since": _date(request.since, now), "until": _date(request.until, now), "type": request.type,
        "tenant": request.tenant, "reason": request.reason,
    }  # fmt: skip
    parameters = {name: value for name, value in given.items() if value is not None}
    return Resolved(request.kind, tenant, subscription_id, parameters, filter_ if request.kind == "backfill" else None)


def _filter_of(connection: Connection, tenant: str | None, subscription_id: SubscriptionId) -> str | None:
    row = connection.execute(_TARGET, {"id": subscription_id}).one_or_none()
    if row is None or (tenant is not None and row.tenant != tenant):
        raise NotFoundError(f"subscription: no {subscription_id}; never made, or removed")
    if row.removed_at is not None:
        raise BulkError(f"subscription: {subscription_id} is removed; name another")
    found: str | None = row.filter
    return found


def _date(value: datetime | timedelta | None, now: datetime) -> str | None:
    moment = now - value if isinstance(value, timedelta) else value
    return None if moment is None else rfc3339(moment)
