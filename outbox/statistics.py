"""Statistics of deliveries: counts, rates and latencies, of a subscription, a type, a tenant or all, and over time.

Every function takes a Session or Connection first and the tenant who asks second: its name, '' where there are no
tenants, `outbox.EVERY_TENANT` for the operator. Asynchronous code calls `await
session.run_sync(outbox.statistics.read, tenant)`. They read roll-ups (outbox.roll_up(), called every few seconds by
relay/process/housekeeping_rounds.py) and what is not rolled up yet, in one statement: each attempt counts once, from
the moment its transaction commits. Nothing of a relay must be configured; the role needs the rights of
`outbox_operator` or `outbox_reader`.

Latencies are milliseconds of requests that delivered, test messages left out. A percentile is exact below 16 ms and
wrong by 4.4 % at most above.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from outbox._connection import require_connection
from outbox._text import brief
from outbox.errors import ArgumentError, NotFoundError
from outbox.ids import DeliveryId, SubscriptionId
from outbox.subscriptions.checks import EveryTenant, check_id, check_type, check_whose

__all__ = ["Point", "Statistics", "rank", "read", "read_each", "series"]

_OVER = re.compile(r"([1-9][0-9]{0,5})(m|h|d)")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
_LONGEST = timedelta(days=36_500)
_HOURS_ARE_KEPT = timedelta(days=38)
_MINUTES_ARE_KEPT = timedelta(hours=24)
_STEPS = ((timedelta(hours=2), 60), (timedelta(hours=24), 900), (timedelta(days=8), 3600), (timedelta(days=38), 21_600))
_MAX_POINTS = 2_000
_MOST_EACH = 1_000
_BY = ("subscription", "tenant", "type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What was counted from `since` to now.

    `since` is the beginning of a whole minute, hour or day. `failed` are attempts that did not deliver, `slowed`
    ones too: that is the endpoint's answer. Test messages count nowhere, nor do attempts during which the relay's own
    process stood still (`stood_still`). `dead` are dead letters that were made, `cancelled` deliveries that were
    cancelled by hand. `attempts_per_second` and `success_rate` (0 to 1, None without an attempt) are of delivered and
    failed attempts. `mean`, `p50`, `p95` and `p99` are milliseconds, None where nothing was delivered.
    `last_outcome` is the class of the last failure, `last_error` its text as long as that attempt is kept.
    `subscription_id`, `tenant` and `type` are None for all of them.
    """

    subscription_id: SubscriptionId | None
    tenant: str | None
    type: str | None
    since: datetime
    delivered: int
    failed: int
    dead: int
    cancelled: int
    attempts_per_second: float
    success_rate: float | None
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    last_delivered_at: datetime | None
    last_failed_at: datetime | None
    last_failed_delivery: DeliveryId | None
    last_outcome: str | None
    last_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One step of a series: what was counted in it, and the latencies (milliseconds) of what it delivered."""

    start: datetime
    delivered: int
    failed: int
    dead: int
    cancelled: int
    p50: float | None
    p95: float | None
    p99: float | None


_READ = text("""
select * from outbox.statistics(cast(:over as interval), cast(:subscription as text), cast(:tenant as text),
                                cast(:type as text), cast(:by as text))
limit :limit
""")
_READ_EACH = text("""
select counted.* from outbox.statistics(cast(:over as interval), cast(:only as text), cast(:tenant as text), null,
                                        case when cast(:only as text) is null then 'subscription' end) counted
join outbox.subscriptions s on s.id = outbox.uuid_of(counted.subscription_id)
where s.id = any(cast(:ids as uuid[])) and (cast(:tenant as text) is null or s.tenant = :tenant)
""")
_SERIES = text("""
select * from outbox.statistics_series(cast(:over as interval), :step, cast(:subscription as text),
                                       cast(:tenant as text), cast(:type as text))
