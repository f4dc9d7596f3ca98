"""Bulk operations by real relays that are killed: each delivery is put back exactly once, and the operation ends."""

from __future__ import annotations

import random
import signal
from collections import Counter
from datetime import timedelta

import pytest

from relay.operations.bulk import operations
from tests.acceptance.test_crash_points import OF_BULK
from tests.support.application import Application
from tests.support.bulk import history, show, start
from tests.support.processes import RelayProcess
from tests.support.provocations import BACKLOG_SEQ, start_backfill
from tests.support.waiting import wait_until

EVENTS = 4_000
DEAD = 500  # of what is recovered; the others wait
TURNS_LEAST = 4
STEPS = ["Store.claim_bulk", "Store.read_bulk", "Store.put_back_bulk"]
HOUR = timedelta(hours=1)

# Every event has one delivery besides those that an operation made of it: it was resolved once.
_MADE = """
select e.seq, count(distinct a.delivery_id) from outbox.events e join outbox.attempts a on a.event_seq = e.seq
where a.subscription_id = outbox.uuid_of(:subscription) and a.verdict = 'delivered' group by 1
"""


def bury(app: Application, subscription: str, up_to_seq: int = EVENTS) -> None:
    """Make a dead letter of the first events for a subscription."""
    app.rows(
        "insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, payload,"
        " recorded_at, attempts, reason) select outbox.uuid7(), seq, id, outbox.uuid_of(:subscription), tenant, type,"
        " payload, recorded_at, 1, 'http_5xx' from outbox.events where seq <= :up_to",
        subscription=subscription,
        up_to=up_to_seq,
    )


def let_wait(app: Application, subscription: str, after_seq: int) -> None:
    """Let a delivery of every event after this one wait for its second attempt, as after a failure."""
    app.rows(
        "with waiting as (insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts)"
        " select outbox.uuid7(), seq, outbox.uuid_of(:subscription), clock_timestamp() + interval '1 hour', 1"
        " from outbox.events where seq > :after returning *)"
        " insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status,"
        " milliseconds) select id, event_seq, subscription_id, 1, 'retry', 'http_5xx', 500, 1 from waiting",
        subscription=subscription,
        after=after_seq,
    )


def made(app: Application, subscription: str) -> Counter[int]:
    """How many deliveries of each event the subscription got."""
    return Counter(dict(app.rows(_MADE, subscription=subscription)))


@pytest.mark.slow
@pytest.mark.parametrize("step", sorted(OF_BULK))
def test_a_kill_around_any_step_puts_back_each_delivery_once(app: Application, step: str) -> None:
    """Before it, and after it; then a relay in peace does the rest."""
    operation, new = start_backfill(app, step)
    for when in ("before", "after"):
        relay = app.stage.relay(trap=f"{step}:{when}:1")
        assert relay.wait() == -signal.SIGKILL, f"{step} was never reached:\n{relay.text}"
        app.rows(
            "update outbox.bulk_operations set leased_until = null, allowed_at = clock_timestamp() - interval '2 s'"
        )
        app.expire_leases()
    app.rows("delete from outbox.deliveries where event_seq = :seq", seq=BACKLOG_SEQ)
    app.stage.drain()
    assert show(app, operation).state == "done"
    assert show(app, operation).done == 20
    assert set(made(app, new).values()) == {1}
    assert len(made(app, new)) == 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redrive", "recover", "backfill", "replay"])
def test_two_relays_that_are_killed_again_and_again_put_back_each_of_thousands_once(
    app: Application, kind: str
) -> None:
    """Each dies at a step by chance, in the first batches that it does; the other is at work meanwhile.

    What is recovered is dead first, then waiting: relays die in both.
    """
    app.switch_breakers_off()
    old = app.subscribe("/old")
    history(app, EVENTS)
    target = old if kind == "replay" else app.subscribe("/new")
    dead = {"redrive": EVENTS, "recover": DEAD}.get(kind, 0)
    bury(app, target, dead)
    if kind == "recover":
        let_wait(app, target, dead)
    operation = start(app, kind, target, rate=1_000, **({} if kind == "backfill" else {"since": HOUR}))
    dice = random.Random(7)
    for turn in range(40):
        if turn >= TURNS_LEAST and show(app, operation).done > dead % EVENTS:
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


@pytest.mark.slow
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
