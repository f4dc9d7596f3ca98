"""What is said while the database is away: a line when it goes, one every ten seconds, one when it is back."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg
import pytest

from relay.engine import outage as module
from relay.engine.outage import Outage

AWAY = psycopg.OperationalError("connection refused\nsecond line")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def log() -> Iterator[list[str]]:
    """The lines said; read from the logger itself, whatever other tests have set up for its parents."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    module.log.addHandler(handler)
    yield lines
    module.log.removeHandler(handler)


def test_one_line_at_once_and_one_every_ten_seconds(clock: Clock, log: list[str]) -> None:
    outage = Outage()
    for _ in range(600):
        outage.note_failure(AWAY)
        clock.now += 0.1
    assert len(log) == 6
    assert all("connection refused" in line and "\n" not in line for line in log)


def test_one_line_when_it_is_back_with_how_long_it_was_away(clock: Clock, log: list[str]) -> None:
    outage = Outage()
    outage.note_failure(AWAY)
    clock.now += 3.0
    outage.note_success()
    outage.note_success()
    assert log[1:] == ["database: back after 3.0 s"]


def test_nothing_is_said_while_all_is_well(clock: Clock, log: list[str]) -> None:
    Outage().note_success()
    assert log == []


def test_one_loop_that_fails_beside_one_that_succeeds_does_not_flood_the_log(clock: Clock, log: list[str]) -> None:
    outage = Outage()
    for _ in range(200):
        outage.note_failure(AWAY)
        clock.now += 0.05
        outage.note_success()
        clock.now += 0.05
    assert len(log) <= 6, "20 seconds"


def test_the_waits_grow_to_a_second(clock: Clock) -> None:
    outage = Outage()
    waits = []
    for _ in range(20):
        outage.note_failure(AWAY)
        waits.append(outage.pause_seconds)
    assert waits == sorted(waits)
    assert 0.1 <= waits[0] <= 0.2
    assert waits[-1] == 1.0
    outage.note_success()
    assert outage.pause_seconds == 0.1


def test_an_error_without_words_still_has_a_name(clock: Clock, log: list[str]) -> None:
    Outage().note_failure(TimeoutError())
    assert "TimeoutError" in log[0]
