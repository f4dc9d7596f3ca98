"""Who gets which events where: the verbs of subscriptions, in the caller's transaction.

`fields` declares what a subscription is told, `verbs` writes it, `reading` reads it; secrets are sealed and kept apart.
"""

from outbox.subscriptions.fields import Changes, NewSubscription, Settings, Subscription
from outbox.subscriptions.reading import count, get, list  # noqa: A004 - the verb of the interface
from outbox.subscriptions.rotation import rotate_secret
from outbox.subscriptions.tenant_limits import TenantLimit, limit_tenant, list_tenant_limits
from outbox.subscriptions.verbs import add, add_for_every_tenant, disable, pause, remove, resume, update

__all__ = [
    "Changes",
    "NewSubscription",
    "Settings",
    "Subscription",
    "TenantLimit",
    "add",
    "add_for_every_tenant",
    "count",
    "disable",
    "get",
    "limit_tenant",
    "list",
    "list_tenant_limits",
    "pause",
    "remove",
    "resume",
    "rotate_secret",
    "update",
]
