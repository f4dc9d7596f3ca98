"""What follows the measured speed of the database: the lease, the time to begin, how much one answer may bring."""

from __future__ import annotations

import time

import pytest

from relay.engine import pace as pace_module
from relay.engine.pace import BYTES_FIRST, BYTES_FROM, BYTES_MAX, BYTES_MIN, ROWS_MAX, Pace
from relay.store.lease import LEASE_SLACK_SECONDS, START_WITHIN_SECONDS

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("relay.engine.pace.time.monotonic", lambda: now[0])
    return now


def measure(pace: Pace, clock: list[float], verb: str, seconds: float) -> None:
    with pace.timing(verb):
        clock[0] += seconds


async def test_a_quick_database_has_the_limits_as_written(clock: list[float]) -> None:
    pace = Pace()
    for verb in ("poll", "claim", "fan_out", "settle"):
        measure(pace, clock, verb, 0.3)
    assert (pace.start_within_seconds, pace.slack_seconds) == (START_WITHIN_SECONDS, LEASE_SLACK_SECONDS)


@pytest.mark.field("F110")
async def test_a_slow_one_has_time_to_answer_and_to_settle(clock: list[float]) -> None:
    pace = Pace()
    measure(pace, clock, "claim", 3.5)
    measure(pace, clock, "settle", 10.0)
    assert pace.start_within_seconds > 2 * 3.5
    assert pace.slack_seconds - pace.start_within_seconds > 2 * 10.0


@pytest.mark.field("F110")
async def test_one_quick_answer_is_no_proof_and_many_are(clock: list[float]) -> None:
    pace = Pace()
    measure(pace, clock, "claim", 4.0)
    measure(pace, clock, "claim", 0.01)
    assert pace.feeding_seconds == 2.0
    for _ in range(10):
        measure(pace, clock, "claim", 0.01)
    assert pace.slack_seconds == LEASE_SLACK_SECONDS


@pytest.mark.parametrize("verb", ["claim of a suspect", "claim of probes", "claim of batches", "settle"])
async def test_what_is_not_used_again_counts_less_and_less(clock: list[float], verb: str) -> None:
    pace = Pace()
    measure(pace, clock, verb, 60.0)
    slow = pace.slack_seconds
    assert slow > 2 * 60.0
    clock[0] += 15.0
    assert LEASE_SLACK_SECONDS < pace.slack_seconds < slow * 0.6
    for later in (90.0, 100 * 86400.0):
        clock[0] += later
        assert (pace.start_within_seconds, pace.slack_seconds) == (START_WITHIN_SECONDS, LEASE_SLACK_SECONDS)


@pytest.mark.field("F62")
async def test_an_answer_may_bring_what_the_link_takes_in_a_second(clock: list[float]) -> None:
    pace = Pace()
    pace.note_answer(2_000_000, 2.0)
    assert pace.bytes == 1_000_000
    pace.note_answer(600_000, 60.0)
    assert pace.bytes == BYTES_FROM, "a slow statement is no slow link"
    for _ in range(20):
        pace.note_answer(pace.bytes, 0.1)
    assert pace.bytes == BYTES_MAX


@pytest.mark.field("F62")
async def test_what_came_too_late_is_asked_for_by_halves(clock: list[float]) -> None:
    pace = Pace()
    pace.note_late()
    assert (pace.bytes, pace.rows) == (BYTES_FIRST // 2, ROWS_MAX // 2)
    for _ in range(20):
        pace.note_late()
    assert (pace.bytes, pace.rows) == (BYTES_MIN, 1)
    for _ in range(10):
        pace.note_answer(100, 0.1)
    assert pace.rows == ROWS_MAX


@pytest.mark.field("F99")
async def test_a_statement_that_takes_long_is_said_again_and_again_and_at_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    monkeypatch.setattr(pace_module, "SAID_AFTER_SECONDS", 0.05)
    monkeypatch.setattr(pace_module, "SAID_EVERY_SECONDS", 0.1)
    pace = Pace()
    with pace.timing("poll"):
        give_up = time.monotonic() + 10
        while len(caplog.records) < 3 and time.monotonic() < give_up:
            await asyncio.sleep(0.02)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("database: slow: poll has taken")
    assert said[-1].startswith("database: slow: poll took")
    assert len(said) >= 4
