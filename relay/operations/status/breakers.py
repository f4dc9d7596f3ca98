"""Breakers: of one subscription, of a page of them, and how many are open, with those that need a person first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.attempts import failure_of
from outbox.control.findings import Action, Finding
from outbox.control.tenancy import operator_only, own
from outbox.control.times import duration, utc
from outbox.ids import SubscriptionId
from relay.model.outcome import OVERLOADED
from relay.operations.status.documents import Named, SubscriptionHealth
from relay.operations.status.late_subscriptions import read_health

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

__all__ = [
    "Breaker", "Breakers", "NamedBreaker", "asks_for_less", "breaker_of", "breakers_of", "cause_of",
    "findings_of_breakers", "in_words", "read_breakers",
]  # fmt: skip

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The health of a subscription's endpoint, as far as anything is noted of it.

    state: `closed`; `open`, and nothing is sent; `half_open`, and one delivery is being tried or is about to be. since:
    when it opened. failures and successes: attempts of the window under way. failing_since: the first failure since the
    last success. disable_at: when it will be disabled if it goes on so.
    """

    state: str = "closed"
    since: datetime | None = None
    failures: int = 0
    successes: int = 0
    next_probe_at: datetime | None = None
    failing_since: datetime | None = None
    warned_at: datetime | None = None
    disable_at: datetime | None = None

    @property
    def failure_percent(self) -> int | None:
        """How many percent of the window's attempts failed; None where nothing was attempted."""
        attempts = self.failures + self.successes
        return round(100 * self.failures / attempts) if attempts else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedBreaker(Named):
    """A subscription whose breaker is open, or that was warned of."""

    breaker: Breaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakers:
    """How many breakers are open, how many subscriptions were warned of, and those that will be disabled first."""

    open: int
    warned: int
    named: tuple[NamedBreaker, ...]


# An open breaker whose probe is due or under way is half-open: a probe's claim moves probe_at beyond its lease, so that
# is told by the delivery that is leased.
_BREAKER = """
    case when h.opened_at is null then 'closed'
         when h.probe_at <= clock_timestamp() or exists (
              select from (select lease, due_at from outbox.deliveries d where d.subscription_id = h.subscription_id
                           and d.due_at > clock_timestamp() order by d.due_at limit 100) leased
              where leased.lease is not null) then 'half_open'
         else 'open' end as state,
    h.opened_at as since, h.failures, h.successes, h.probe_at as next_probe_at, h.failing_since, h.warned_at,
    case when s.disabled_at is null then h.failing_since + make_interval(secs => nullif((
        select value from outbox.settings where name = 'disable_after_seconds'), 0)) end as disable_at"""
_OF = text(f"""
select h.subscription_id, {_BREAKER}
from outbox.health h join outbox.subscriptions s on s.id = h.subscription_id
where h.subscription_id = any(cast(:ids as uuid[])) and {own("s.tenant")}
""")  # noqa: S608 - the parts are constants
_WORST = text(f"""
select h.subscription_id, s.tenant, s.name, s.shown_url as url, {_BREAKER}
from outbox.health h join outbox.subscriptions s on s.id = h.subscription_id
where s.removed_at is null and s.disabled_at is null and (h.opened_at is not null or h.warned_at is not null)
order by h.warned_at is null, h.failing_since limit :named
""")  # noqa: S608
_COUNTS = text("""
select count(*) filter (where h.opened_at is not null) as open,
       count(*) filter (where h.warned_at is not null) as warned
from outbox.health h join outbox.subscriptions s on s.id = h.subscription_id
where s.removed_at is null and s.disabled_at is null
""")


def breakers_of(
    connection: Connection, tenant: str | None, ids: Sequence[UUID | str]
) -> Mapping[SubscriptionId, Breaker]:
    """Return the breakers of these subscriptions, of the tenant's only; one of which nothing is noted is closed."""
    uuids = [SubscriptionId.of(one) for one in ids]
    rows = connection.execute(_OF, {"ids": uuids, "asking": tenant}).mappings().all()
    found = {SubscriptionId.of(row["subscription_id"]): _breaker(row) for row in rows}
    return {one: found.get(one, Breaker()) for one in uuids}


def breaker_of(connection: Connection, tenant: str | None, subscription_id: UUID | str) -> Breaker:
    """Return the breaker of one subscription."""
    (breaker,) = breakers_of(connection, tenant, [subscription_id]).values()
    return breaker


