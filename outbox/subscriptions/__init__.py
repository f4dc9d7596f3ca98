"""Who gets which events where: the verbs of subscriptions, in the caller's transaction.

`fields` (with `flow_fields` and `credential_fields`) declares what a subscription is told, `checks` what it may hold,
`verbs` writes it, `reading` reads it, `rows` has the statements. `filters` is the language and its evaluator. `url` and
`addresses` say what may be called, `endpoints` what this application lets people subscribe. `signing_secrets`,
`stored_credentials` and `rotation` keep secrets, which are sealed and in rows of their own.
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