""")
_OWNER = text("select tenant from outbox.subscriptions where id = :id")


def read(
    connection: Session | Connection,
    tenant: str | EveryTenant,
    *,
    subscription: str | None = None,
    type: str | None = None,  # noqa: A002
    over: str | timedelta = "24h",
) -> Statistics:
    """Return the statistics of the tenant, or of one subscription or one type of it, or of both together.

    Args:
        connection: a Session or Connection.
        tenant: whose.
        subscription: only this one, `sub_…`.
        type: only events of exactly this type.
        over: how far back: a timedelta, or as `90m`, `24h`, `7d`, `30d`.

    Raises:
        ArgumentError: `over` was refused.
        SubscriptionError: `tenant` or `type` was refused.
        NotFoundError: no such subscription of this tenant.
    """
    connection = require_connection(connection, to_write=False)
    given = _given(connection, tenant, subscription, type, over)
    row = connection.execute(_READ, given | {"by": None, "limit": 1}).one()
    if given["gone"] and not (row.delivered or row.failed or row.dead or row.cancelled):
        raise NotFoundError(f"subscription: no {given['subscription']}")
    return _statistics(row)


def read_each(
    connection: Session | Connection,
    tenant: str | EveryTenant,
    subscriptions: Sequence[str],
    *,
    over: str | timedelta = "24h",
) -> dict[str, Statistics]:
    """Return the statistics of each of these subscriptions by its id, in one statement; at most 1,000.

    Left out are those without an attempt, and those that are none of the tenant's. Of several, all that the tenant has
    are added up, as by `rank`. Arguments and errors as for `read`.
    """
    connection = require_connection(connection, to_write=False)
    if isinstance(subscriptions, str) or not isinstance(subscriptions, Sequence) or len(subscriptions) > _MOST_EACH:
        raise ArgumentError(f"subscriptions: {brief(subscriptions)} is not a list of {_MOST_EACH} ids at most")
    ids = [UUID(int=SubscriptionId.of(one, "subscriptions").int) for one in subscriptions]
    given = _given(connection, tenant, None, None, over)
    only = str(SubscriptionId.of(ids[0])) if len(ids) == 1 else None
    rows = connection.execute(_READ_EACH, given | {"ids": ids, "only": only}) if ids else ()
    found = [_statistics(row) for row in rows]
    return {str(one.subscription_id): one for one in found if one.delivered or one.failed or one.dead or one.cancelled}


def rank(
    connection: Session | Connection,
    tenant: str | EveryTenant,
    by: Literal["subscription", "tenant", "type"],
    *,
    type: str | None = None,  # noqa: A002
    over: str | timedelta = "24h",
    limit: int = 50,
) -> list[Statistics]:
    """Return the statistics of each subscription, tenant or type that had any attempt, most failures first.

    It adds up all of them, so it takes longer than `read`. Of a tenant's subscriptions those are left out that were
    removed and whose rows are gone. Arguments and errors as there; `limit` is 1 to 10,000.
    """
    if by not in _BY:
        raise ArgumentError(f"by: {brief(by)} is none of {', '.join(_BY)}")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 10_000:
        raise ArgumentError(f"limit: {brief(limit)} is not a number from 1 to 10000")
    connection = require_connection(connection, to_write=False)
    given = _given(connection, tenant, None, type, over)
    return [_statistics(row) for row in connection.execute(_READ, given | {"by": by, "limit": limit})]


def series(
    connection: Session | Connection,
    tenant: str | EveryTenant,
    *,
    subscription: str | None = None,
    type: str | None = None,  # noqa: A002
    over: str | timedelta = "24h",
    step_seconds: int | None = None,
) -> list[Point]:
    """Return the same as points over time, the oldest first, one for each step, also where nothing happened.

    Args:
        connection: a Session or Connection.
        tenant: whose.
        subscription: only this one, `sub_…`.
        type: only events of exactly this type.
        over: how far back, as for `read`; the first point begins a whole step that holds this time.
        step_seconds: a multiple of 60 up to an hour, of 3600 up to a day, else of 86400, and at most 2,000 points;
            below an hour it reaches 24 hours back, below a day 38 days. Default one that gives 30 to 200 points.

    Raises:
        ArgumentError: `over` or `step_seconds` was refused.
        SubscriptionError: `tenant` or `type` was refused.
        NotFoundError: no such subscription of this tenant.
    """
    connection = require_connection(connection, to_write=False)
    given = _given(connection, tenant, subscription, type, over)
    step = _step_of(given["over"]) if step_seconds is None else _check_step(step_seconds, given["over"])
    return [Point(**row._mapping) for row in connection.execute(_SERIES, given | {"step": step})]  # noqa: SLF001 - public


def _given(
    connection: Session | Connection,
    tenant: object,
    subscription: object,
    type: object,  # noqa: A002
    over: object,
) -> dict[str, Any]:
    """Return the parameters of the statements, checked; `gone` tells that there is no such subscription any more."""
    whose = check_whose(tenant)
    wanted = None if subscription is None else SubscriptionId.of(check_id("subscription", subscription))
    given = {
        "over": _check_over(over),
        "tenant": whose,
        "type": None if type is None else _check_type(type),
        "subscription": None if wanted is None else str(wanted),
    }
    if wanted is None:
        return given | {"gone": False}
    owner = connection.execute(_OWNER, {"id": wanted}).scalar_one_or_none()
    if owner is not None and whose not in (None, owner):
        raise NotFoundError(f"subscription: no {wanted}")
    return given | {"gone": owner is None}


def _check_type(value: object) -> str:
    if "*" in (found := check_type("type", value)):
        raise ArgumentError(f"type: {brief(found)} is a pattern; give one exact type, or none for all")
    return found


def _check_over(value: object) -> timedelta:
    """Return a length of time, whole minutes from one on."""
    if isinstance(value, timedelta):
        length = value
    elif isinstance(value, str) and (match := _OVER.fullmatch(value)):
        length = timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    else:
        raise ArgumentError(
            f"over: {brief(value)} is no length of time; give one such as 90m, 24h or 7d, or a timedelta"
        )
    if not timedelta(minutes=1) <= length <= _LONGEST:
        raise ArgumentError(f"over: {brief(str(value))} is not between a minute and 36500 days")
    return length


def _step_of(over: timedelta) -> int:
    return next((step for longest, step in _STEPS if over <= longest), 86_400 * max(1, round(over.days / 400)))


def _check_step(value: object, over: timedelta) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 60:
        raise ArgumentError(f"step_seconds: {brief(value)} is not a number of seconds from 60 on")
    whole = 60 if value < 3600 else 3600 if value < 86_400 else 86_400
    if value % whole:
        raise ArgumentError(f"step_seconds: {brief(value)} is not a multiple of {whole}")
    reach = {60: _MINUTES_ARE_KEPT, 3600: _HOURS_ARE_KEPT}.get(whole, _LONGEST)
    if over > reach:
        raise ArgumentError(
            f"step_seconds: {value} reaches {reach} back at most; give a longer step, or a shorter over"
        )
    if over / timedelta(seconds=value) > _MAX_POINTS:
        raise ArgumentError(f"step_seconds: {value} makes more than {_MAX_POINTS} points; give a longer step")
    return value


def _statistics(row: Any) -> Statistics:
    return Statistics(
        subscription_id=row.subscription_id and SubscriptionId.of(row.subscription_id),
        tenant=row.of_tenant,
        type=row.of_type,
        since=row.since,
        attempts_per_second=row.rate,
        last_failed_delivery=row.last_failed_delivery and DeliveryId.of(row.last_failed_delivery),
        **{name: getattr(row, name) for name in _SAME},
    )


_SAME: builtins.list[str] = [
    *("delivered", "failed", "dead", "cancelled", "success_rate", "mean", "p50", "p95", "p99", "last_delivered_at"),
    *("last_failed_at", "last_outcome", "last_status", "last_error"),
]
