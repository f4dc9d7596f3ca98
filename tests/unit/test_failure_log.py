"""Failures of endpoints in the log: one line at each turn of things, few for each endpoint and few for thousands."""

from __future__ import annotations

import logging
import re
from typing import Any
from uuid import UUID

import pytest

from outbox.ids import new_uuid7, text_id
from relay.engine import log_bursts
from relay.engine.endpoint import Endpoint
from relay.engine.failure_log import FailureLog, host_of
from relay.engine.failures import LINES_EACH, PERIOD_SECONDS, Failures, Line
from relay.engine.log_bursts import MOST_LINES
from relay.model.delivery import Delivery
from relay.model.outcome import Outcome, OutcomeKind
from relay.model.subscription import SubscriptionVersion
from relay.model.verdict import Disable, Hold, Verdict, VerdictKind
from relay.secrets.keyring import Keyring
from tests.support.waiting import await_until

pytestmark = [pytest.mark.field("F41"), pytest.mark.anyio]

REFUSED, TIMEOUT, DELIVERED = OutcomeKind.REFUSED, OutcomeKind.TIMEOUT, OutcomeKind.DELIVERED
URL = "https://shop:pa55@hooks.example:8443/services/T0/B0/s3cr3t?token=t0k"
RETRY = Verdict(VerdictKind.RETRY, 30.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Owner:
    def begin_next(self, endpoint: Endpoint) -> None:
        raise NotImplementedError


def endpoint(url: str = URL) -> Endpoint:
    version = SubscriptionVersion(new_uuid7().bytes, 1, url, 15, (30, 60), "standard", (), ())
    return Endpoint(version, 64, Keyring(), Owner())


def note(log: FailureLog, to: Endpoint, kind: OutcomeKind, verdict: Verdict = RETRY, **outcome: Any) -> None:
    delivery = Delivery(new_uuid7().bytes, 1, to.subscription.id, 1, 1, None, 0.0)
    log.note(to, to.subscription, delivery, Outcome(kind, outcome.pop("status", None), 1, **outcome), verdict)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_first_failure_change_and_recovery_are_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    log, one = FailureLog(), endpoint()
    who = f"{text_id('sub', UUID(bytes=one.subscription.id))} at hooks.example:8443"
    so_far = "next try in 30 s; 51 failed attempts in 0 s"
    for _ in range(50):
        note(log, one, DELIVERED)
    for _ in range(50):
        note(log, one, REFUSED, error="nobody listens")
    for _ in range(50):
        note(log, one, OutcomeKind.HTTP_5XX, status=503)
    for _ in range(50):
        note(log, one, DELIVERED, status=200)
    log.tell()
    assert lines(caplog) == [
        f"{who}: fails: refused: nobody listens (attempt 1 of 3); next try in 30 s",
        f"{who}: now fails in another way: http_5xx: status 503 (attempt 1 of 3); {so_far}",
        f"{who}: answers again, after 100 failed attempts in 0 s",
    ]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict(VerdictKind.DEAD), "no more tries of this delivery"),
        (Verdict(VerdictKind.RETRY, 30.0, Hold(7200.0)), "next try in 2 h"),
        (Verdict(VerdictKind.RETRY, 300.0), "next try in 5 min"),
    ],
)
async def test_the_next_try_is_said(caplog: pytest.LogCaptureFixture, verdict: Verdict, words: str) -> None:
    note(log := FailureLog(), endpoint(), TIMEOUT, verdict)
    log.tell()
    assert lines(caplog)[0].endswith(f"; {words}")


