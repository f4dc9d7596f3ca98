"""What follows from a settlement and is written in its transaction, after it.

Each function here reads the batch and returns the step that follows from it, or None; `_CONSEQUENCES` lists them in the
order in which they run. What must never be seen without the result that caused it belongs here. What may only happen
after the commit (log lines, reads that must see it) belongs in the settler of relay.engine, which gets what changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from relay.model.alike import hosts_alike
from relay.model.outcome import Scope
from relay.model.verdict import Disable, Hold, VerdictKind
from relay.store import breaker, halving
from relay.store.arrays import Floats, Texts, Uuids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from relay.model.settlement import Settlement

__all__ = ["Step", "delivered_among", "steps_after"]


class Step(NamedTuple):
    """One statement of a settlement's transaction; it returns the ids that it changed."""

    changes: Literal["risen", "held", "held_alike", "disabled", "ailing", "worn", "halved"]  # a field of Settled
    statement: str
    columns: tuple[object, ...]


def steps_after(rows: Sequence[Settlement]) -> list[Step]:
    """Return what is written after these settlements, in their transaction; mostly there is little."""
    steps = [step_of(rows) for step_of in _CONSEQUENCES]
    return [*(step for step in steps if step is not None), *_health(rows)]


def delivered_among(rows: Sequence[Settlement]) -> list[bytes]:
    """Return the ids of those deliveries that the receiver took."""
    taken = VerdictKind.DELIVERED  # looked up once (see DELIVERED of relay/model/outcome.py)
    return [row.delivery.id for row in rows if row.verdict.kind is taken]


# For deliveries that succeeded after another relay buried them. It is a statement of its own, after SETTLE: the
# snapshot of SETTLE may be older than the burial.
_DELETE_BURIED_SUCCESSES = "delete from outbox.dead_letters where delivery_id = any(%b) returning delivery_id"


def _buried_successes(rows: Sequence[Settlement]) -> Step | None:
    """dead letter → gone: the delivery succeeded after all."""
    delivered = delivered_among(rows)
    return Step("risen", _DELETE_BURIED_SUCCESSES, (Uuids(delivered),)) if delivered else None


# A hold or disable is committed together with the result that caused it. It is for the URL that was called, not for one
# that replaced it since. A row that somebody else has locked is skipped: no result waits for an application's
# transaction, and the endpoint's next answer asks again. A hold is written only where it ends more than a second later.
_HOLD = """
with held as materialized (
    select asked.id, s.until from unnest(%b, %b, %b) asked(id, url, seconds)
    cross join lateral (
        select clock_timestamp() + make_interval(secs => asked.seconds) as until from outbox.subscriptions
        where id = asked.id and url = asked.url
          and coalesce(held_until < clock_timestamp() + make_interval(secs => asked.seconds - 1), true)
        limit 1 for no key update skip locked) s)
update outbox.subscriptions s set held_until = (select until from held where id = s.id)
where id = any(array(select id from held))
returning id
"""


def _holds(rows: Sequence[Settlement]) -> Step | None:
    """Return the step that holds back the endpoints that asked for it, each for the longest time that it named."""
    holds: dict[tuple[bytes, str], float] = {}
    for row in rows:
        if isinstance(row.verdict.endpoint, Hold):
            asked_of = (row.delivery.subscription_id, row.url)
            holds[asked_of] = max(holds.get(asked_of, 0.0), row.verdict.endpoint.seconds)
    return Step("held", _HOLD, (*_endpoints(holds), Floats(list(holds.values())))) if holds else None


