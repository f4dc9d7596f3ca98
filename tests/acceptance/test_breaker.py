"""Endpoints that fail, with real relays and a real receiver: nothing is sent to them, others feel nothing.

Time passes by moving the times in the rows: every one of them is on the database's clock.
"""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.support.application import Application
from tests.support.waiting import wait_until

pytestmark = pytest.mark.field("F24")

OPEN = "select count(*) from outbox.health where opened_at is not null"
LEASED = "select count(*) from outbox.deliveries where lease is not null"


def told(app: Application, path: str, count: int = 1) -> list[tuple[str, dict[str, Any]]]:
    """Type and data of the events that came to a path, once they are so many, in the order of their recording."""
    came = {entry["id"] for entry in app.receiver.wait_for(count, path)}
    recorded = app.rows("select outbox.text_id('evt', id), type, payload from outbox.events order by seq")
    return [(kind, json.loads(payload)) for event, kind, payload in recorded if event in came]


def types(app: Application, path: str, count: int = 1) -> list[str]:
    return [kind for kind, _ in told(app, path, count)]


def probe_now(app: Application) -> None:
    app.rows("update outbox.health set probe_at = clock_timestamp() where opened_at is not null")


def ticks(app: Application) -> int:
    """How often relays have given a sign of life."""
    return int(app.one("select coalesce(sum(extract(epoch from seen_at)), 0)::bigint from outbox.relays"))


@pytest.mark.slow
def test_it_opens_harms_no_other_is_probed_by_one_and_closes(app: Application) -> None:
    app.receiver.plan("/bad", "500")
    bad = app.subscribe("/bad", "order.placed", timeout_seconds=40, schedule_seconds=[1] * 20)
    app.subscribe("/good", "order.placed")
    app.subscribe("/alarm", "relay.*")
    for _ in range(2):
        app.stage.running_relay()
    ids = app.record(40)
    wait_until(lambda: app.one(OPEN) == 1)
    wait_until(lambda: app.one(LEASED) == 0)
    before = len(app.receiver.received("/bad"))
    charged = "select sum(attempts) from outbox.deliveries where subscription_id = outbox.uuid_of(:bad)"
    attempts = app.one(charged, bad=bad)
    more = app.record(40)
    assert {entry["id"] for entry in app.receiver.wait_for(80, "/good")} == {*ids, *more}
    assert app.one(charged, bad=bad) == attempts, "waiting is not charged"
    app.receiver.plan("/bad", "hold")
    probe_now(app)
    app.receiver.wait_for(before + 1, "/bad")
    seen = ticks(app)
    wait_until(lambda: ticks(app) > seen + 4)  # each relay has looked again since
    assert (app.one(LEASED), len(app.receiver.received("/bad"))) == (1, before + 1)
    app.receiver.plan("/bad", "200")
    app.receiver.release(200)
    app.wait_settled(40)
    assert app.one(OPEN) == 0
    assert app.dead() == {}
    assert {entry["id"] for entry in app.receiver.received("/bad")} == {*ids, *more}
    assert types(app, "/alarm", 2) == ["relay.breaker.opened", "relay.breaker.closed"]


@pytest.mark.slow
def test_a_relay_that_dies_with_the_probe_leaves_it_to_the_next(app: Application) -> None:
    app.receiver.plan("/bad", "500")
    app.subscribe("/bad", schedule_seconds=[0] * 20)
    relay = app.stage.running_relay()
    ids = app.record(20)
    wait_until(lambda: app.one(OPEN) == 1 and app.one(LEASED) == 0)
    before = len(app.receiver.received("/bad"))
    app.receiver.plan("/bad", "hold")
    probe_now(app)
    app.receiver.wait_for(before + 1, "/bad")
    relay.kill()
    app.receiver.plan("/bad", "200")
    app.expire_leases()
    app.stage.running_relay()
    app.wait_settled(40)
    assert {entry["id"] for entry in app.receiver.received("/bad")} == set(ids)
    assert (app.one(OPEN), app.dead()) == (0, {})


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_around_the_settling_that_opens_it_leaves_both_or_neither(app: Application, when: str) -> None:
    app.receiver.plan("/bad", "500")
    app.subscribe("/bad", schedule_seconds=[60] * 5)
    app.rows("update outbox.settings set value = 1 where name = 'breaker_attempts'")
    app.record(1)
    assert app.stage.relay(trap=f"Store.settle:{when}:1").wait() == -signal.SIGKILL
    assert app.one(OPEN) == app.one("select count(*) from outbox.attempts") == (when == "after")
    assert app.one("select count(*) from outbox.events where type = 'relay.breaker.opened'") == (when == "after")


def test_after_five_days_it_is_disabled_and_enabled_again_by_a_success(app: Application) -> None:
    app.receiver.plan("/bad", "500")
    broken = app.subscribe("/bad", "order.placed", schedule_seconds=[3600])
    app.rows("update outbox.subscriptions set recovery_seconds = 60")
    app.subscribe("/alarm", "relay.subscription.*")
    app.stage.running_relay()

    def fail_after(days: float) -> None:
        app.rows(
            "update outbox.health set failing_since = clock_timestamp() - make_interval(secs => :s)", s=days * 86400
        )
        (event,) = app.record(1)
        wait_until(lambda: event in [entry["id"] for entry in app.receiver.received("/bad")])
        wait_until(lambda: app.one(LEASED) == 0)

    fail_after(0)
    fail_after(2.6)
    assert types(app, "/alarm") == ["relay.subscription.warned"]
    fail_after(5.1)
    (_, (kind, data)) = told(app, "/alarm", 2)
    assert (kind, data["subscription"], data["host"]) == ("relay.subscription.disabled", broken, "127.0.0.1")
    assert data["reason"].startswith("every attempt has failed since ")
    waiting = app.record(3)
    app.receiver.plan("/bad", "200")
    app.rows("update outbox.deliveries set due_at = clock_timestamp() where lease is null")
    probe_now(app)
    app.wait_settled(40)
    assert {entry["id"] for entry in app.receiver.received("/bad")} >= set(waiting)
    assert types(app, "/alarm", 3)[2:] == ["relay.subscription.recovered"]
    assert app.one("select count(*) from outbox.subscriptions where disabled_at is not null") == 0


@pytest.mark.slow
def test_two_alarms_that_fail_do_not_feed_each_other(app: Application) -> None:
    app.subscribe("/first", "relay.*", schedule_seconds=[0])
    app.subscribe("/second", "relay.*", schedule_seconds=[0])
    app.subscribe("/bad", "order.placed", schedule_seconds=[0])
    for path in ("/first", "/second", "/bad"):
        app.receiver.plan(path, "500")
    app.rows("update outbox.settings set value = 1 where name = 'breaker_attempts'")
    app.stage.running_relay()
    app.record(1)
    wait_until(lambda: app.one(OPEN) == 3)

    def all_given_up() -> bool:
        probe_now(app)
        return app.is_settled()

    wait_until(all_given_up, timeout_seconds=40)
    recorded = [kind for (kind,) in app.rows("select type from outbox.events where type like 'relay.%' order by seq")]
    assert set(recorded) <= {"relay.breaker.opened", "relay.delivery.dead"}
    assert recorded.count("relay.breaker.opened") == 1