async def test_of_the_url_only_the_host_is_told(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog()
    note(log, endpoint(), REFUSED, error=f"no way to {URL}")
    note(log, endpoint(), REFUSED, error="no way to\n/services/T0/B0/s3cr3t?token=t0k " + "x" * 1000)
    log.tell()
    assert not re.search("pa55|s3cr3t|t0k|T0|\n", caplog.text.replace("\nWARNING", "").rstrip("\n"))
    assert all(len(line) < 500 for line in lines(caplog))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (URL, "hooks.example:8443"),
        ("https://u:p@p@h.example?token=t", "h.example"),
        ("http://[::1]:80/x", "[::1]:80"),
        ("http://[::1/x", "?"),
        ("nonsense", "?"),
    ],
)
async def test_host(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    "kind",
    [
        *("local", "key_unavailable", "stood_still", "aborted", "internal"),
        *("event_gone", "payload_unreadable", "transformation_failed"),
    ],
)
async def test_what_is_not_the_endpoints_fault_is_no_failure_of_it(caplog: pytest.LogCaptureFixture, kind: str) -> None:
    log, one = FailureLog(), endpoint()
    note(log, one, OutcomeKind(kind))
    log.tell()
    assert (lines(caplog), one.failing, one.failures) == ([], False, None)


async def test_one_that_is_disabled_has_a_line_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    log, one = FailureLog(), endpoint()
    note(log, one, OutcomeKind.HTTP_4XX, Verdict(VerdictKind.RETRY, endpoint=Disable("gone")), status=410)
    log.tell()
    assert (lines(caplog), one.failing) == ([], False)


async def test_ten_thousand_at_once_are_twenty_lines_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    log, many = FailureLog(), [endpoint() for _ in range(10_000)]
    for _ in range(3):
        for number, one in enumerate(many):
            note(log, one, REFUSED if number % 4 else TIMEOUT)
    log.tell()
    *single, last = lines(caplog)
    assert len(single) == MOST_LINES
    assert last == "and 9,980 other endpoints failed: refused 7,485, timeout 2,495; relay status"
    caplog.clear()
    for one in many:
        note(log, one, DELIVERED)
    log.tell()
    assert len(lines(caplog)) == MOST_LINES + 1
    assert lines(caplog)[-1].startswith("and 9,980 other endpoints answer again: ")
    assert not any(one.failing for one in many)


async def test_the_count_is_told_when_the_window_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_bursts, "WINDOW_SECONDS", 0.01)
    log = FailureLog()
    for _ in range(MOST_LINES + 2):
        note(log, endpoint(), REFUSED)
    await await_until(lambda: lines(caplog)[-1] == "and 2 other endpoints failed: refused 2; relay status")


async def test_one_that_comes_and_goes_has_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    log, one = FailureLog(), endpoint()
    for _ in range(500):
        note(log, one, REFUSED)
        note(log, one, DELIVERED)
        note(log, one, TIMEOUT)
    log.tell()
    assert len(lines(caplog)) <= LINES_EACH
    assert lines(caplog)[-1].endswith("; it comes and goes: few lines more in 10 min")
    assert one.failing


async def test_one_that_keeps_failing_is_told_once_in_ten_minutes() -> None:
    one = Failures(REFUSED, URL, 0.0)
    told = [one.begin(REFUSED, URL, 0.0)]
    told += [one.go_on(REFUSED, URL, float(second)) for second in range(1, 3601)]
    assert [line for line in told if line] == [Line.FAILED, *[Line.STILL] * 6]
    assert one.failed == 3601


async def test_after_ten_minutes_one_that_comes_and_goes_is_told_of_again() -> None:
    one = Failures(REFUSED, URL, 0.0)
    one.begin(REFUSED, URL, 0.0)
    while one.recover(1.0):
        one.begin(REFUSED, URL, 1.0)
    assert one.recover(PERIOD_SECONDS - 1) is None
    assert one.recover(PERIOD_SECONDS + 1) == Line.RECOVERED


async def test_a_new_url_that_fails_in_the_same_way_is_a_change() -> None:
    one = Failures(REFUSED, URL, 0.0)
    one.begin(REFUSED, URL, 0.0)
    assert one.go_on(REFUSED, "https://other.example/", 1.0) == Line.CHANGED