# An answer may be about all endpoints of its receiver, which counts the address that we send from: all relays hold them
# back then. A short hold is the business of the process that was told; another one is told itself, as soon. Whatever
# number of a receiver's endpoints answered, it is one scan and so many rows at most: all results of the batch wait.
HOLD_ALIKE_FROM_SECONDS = 5.0
HOLD_ALIKE_MAX = 200  # by one statement: the next answer of one that is not held yet holds 200 more
_HOLD_ALIKE = f"""
with receivers as materialized (
    select a.format, asked.hosts, max(asked.seconds) as seconds
    from unnest(%b, %b, %b, %b) asked(id, url, seconds, hosts)
    cross join lateral (select format from outbox.subscriptions where id = asked.id and url = asked.url limit 1) a
    group by a.format, asked.hosts),
alike as materialized (
    select s.id, receivers.seconds from receivers cross join lateral (
        select id from outbox.subscriptions
        where format = receivers.format
          and lower(split_part(url, '/', 3)) = any(string_to_array(receivers.hosts, ' '))
          and removed_at is null and disabled_at is null
          and coalesce(held_until < clock_timestamp() + make_interval(secs => receivers.seconds / 2), true)
        limit {HOLD_ALIKE_MAX} for no key update skip locked) s
    limit {HOLD_ALIKE_MAX})
update outbox.subscriptions s
set held_until = clock_timestamp() + make_interval(secs => (select seconds from alike where id = s.id))
where id = any(array(select id from alike))
returning id
"""


def _holds_alike(rows: Sequence[Settlement]) -> Step | None:
    """Return the step that holds back all endpoints that a receiver counts together with those that it answered."""
    holds: dict[tuple[bytes, str], float] = {}
    hosts: dict[tuple[bytes, str], bytes] = {}
    for row in rows:
        hold = row.verdict.endpoint
        if not isinstance(hold, Hold) or hold.scope is not Scope.RECEIVER or hold.seconds < HOLD_ALIKE_FROM_SECONDS:
            continue
        if names := hosts_alike(row.url):
            asked_of = (row.delivery.subscription_id, row.url)
            holds[asked_of] = max(holds.get(asked_of, 0.0), hold.seconds)
            hosts[asked_of] = " ".join(names).encode()
    if not holds:
        return None
    columns = (*_endpoints(holds), Floats(list(holds.values())), Texts(list(hosts.values())))
    return Step("held_alike", _HOLD_ALIKE, columns)


_DISABLE = """
with gone as materialized (
    select asked.id, asked.reason from unnest(%b, %b, %b) asked(id, url, reason)
    cross join lateral (select from outbox.subscriptions where id = asked.id and url = asked.url and disabled_at is null
                        limit 1 for no key update skip locked) s)
update outbox.subscriptions s
set disabled_at = clock_timestamp(), disabled_reason = (select reason from gone where id = s.id limit 1)
where id = any(array(select id from gone))
returning id
"""


def _disables(rows: Sequence[Settlement]) -> Step | None:
    """Return the step that disables the endpoints that are gone."""
    reasons = {
        (row.delivery.subscription_id, row.url): row.verdict.endpoint.reason.encode()
        for row in rows
        if isinstance(row.verdict.endpoint, Disable)
    }
    return Step("disabled", _DISABLE, (*_endpoints(reasons), Texts(list(reasons.values())))) if reasons else None


def _endpoints(changes: Iterable[tuple[bytes, str]]) -> tuple[Uuids, Texts]:
    ids, urls = zip(*changes, strict=True)
    return Uuids(ids), Texts([url.encode() for url in urls])


def _health(rows: Sequence[Settlement]) -> list[Step]:
    """Return the steps that note what these results say of their endpoints; of those that answer always, none."""
    told = breaker.tallies(rows)
    if not told:
        return []
    columns = breaker.tally_columns(told)
    steps = [Step("worn", breaker.MOVE_HEALTH, columns)]
    if any(one.failures or one.slow_downs for one in told.values()):
        steps.insert(0, Step("ailing", breaker.ADD_NOTED, columns))
    return steps


def _halves(rows: Sequence[Settlement]) -> Step | None:
    """Return the step that makes two batches of each that was refused."""
    columns = halving.halve_columns(rows)
    return Step("halved", halving.HALVE, columns) if columns else None


_CONSEQUENCES: tuple[Callable[[Sequence[Settlement]], Step | None], ...] = (
    _buried_successes, _holds, _holds_alike, _disables, _halves,
)  # fmt: skip