def read_breakers(connection: Connection, tenant: str | None) -> Breakers:
    """Return how many are open or warned of, and the five that will be disabled first. For the operator only."""
    operator_only(tenant, "status")
    counts = connection.execute(_COUNTS).one()
    rows = connection.execute(_WORST, {"named": _NAMED}).mappings().all() if counts.open or counts.warned else []
    named = tuple(
        NamedBreaker(
            subscription_id=SubscriptionId.of(row["subscription_id"]),
            url=row["url"],
            tenant=row["tenant"],
            name=row["name"],
            health=read_health(connection, row["subscription_id"]),
            breaker=_breaker(row),
        )
        for row in rows
    )
    return Breakers(open=counts.open, warned=counts.warned, named=named)


def _breaker(row: object) -> Breaker:
    fields = dict(row)  # type: ignore[call-overload]
    return Breaker(**{name: fields[name] for name in Breaker.__dataclass_fields__})


def in_words(breaker: Breaker) -> str:
    """Return a breaker as people say it, '' for one that is closed and has no failures."""
    if breaker.since is not None:
        failed = "" if breaker.failure_percent is None else f", {breaker.failure_percent} % failed"
        probe = "" if breaker.next_probe_at is None else f", next probe {utc(breaker.next_probe_at)}"
        return f"{breaker.state.replace('_', '-')} since {utc(breaker.since)}{failed}{probe}"
    if breaker.failing_since is not None:
        return f"failing since {utc(breaker.failing_since)}"
    return ""


def findings_of_breakers(found: Breakers, at: datetime) -> Iterator[Finding]:
    """Return what a person should look at: who is disabled soon, and how many breakers are open."""
    yield from _of_warned(found.named, at)
    for item in found.named:
        if item.breaker.warned_at is None:
            cause = cause_of(item.health) or "no attempt of it is kept"
            breaker = f"{in_words(item.breaker)}{_disabled_from(item.breaker)}"
            yield Finding(
                code="breaker.open",
                subject=item.subscription_id,
                seen=f"{item.subscription_id} is not sent to, its endpoint fails: {cause}; breaker {breaker}",
                mend=f"it is tried by itself; at once: relay subscriptions resume {item.subscription_id}",
                severity="problem" if _gets_nothing(item) else "note",
                action=Action("subscription", str(item.subscription_id), does="resume"),
            )
    if found.open + found.warned > len(found.named):
        yield Finding(
            code="breakers.open",
            subject="breakers",
            seen=f"{found.open:,} breakers are open, {found.warned:,} endpoints have only failed for days",
            mend="relay subscriptions list",
            severity="note",
            action=Action("subscriptions"),
        )


def _gets_nothing(item: NamedBreaker) -> bool:
    """Tell whether all that was tried failed while more waits: nothing arrives, and somebody should know."""
    return item.breaker.failure_percent == 100 and item.health.outstanding > 0


def _of_warned(named: Iterable[NamedBreaker], at: datetime) -> Iterator[Finding]:
    for item in named:
        breaker = item.breaker
        if breaker.warned_at is None or breaker.failing_since is None:
            continue
        since = duration((at - breaker.failing_since).total_seconds())
        yield Finding(
            code="subscription.warned",
            subject=item.subscription_id,
            seen=f"{item.subscription_id} has only failed for {since}{_because(item.health)}{_disabled_from(breaker)}",
            mend=f"relay subscriptions check {item.subscription_id}, then tell its owner",
            action=Action("test", str(item.subscription_id)),
        )


def cause_of(health: SubscriptionHealth) -> str:
    """Return how the last attempt failed: status or outcome, and the error, cut where it is long; '' where none did."""
    return failure_of(health.last_outcome, health.last_status, health.last_error)


def asks_for_less(health: SubscriptionHealth) -> bool:
    """Tell whether the last answer asked for fewer requests, or for none until a time."""
    return health.last_status in OVERLOADED


def _because(health: SubscriptionHealth) -> str:
    cause = cause_of(health)
    return f" ({cause})" if cause else ""


def _disabled_from(breaker: Breaker) -> str:
    return "" if breaker.disable_at is None else f", and is disabled from {utc(breaker.disable_at)} on"
