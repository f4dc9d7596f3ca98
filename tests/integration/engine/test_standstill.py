"""Attempts that end while their relay stands still: not charged, blamed on nobody, and not without end."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from outbox import statistics
from relay.engine.standstill import FORGET_SECONDS, Standstill
from relay.model.delivery import Delivery
from relay.model.outcome import Outcome, OutcomeKind
from relay.model.settlement import Settlement
from relay.model.verdict import Verdict, VerdictKind
from relay.operations.status.late_subscriptions import find_stuck
from relay.telemetry.metrics import Metrics
from tests.integration.engine.world import FarEnd, World, running, uuid_of
from tests.support import databases
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

STILL = Outcome(OutcomeKind.STOOD_STILL, None, 90_000, "no complete answer in time; but …")


async def test_it_is_tried_again_uncharged_a_few_times_and_is_a_timeout_then(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("relay.engine.standstill.UNCHARGED_MAX", 2)
    monkeypatch.setattr("relay.engine.standstill.WAIT_MAX_SECONDS", 0.0)
    far_end = FarEnd()
    far_end.script["/"] = STILL
    world.subscribe(schedule=[0])
    world.record()
    with caplog.at_level(logging.WARNING, "relay"):
        async with running(world.url, far_end):
            await await_until(lambda: world.count("dead_letters") == 1)
    told = world.rows("select number, outcome, verdict from outbox.attempts order by at")
    uncharged = [(1, "stood_still", "retry")] * 2
    assert told == [*uncharged, (1, "timeout", "retry"), (2, "timeout", "dead")]
    assert [record.message for record in caplog.records if "stood still" in record.message] == [
        "this process stood still; attempts tried again for it, uncharged: 1"
    ]


def test_what_cannot_be_counted_is_charged_and_counts_end_when_all_was_well_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.engine.standstill.COUNTED_MAX", 2)
    standstill, seconds = Standstill(), 0.0
    monkeypatch.setattr("relay.engine.standstill.time.monotonic", lambda: seconds)
    deliveries = [Delivery(bytes([number]) * 16, 1, b"", 1, 1, None, 0.0) for number in range(3)]
    weighed = [standstill.weigh(one, STILL)[1] for one in deliveries]
    assert weighed == [1.0, 1.0, None]
    assert [standstill.weigh(deliveries[0], STILL)[1] for _ in range(5)] == [2.0, 3.0, 4.0, 5.0, None]
    seconds = FORGET_SECONDS
    assert standstill.weigh(deliveries[2], STILL)[1] == 1.0


async def test_neither_health_nor_breaker_of_the_endpoint_learn_of_it(world: World) -> None:
    far_end = FarEnd()
    far_end.script["/"] = STILL
    world.subscribe(schedule=[])
    world.record(count=50)
    async with running(world.url, far_end) as relay:
        await await_until(lambda: world.count("attempts", "outcome = 'stood_still'") >= 50)
        (endpoint,) = relay.endpoints
        assert (endpoint.window.latency, endpoint.ailing, endpoint.failing) == (0.0, None, False)
    assert world.count("health") == 0
    assert world.count("dead_letters") == 0
    assert world.count("deliveries", "attempts > 0") == 0


async def test_a_probe_during_which_the_relay_stood_still_did_not_fail(world: World) -> None:
    """The next one comes when its lease would have ended, and the pause is no longer than before."""
    far_end = FarEnd()
    far_end.script["/"] = STILL
    subscription = world.subscribe()
    world.rows(
        "insert into outbox.health (subscription_id, opened_at, failing_since, pause_seconds, probe_at, changed_at)"
        " values (%s, now(), now(), 60, now(), now())",
        uuid_of(subscription),
    )
    world.record()
    async with running(world.url, far_end):
        await await_until(lambda: world.count("attempts", "outcome = 'stood_still'") == 1)
    assert world.rows("select pause_seconds, opened_at is null, probe_at > now() from outbox.health") == [
        (60, False, True)
    ]


async def test_no_figure_counts_it_as_a_failure_of_the_endpoint(world: World) -> None:
    """The one that failed is the last failure, though the standstill came after it; both stand in the history."""
    far_end = FarEnd()
    answers = [STILL, Outcome(OutcomeKind.HTTP_5XX, 500, 3)]

    async def answer() -> Outcome:
        return answers.pop()

    far_end.script["/"] = answer
    world.subscribe(schedule=[0, 3600])
    world.record()
    async with running(world.url, far_end):
        await await_until(lambda: world.count("attempts") == 2)
    assert world.rows("select outcome from outbox.attempts order by at") == [("http_5xx",), ("stood_still",)]
    for _ in range(2):  # as they are read before they are rolled up, and after
        with databases.engine_on(world.url) as engine, engine.begin() as connection:
            found = statistics.read(connection, "")
            assert (found.delivered, found.failed, found.last_outcome) == (0, 1, "http_5xx")
            (stuck,) = find_stuck(connection, None)
            assert stuck.failed is not None
            assert stuck.failed.outcome == "http_5xx"
            connection.execute(sa.text("select outbox.roll_up()"))


def test_metrics_name_it_and_take_no_request_for_as_long() -> None:
    registry = CollectorRegistry()
    delivery = Delivery(bytes(16), 1, b"", 1, 1, None, 0.0)
    Metrics(registry).settled([Settlement.of(delivery, Verdict(VerdictKind.RETRY), STILL, "", None)], 0, 0.0)
    assert registry.get_sample_value("outbox_relay_attempts_total", {"outcome": "stood_still"}) == 1
    counted = registry.get_sample_value("outbox_relay_attempt_duration_seconds_count", {"result": "failed"})
    assert counted == 0
