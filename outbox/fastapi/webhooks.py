"""What the routes do to webhooks, in a plain session: each of these runs in one thread, and commits what it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

import outbox
from outbox._text import brief, did_you_mean
from outbox.errors import ArgumentError, SubscriptionError
from outbox.fastapi.offered_types import OfferedTypes
from outbox.fastapi.owner import Owner
from outbox.fastapi.shape import Shape
from outbox.signing import schemes
from outbox.statistics import Statistics
from outbox.subscriptions import NewSubscription, Settings, Subscription
from outbox.subscriptions.fields import check_fields
from outbox.subscriptions.rows import hold_tenant

__all__ = ["TOTAL_OVER", "Webhooks", "check_settings", "last_error_of"]

TOTAL_OVER = "400d"
"""How far back counters go: as long as statistics are kept by default."""


class Webhooks:
    """The verbs of the API, each for the owner who asks."""

    def __init__(self, shape: Shape, types: OfferedTypes, settings: Mapping[str, Any]) -> None:
        self._shape, self._types, self._settings = shape, types, dict(settings)

    def create(self, session: Session, owner: Owner, given: Mapping[str, Any]) -> dict[str, Any]:
        """Make a webhook, and return it with its secret."""
        shape = self._shape
        hold_tenant(session, owner.tenant)
        if outbox.subscriptions.count(session, tenant=owner.tenant, metadata=owner.metadata) >= shape.most_webhooks:
            raise SubscriptionError(f"there are {shape.most_webhooks} webhooks already; remove one first")
        owner.sign(session)
        made = outbox.subscribe(
            session,
            given["url"],
            self._types.check(shape.events, given[shape.events]),
            tenant=owner.tenant,
            description=given["description"],
            headers=given["headers"],
            schedule_seconds=shape.schedule(given["retry_count"]),
            timeout_seconds=given["timeout_seconds"],
            **self._settings | self._signed(given["secret"]) | self._marked(owner),
        )
        found: Subscription = made
        if not given["is_active"]:
            found = outbox.subscriptions.pause(session, made.id, drop=True, tenant=owner.tenant)
        shown = self._shown(found, None) | {"secret": made.secret}
        session.commit()
        return shown

    def _marked(self, owner: Owner) -> dict[str, Any]:
        return {"metadata": {**self._settings.get("metadata", {}), **owner.metadata}}

    def _signed(self, secret: str | None) -> dict[str, Any]:
        if secret is None and self._shape.unsigned_without_secret:
            return {"scheme": "none"}
        return {} if secret is None else {"secret": secret}

    def list(
        self, session: Session, owner: Owner, states: Any, limit: int, offset: int, after: str | None
    ) -> dict[str, Any]:
        """Return a page of the owner's webhooks with their counters: three statements, however many there are."""
        where: dict[str, Any] = {"tenant": owner.tenant, "metadata": owner.metadata, "state": states}
        found = outbox.subscriptions.list(session, **where, after=after, offset=offset, limit=limit + 1)
        shown, more = found[:limit], len(found) > limit
        total = outbox.subscriptions.count(session, **where)
        counted = self._counted(session, owner, shown)
        return {
            "items": [self._shown(one, counted.get(one.id)) for one in shown],
            "total": total,
            "limit": limit,
            "offset": offset,
            "has_more": more,
            "next": shown[-1].id if more else None,
        }

    def get(self, session: Session, owner: Owner, webhook_id: str) -> dict[str, Any]:
        """Return one webhook with its counters."""
        found = owner.find(session, webhook_id)
        return self._shown(found, self._counted(session, owner, [found]).get(found.id))

    def update(self, session: Session, owner: Owner, webhook_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change what is given, and return the webhook."""
        if not changes:
            raise SubscriptionError("nothing to change; give at least one field")
        found = owner.find(session, webhook_id)
        owner.sign(session)
        if fields := self._fields(changes):
            found = outbox.subscriptions.update(session, found.id, tenant=owner.tenant, **fields)
        if "secret" in changes:
            self._rotate(session, owner, found, changes["secret"])
        if changes.get("is_active", found.state == "active") != (found.state == "active"):
            found = self._switch(session, owner, found, active=changes["is_active"])
        shown = self._shown(found, self._counted(session, owner, [found]).get(found.id))
        session.commit()
        return shown

    def _fields(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        same = {"url", "description", "headers", "timeout_seconds"}
        fields = {name: value for name, value in changes.items() if name in same}
        if "timeout_seconds" in fields and fields["timeout_seconds"] is None:
            fields["timeout_seconds"] = self._shape.timeout_seconds
        if self._shape.events in changes:
            fields["types"] = self._types.check(self._shape.events, changes[self._shape.events])
        if "retry_count" in changes:
            wanted = changes["retry_count"]
            fields["schedule_seconds"] = self._shape.schedule(self._shape.retry_count if wanted is None else wanted)
        return fields

    def _switch(self, session: Session, owner: Owner, found: Subscription, *, active: bool) -> Subscription:
        if active:
            return outbox.subscriptions.resume(session, found.id, tenant=owner.tenant)
        return outbox.subscriptions.pause(session, found.id, drop=True, tenant=owner.tenant)

    def remove(self, session: Session, owner: Owner, webhook_id: str) -> None:
        """Remove a webhook for good; what it had still to get is cancelled."""
        found = owner.find(session, webhook_id)
        owner.sign(session)
        outbox.subscriptions.remove(session, found.id, tenant=owner.tenant)
        session.commit()

    def rotate(self, session: Session, owner: Owner, webhook_id: str, secret: str | None) -> dict[str, Any]:
        """Give a webhook a new secret, and return it with that."""
        found = owner.find(session, webhook_id)
        owner.sign(session)
        made = self._rotate(session, owner, found, secret)
        shown = self._shown(made, self._counted(session, owner, [made]).get(made.id)) | {"secret": made.secret}
        session.commit()
        return shown

    def _rotate(self, session: Session, owner: Owner, found: Subscription, secret: str | None) -> NewSubscription:
        scheme = self._settings.get("scheme", "standard") if found.scheme == "none" else None
        return outbox.subscriptions.rotate_secret(session, found.id, tenant=owner.tenant, secret=secret, scheme=scheme)

    def ask_for_test(
        self, session: Session, owner: Owner, webhook_id: str, given: Mapping[str, Any]
    ) -> outbox.RequestedTest:
        """Ask a relay for a test message, and commit, so that one sees it."""
        event = given[self._shape.event]
        if event != self._shape.test_type:
            self._types.check(self._shape.event, [event])
        found = owner.find(session, webhook_id)
        requested = outbox.request_test(session, found.id, tenant=owner.tenant, type=event, data=given["payload"])
        session.commit()
        return requested

    def _counted(self, session: Session, owner: Owner, found: Sequence[Subscription]) -> dict[str, Statistics]:
        ids = [one.id for one in found]
        return outbox.statistics.read_each(session, owner.tenant, ids, over=TOTAL_OVER)

    def _shown(self, found: Subscription, counted: Statistics | None) -> dict[str, Any]:
        same = ("id", "url", "description", "disabled_reason", "timeout_seconds", "created_at", "updated_at")
        times = [time for time in (counted.last_delivered_at, counted.last_failed_at) if time] if counted else []
        return {
            **{name: getattr(found, name) for name in same},
            self._shape.events: [*found.types],
            "is_active": found.state == "active",
            "status": found.state,
            "headers": [*found.headers],
            "retry_count": len(found.schedule_seconds),
            "success_count": counted.delivered if counted else 0,
            "failure_count": counted.dead if counted else 0,
            "last_triggered_at": max(times, default=None),
            "last_error": last_error_of(counted) if counted else None,
        }


def last_error_of(counted: Statistics) -> str | None:
    """Return what went wrong in the last attempt; None where it delivered, or there was none."""
    failed, delivered = counted.last_failed_at, counted.last_delivered_at
    if failed is None or (delivered is not None and delivered >= failed):
        return None
    return counted.last_error or " ".join(map(str, filter(None, (counted.last_outcome, counted.last_status))))


def check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every new webhook is told besides, checked now and not when the first customer comes.

    Raises ArgumentError for what a request decides, for an unknown name, and for a value that is refused.
    """
    for name in settings:
        if name in _DECIDED:
            raise ArgumentError(f"settings: {name} comes with each request; leave it out")
        if name not in _OF_SECRETS and name not in Settings.__annotations__:
            mend = did_you_mean(name, (*_OF_SECRETS, *Settings.__annotations__))
            raise ArgumentError(f"settings: outbox.subscribe takes no {brief(name)}{mend}")
    try:
        check_fields(**{name: value for name, value in settings.items() if name not in _OF_SECRETS})
        if settings.get("scheme", "none") != "none":
            schemes.named(settings["scheme"])
    except SubscriptionError as error:
        raise ArgumentError(f"settings: {error}") from None
    return dict(settings)


_DECIDED = {
    *("tenant", "id", "secret", "url", "types", "description", "headers", "schedule_seconds", "timeout_seconds", "name")
}
_OF_SECRETS = ("scheme", "key_type", "allow_weak_secret")
