"""Attempts that end while their relay stands still: not charged, blamed on nobody, and not without end."""

from __future__ import annotations

import logging

import pytest

from relay.model.outcome import Outcome, OutcomeKind
from tests.integration.engine.world import FarEnd, World, running
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
