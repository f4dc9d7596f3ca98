"""Read subscriptions: one by its id, or a page of them. Every tenant's are for the operator, as in verbs.py."""

from __future__ import annotations

import builtins
from typing import Literal

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from outbox._connection import require_connection
from outbox.subscriptions.checks import EveryTenant, check_bool, check_id, check_type, whole_number
from outbox.subscriptions.fields import Subscription
from outbox.subscriptions.rows import fields_of, has_id, in_state, not_found, of_tenant, shown_columns, subscriptions

__all__ = ["get", "list"]

_check_limit = whole_number(1, 1000)


def get(
    connection: Session | Connection,
    subscription_id: str,
    *,
    tenant: str | EveryTenant = "",
    removed: bool = False,
) -> Subscription:
    """Return one subscription; with `removed`, also a removed one as long as its row is there. Raises NotFoundError."""
    check_bool("removed", removed)
    condition = has_id(subscription_id, tenant)
    require_connection(connection)
    row = connection.execute(select(*shown_columns).where(condition)).one_or_none()
    if row is None or (row.removed_at is not None and not removed):
        raise not_found(subscription_id)
    return Subscription(**fields_of(row))


def list(  # noqa: A001 - the verb of the interface
    connection: Session | Connection,
    *,
    tenant: str | EveryTenant = "",
    state: Literal["active", "paused", "disabled", "removed"] | None = None,
    type: str | None = None,  # noqa: A002
    after: str | None = None,
    limit: int = 100,
) -> builtins.list[Subscription]:
    """Return subscriptions, oldest first, at most `limit` (1 to 1000).

    Args:
        connection: a Session or Connection.
        tenant: whose.
        state: only these; None is all but the removed ones.
        type: only those which get events of this type.
        after: the id of the last one of the page before.
        limit: size of the page.

    Raises:
        SubscriptionError: an argument was refused.
        NotFoundError: `after` is no id.
    """
    size = _check_limit("limit", limit)
    conditions = [in_state(state), of_tenant(tenant)]
    if type is not None:
        conditions.append(subscriptions.c.types.overlap(func.outbox.patterns_of(check_type("type", type))))
    if after is not None:
        conditions.append(subscriptions.c.id > check_id("after", after))
    require_connection(connection)
    statement = select(*shown_columns).where(*conditions).order_by(subscriptions.c.id).limit(size)
    return [Subscription(**fields_of(row)) for row in connection.execute(statement)]
