"""What the log of a relay says while endpoints fail, from the attempts to the lines."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from relay.model.outcome import Outcome, OutcomeKind
from tests.integration.engine.world import DELIVERED, ERROR_500, FarEnd, Relay, World, stepping

pytestmark = [pytest.mark.field("F41"), pytest.mark.anyio]

PLAIN_HTTP = "url: plain http is not allowed"


def failed(kind: OutcomeKind, error: str) -> Outcome:
    return Outcome(kind, None, 1, error)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [
        record for record in caplog.records if record.name == "relay.engine" and "127.0.0.1" in record.getMessage()
    ]
    assert {record.levelno for record in found} <= {logging.WARNING}
    return [record.getMessage().partition(": ")[2] for record in found]


async def attempt(world: World, relay: Relay) -> None:
    """Let everything outstanding be due, and send it."""
    world.rows("update outbox.deliveries set due_at = now()")
    await relay.look()
    await relay.settled()


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (failed(OutcomeKind.REFUSED, "nobody listens"), "refused: nobody listens"),
        (failed(OutcomeKind.BLOCKED_ADDRESS, "10.0.0.1 is private"), "blocked_address: 10.0.0.1 is private"),
        (failed(OutcomeKind.BLOCKED_ADDRESS, PLAIN_HTTP), f"blocked_address: {PLAIN_HTTP}"),
        (failed(OutcomeKind.TIMEOUT, "no answer"), "timeout: no answer"),
        (ERROR_500, "http_5xx: status 500"),
    ],
    ids=["refused", "blocked", "plain http", "timeout", "500"],
)
async def test_an_endpoint_that_fails_is_told_once_and_its_recovery_too(
    world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture, outcome: Any, reason: str
) -> None:
    world.subscribe(path="/services/s3cr3t", schedule=(30, 30, 30))
    world.record()
    far_end.script["/services/s3cr3t"] = outcome
    async with stepping(world.url, far_end) as relay:
        for _ in range(3):
            await attempt(world, relay)
        assert lines(caplog) == [f"fails: {reason} (attempt 1 of 4); next try in 30 s"]
        far_end.script["/services/s3cr3t"] = DELIVERED
        await attempt(world, relay)
        assert [line.partition(" in ")[0] for line in lines(caplog)[1:]] == ["answers again, after 3 failed attempts"]
    assert "s3cr3t" not in caplog.text
    assert world.count("deliveries") == 0


async def test_an_endpoint_that_was_well_costs_no_line(
    world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture
) -> None:
    world.subscribe()
    world.record(count=20)
    async with stepping(world.url, far_end) as relay:
        await attempt(world, relay)
        assert [one.failures for one in relay.endpoints] == [None]
    assert lines(caplog) == []


async def test_many_that_fail_at_once_are_counted(
    world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(60):
        world.subscribe(path=f"/{number}")
        far_end.script[f"/{number}"] = ERROR_500
    world.record()
    async with stepping(world.url, far_end) as relay:
        await attempt(world, relay)
        await relay.sending.abort()  # the end of a drain tells what was counted
    told = [record.getMessage() for record in caplog.records if "other endpoints" in record.getMessage()]
    assert len(lines(caplog)) == 20
    assert told == ["and 40 other endpoints failed: http_5xx 40; relay status"]
