"""Dead letters in the log: few lines that tell whose they are and why, however many there are."""

from __future__ import annotations

import logging
import re
from types import SimpleNamespace
from typing import Any

import pytest

from outbox.ids import new_uuid7, text_id
from relay.engine import log_bursts
from relay.engine.dead_letter_log import DeadLetterLog
from relay.engine.log_bursts import MOST_LINES
from relay.model.delivery import Delivery
from tests.support.waiting import await_until

pytestmark = [pytest.mark.field("F102"), pytest.mark.anyio]
SUBSCRIPTIONS = [new_uuid7() for _ in range(60)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def dead(number: int = 0, reason: str = "http_5xx") -> Any:
    delivery = Delivery(new_uuid7().bytes, 1, SUBSCRIPTIONS[number].bytes, 1, 1, None, 0.0)
    return SimpleNamespace(delivery=delivery, outcome=reason)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_one_is_told_with_its_subscription(caplog: pytest.LogCaptureFixture) -> None:
    log, one = DeadLetterLog(), dead()
    log.note(one)
    log.tell()
    assert lines(caplog) == [f"{one.delivery} of {text_id('sub', SUBSCRIPTIONS[0])} is a dead letter: http_5xx"]


async def test_thousands_are_counted_by_subscription_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    log = DeadLetterLog()
    for count in range(13_349):
        log.note(dead(count % 2, "timeout" if count % 3 else "dns"))
    log.tell()
    *single, _, _, _, last = lines(caplog)
    assert len(single) == MOST_LINES
    counts = [int(re.findall(r": (\d+) more dead letters: ", line)[0]) for line in lines(caplog)[MOST_LINES:]]
    assert sum(counts) == 13_349 - MOST_LINES
    assert counts == sorted(counts, reverse=True)
    assert re.fullmatch(r"(sub_\w+): \d+ more dead letters: dns; relay dead-letters list --subscription \1", last)


async def test_of_many_subscriptions_the_rest_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    log = DeadLetterLog()
    for number in [*range(60)] * 100:
        log.note(dead(number))
    log.tell()
    assert len(lines(caplog)) == 2 * MOST_LINES + 1
    assert lines(caplog)[-1].endswith(" of 40 other subscriptions; relay dead-letters list")


async def test_what_was_counted_is_told_when_the_window_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_bursts, "WINDOW_SECONDS", 0.01)
    log = DeadLetterLog()
    for _ in range(MOST_LINES + 1):
        log.note(dead())
    await await_until(lambda: len(lines(caplog)) == MOST_LINES + 1)
    log.note(dead())
    assert " is a dead letter: " in lines(caplog)[-1]
    log.tell()
    log.tell()
    assert len(lines(caplog)) == MOST_LINES + 2
