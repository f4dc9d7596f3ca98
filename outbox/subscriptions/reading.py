"""Read subscriptions: one by its id, or a page of them. Every tenant's are for the operator, as in verbs.py."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, func, or_, select
from sqlalchemy.orm import Session

from outbox._connection import require_connection
from outbox.subscriptions.checks import EveryTenant, check_id, check_metadata, check_type
from outbox.subscriptions.fields import Subscription
from outbox.subscriptions.rows import fields_of, has_id, in_state, not_found, of_tenant, shown_columns, subscriptions
from outbox.subscriptions.value_checks import check_bool, whole_number

__all__ = ["count", "get", "list"]

State = Literal["active", "paused", "disabled", "removed"]

_check_limit = whole_number(1, 1000)
_check_offset = whole_number(0, 1_000_000)


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
    connection = require_connection(connection, to_write=False)
    row = connection.execute(select(*shown_columns).where(condition)).one_or_none()
    if row is None or (row.removed_at is not None and not removed):
        raise not_found(subscription_id)
    return Subscription(**fields_of(row))


def list(  # noqa: A001 - the verb of the interface
    connection: Session | Connection,
    *,
    tenant: str | EveryTenant = "",
    state: State | Sequence[State] | None = None,
    type: str | None = None,  # noqa: A002
    metadata: Mapping[str, str] | None = None,
    after: str | None = None,
    offset: int = 0,
    limit: int = 100,
) -> builtins.list[Subscription]:
    """Return subscriptions, oldest first, at most `limit` (1 to 1000).

    Args:
        connection: a Session or Connection.
        tenant: whose.
        state: only these, one or several; None is all but the removed ones.
        type: only those which get events of this type.
        metadata: only those whose metadata have each of these.
        after: the id of the last one of the page before.
        offset: how many to leave out first; `after` is quicker where there are many.
        limit: size of the page.

    Raises:
        SubscriptionError: an argument was refused.
        NotFoundError: `after` is no id.
    """
    size, skipped = _check_limit("limit", limit), _check_offset("offset", offset)
    conditions = _conditions(tenant, state, type, metadata)
    if after is not None:
        conditions.append(subscriptions.c.id > check_id("after", after))
    connection = require_connection(connection, to_write=False)
    statement = select(*shown_columns).where(*conditions).order_by(subscriptions.c.id).offset(skipped).limit(size)
    return [Subscription(**fields_of(row)) for row in connection.execute(statement)]


def count(
    connection: Session | Connection,
    *,
    tenant: str | EveryTenant = "",
    state: State | Sequence[State] | None = None,
    type: str | None = None,  # noqa: A002
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Return how many subscriptions `list` has with these arguments on all its pages. Raises SubscriptionError."""
    conditions = _conditions(tenant, state, type, metadata)
    connection = require_connection(connection, to_write=False)
    found: int = connection.execute(select(func.count(subscriptions.c.id)).where(*conditions)).scalar_one()
    return found


def _conditions(tenant: object, state: object, type_: object, metadata: object) -> builtins.list[ColumnElement[Any]]:
    conditions = [_in_states(state), of_tenant(tenant)]
    if type_ is not None:
        conditions.append(subscriptions.c.types.overlap(func.outbox.patterns_of(check_type("type", type_))))
    if metadata is not None:
        conditions.append(subscriptions.c.metadata.contains(check_metadata("metadata", metadata)))
    return conditions


def _in_states(state: object) -> ColumnElement[bool]:
    if isinstance(state, builtins.list | tuple) and state and None not in state:
        return or_(*map(in_state, state))
    return in_state(state)
