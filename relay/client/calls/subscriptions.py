"""Calls about subscriptions: add, read, change, pause, remove, rotate the secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.subscriptions import NewSubscription, Subscription
from relay.client.call import Call, path_of
from relay.client.calls.making import get_one, get_page, mapping, send
from relay.client.reading import read_as
from relay.client.results import Health, ReadSubscription
from relay.operations.status.breakers import Breaker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outbox.control.pages import Page

__all__ = [
    "add_subscription",
    "change_subscription",
    "disable_subscription",
    "get_health",
    "get_subscription",
    "list_subscriptions",
    "pause_subscription",
    "remove_subscription",
    "resume_subscription",
    "rotate_secret",
]


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
    return send(NewSubscription, "POST", "/subscriptions", body=body, once=once)


def list_subscriptions(**filters: Any) -> Call[Page[ReadSubscription]]:
    """List subscriptions; filters: tenant, state, type, after, limit."""
    from outbox.control.pages import Page

    pages = get_page(object, "/subscriptions", **filters)
    return pages.then(lambda page: Page(tuple(_subscription(mapping(item), {}) for item in page), page.next))


def get_subscription(subscription_id: object) -> Call[ReadSubscription]:
    """Show one subscription, with its breaker and its version."""
    return Call(method="GET", path=path_of("/subscriptions/{}", subscription_id), read=_subscription)


def change_subscription(subscription_id: object, etag: str, **changes: Any) -> Call[Subscription]:
    """Change fields of the version that was read; `*` is any version. None puts a field back to its default."""
    return send(Subscription, "PATCH", "/subscriptions/{}", subscription_id, body=changes, etag=etag)


def remove_subscription(subscription_id: object, etag: str = "*") -> Call[Subscription]:
    """End a subscription for good."""
    return send(Subscription, "DELETE", "/subscriptions/{}", subscription_id, etag=etag)


def pause_subscription(subscription_id: object, *, drop: bool = False) -> Call[Subscription]:
    """Stop sending until it is resumed."""
    return send(Subscription, "POST", "/subscriptions/{}/pause", subscription_id, body={"drop": drop})


def disable_subscription(subscription_id: object, reason: str) -> Call[Subscription]:
    """Stop sending for a reason that everybody is shown."""
    return send(Subscription, "POST", "/subscriptions/{}/disable", subscription_id, body={"reason": reason})


def resume_subscription(subscription_id: object) -> Call[Subscription]:
    """Send again."""
    return send(Subscription, "POST", "/subscriptions/{}/resume", subscription_id)


def rotate_secret(subscription_id: object, *, once: str | None = None, **given: Any) -> Call[NewSubscription]:
    """Give it a new secret; given: secret, scheme, key_type, overlap_seconds."""
    return send(NewSubscription, "POST", "/subscriptions/{}/rotate-secret", subscription_id, body=given, once=once)


def get_health(subscription_id: object) -> Call[Health]:
    """Show what waits for it, and its breaker."""
    return get_one(Health, "/subscriptions/{}/health", subscription_id)
