"""Bulk operations by real relays that are killed: each delivery is put back exactly once, and the operation ends."""

from __future__ import annotations

import random
import signal
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from relay.operations.bulk import operations
from relay.operations.bulk.request import BulkRequest
from tests.acceptance.test_crash_points import OF_BULK
from tests.support.application import Application
from tests.support.processes import RelayProcess
from tests.support.waiting import wait_until

EVENTS = 5_000
STEPS = ["Store.claim_bulk", "Store.read_bulk", "Store.put_back_bulk"]
HOUR = timedelta(hours=1)

# Every event has one delivery besides those that an operation made of it: it was resolved once.
_MADE = """
select e.seq, count(distinct a.delivery_id) from outbox.events e join outbox.attempts a on a.event_seq = e.seq
where a.subscription_id = outbox.uuid_of(:subscription) and a.verdict = 'delivered' group by 1
"""


def start(app: Application, kind: Any, subscription: str, **asked: Any) -> str:
    with app.engine.begin() as connection:
        rate = asked.pop("rate", 100_000)
        request = BulkRequest(kind=kind, subscription=subscription, **asked)
        made = operations.add_bulk(connection, None, request, rate=rate)
        operations.start_bulk(connection, None, made.id)
        return str(made.id)


def show(app: Application, operation: str) -> operations.BulkOperation:
    with app.engine.begin() as connection:
        return operations.show_bulk(connection, None, operation)


def history(app: Application, count: int) -> None:
    """Record events that were delivered to /old, as if long ago: without a relay, since that is not the point."""
    app.rows(
        "insert into outbox.events (type, payload) select 'order.placed', json_build_object('number', n)::text"
        " from generate_series(1, :count) n",
        count=count,
    )
    app.rows(
        "with gone as (delete from outbox.pending returning event_seq), seqs as (select array_agg(event_seq order by 1)"
        " s from gone) insert into outbox.resolutions (first_seq, seqs, matches)"
        " select s[1], s, array_fill(1, array[cardinality(s)]) from seqs"
    )
    app.rows(
        "insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status,"
        " milliseconds) select gen_random_uuid(), e.seq, s.id, 1, 'delivered', 'delivered', 200, 1"
        " from outbox.events e, outbox.subscriptions s where s.url like '%/old'"
    )


def bury(app: Application, subscription: str) -> None:
    """Make a dead letter of every event for a subscription."""
    app.rows(
        "insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, payload,"
        " recorded_at, attempts, reason) select outbox.uuid7(), seq, id, outbox.uuid_of(:subscription), tenant, type,"
        " payload, recorded_at, 1, 'http_5xx' from outbox.events",
        subscription=subscription,
    )


def made(app: Application, subscription: str) -> Counter[int]:
    """How many deliveries of each event the subscription got."""
    return Counter(dict(app.rows(_MADE, subscription=subscription)))


@pytest.mark.parametrize("step", sorted(OF_BULK))
def test_a_kill_around_any_step_puts_back_each_delivery_once(app: Application, step: str) -> None:
    """Before it, and after it; then a relay in peace does the rest."""
    app.subscribe("/old")
    history(app, 20)
    new = app.subscribe("/new")
    app.rows(
        """update outbox.subscriptions set filter = '{"payload": {"$not": {"nothing": 1}}}' where url like '%new'"""
    )
    operation = start(app, "backfill", new, rate=10)
    if step == "Store.put_off_bulk":
        app.rows(
            "insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts)"
            " select gen_random_uuid(), 0, outbox.uuid_of(:new), 'infinity', 1 from generate_series(1, 10000)",
            new=new,
        )
    for when in ("before", "after"):
        relay = app.stage.relay(trap=f"{step}:{when}:1")
        assert relay.wait() == -signal.SIGKILL, f"{step} was never reached:\n{relay.text}"
        app.rows(
            "update outbox.bulk_operations set leased_until = null, allowed_at = clock_timestamp() - interval '2 s'"
        )
        app.expire_leases()
    app.rows("delete from outbox.deliveries where event_seq = 0")
    app.stage.drain()
    assert show(app, operation).state == "done"
    assert show(app, operation).done == 20
    assert set(made(app, new).values()) == {1}
    assert len(made(app, new)) == 20


@pytest.mark.parametrize("kind", ["redrive", "backfill", "replay"])
def test_two_relays_that_are_killed_again_and_again_put_back_each_of_thousands_once(
    app: Application, kind: str
) -> None:
    """Each dies at a step by chance, in the first batches that it does; the other is at work meanwhile."""
    app.switch_breakers_off()
    old = app.subscribe("/old")
    history(app, EVENTS)
    target = old if kind == "replay" else app.subscribe("/new")
    if kind == "redrive":
        bury(app, target)
    operation = start(app, kind, target, rate=1_000, **({} if kind == "backfill" else {"since": HOUR}))
    dice = random.Random(7)
    for turn in range(40):
        if turn >= 5 and show(app, operation).done:
            break
        points = [
            f"{step}:{dice.choice(['before', 'after'])}:{dice.randint(1, 3)}" for step in dice.choices(STEPS, k=2)
        ]
        relays = [app.stage.relay(trap=point) for point in points]
        until_one_is_dead(app, operation, relays)
        for relay in relays:
            relay.kill()
        app.rows("update outbox.bulk_operations set leased_until = null")
        app.expire_leases()
    middle = show(app, operation)
    assert (middle.state, 0 < middle.done < EVENTS) == ("running", True), "they died too early or too late"
    operations_end(app, operation)
    ended = show(app, operation)
    assert (ended.state, ended.done) == ("done", EVENTS)
    assert made(app, target) == dict.fromkeys(range(1, EVENTS + 1), 2 if kind == "replay" else 1)
    assert app.one("select count(*) from outbox.dead_letters") == 0


def until_one_is_dead(app: Application, operation: str, relays: list[RelayProcess]) -> None:
    wait_until(lambda: not all(relay.alive for relay in relays) or show(app, operation).state == "done")


def operations_end(app: Application, operation: str) -> None:
    """Let a relay in peace do the rest, at any rate."""
    with app.engine.begin() as connection:
        operations.set_bulk_rate(connection, None, operation, 100_000)
    app.stage.drain()


def test_when_the_relay_at_work_dies_another_goes_on(app: Application) -> None:
    app.subscribe("/old")
    history(app, 200)
    new = app.subscribe("/new")
    operation = start(app, "backfill", new, rate=20)
    first = app.stage.running_relay()
    wait_until(lambda: show(app, operation).done > 0)
    app.stage.running_relay()
    first.kill()
    done = show(app, operation).done
    wait_until(lambda: show(app, operation).done > done, timeout_seconds=30)
