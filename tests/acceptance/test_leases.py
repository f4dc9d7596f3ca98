"""A relay that is stopped past its leases and wakes up: its success counts, its failure does not; two relays."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from relay.store.turns import STOPPED_SECONDS
from tests.support.application import Application
from tests.support.constants import SHORT_LEASES
from tests.support.processes import RelayProcess
from tests.support.waiting import wait_until

_LEASE = "select lease from outbox.deliveries"
_LONG = [3600]
HELD_UP = STOPPED_SECONDS + 20  # a relay that was stopped in a transaction keeps for so long what that has locked
ATTEMPT_SECONDS = 2


def _stopped_while_sending(app: Application) -> RelayProcess:
    """A relay under SIGSTOP whose request the receiver holds, and whose lease has run out."""
    first = app.stage.running_relay()
    app.receiver.wait_for(1)
    first.signal(signal.SIGSTOP)
    app.expire_leases()
    return first


@pytest.mark.case("F7")
@pytest.mark.parametrize("schedule", [_LONG, []], ids=["another relay will retry", "another relay buried it"])
def test_a_late_success_counts_whatever_happened_meanwhile(app: Application, schedule: list[int]) -> None:
    app.subscribe("/hook", timeout_seconds=60, schedule_seconds=schedule)
    app.receiver.plan("/hook", "hold", "500")
    app.record(1)
    first = _stopped_while_sending(app)
    app.stage.running_relay()
    wait_until(lambda: app.rows("select from outbox.attempts where outcome = 'http_5xx'"), timeout_seconds=HELD_UP)
    assert bool(app.dead()) == (not schedule)
    app.receiver.release(200)
    first.signal(signal.SIGCONT)
    app.wait_settled()
    wait_until(lambda: not app.dead(), message="the dead letter of a delivered event did not rise")
    assert app.rows("select verdict from outbox.attempts order by at")[-1] == ("delivered",)
    assert len(app.receiver.received()) == 2


@pytest.mark.case("F7")
def test_a_late_failure_does_not_touch_the_next_holders_lease(app: Application) -> None:
    app.subscribe("/hook", timeout_seconds=60, schedule_seconds=[])
    app.receiver.plan("/hook", "hold")
    app.record(1)
    first = _stopped_while_sending(app)
    app.stage.running_relay()
    _, second_request = app.receiver.wait_for(2, timeout_seconds=HELD_UP)
    lease = app.one(_LEASE)
    app.receiver.release(500, request=1)
    first.signal(signal.SIGCONT)
    wait_until(lambda: app.rows("select from outbox.attempts where outcome = 'http_5xx'"))
    assert app.one(_LEASE) == lease
    assert not app.dead()
    app.receiver.release(200, request=second_request["request"])
    app.wait_settled()
    assert not app.dead()


@pytest.mark.slow
@pytest.mark.case("F7")
def test_a_relay_stopped_past_real_leases_gives_back_what_it_had_not_sent(app: Application) -> None:
    app.stage.constants = SHORT_LEASES
    app.subscribe("/hook", timeout_seconds=1, schedule_seconds=[0] * 5)
    app.receiver.plan("/hook", "0.1:200")
    app.record(30)
    first = app.stage.running_relay("--max-in-flight", "2")
    app.receiver.wait_for(2)
    first.suspend()
    second = app.stage.running_relay()
    app.wait_settled()
    first.signal(signal.SIGCONT)
    assert first.stop() == 0
    assert second.stop() == 0
    app.assert_all_accounted()


def _stand_still_past_the_timeout(relay: RelayProcess, meanwhile: Callable[[], None]) -> None:
    """SIGSTOP until well after an attempt must have ended; then SIGCONT."""
    relay.suspend()
    over = time.monotonic() + ATTEMPT_SECONDS + 1.5
    meanwhile()
    wait_until(lambda: time.monotonic() > over)
    relay.signal(signal.SIGCONT)


def test_an_attempt_that_ended_while_its_relay_stood_still_is_not_charged(app: Application) -> None:
    """Its schedule allows one attempt: charged, it would be dead."""
    app.subscribe("/hook", timeout_seconds=ATTEMPT_SECONDS, schedule_seconds=[])
    app.receiver.plan("/hook", "hold", "200")
    app.record(1)
    relay = app.stage.running_relay()
    app.receiver.wait_for(1)
    _stand_still_past_the_timeout(relay, lambda: None)
    app.wait_settled()
    told = app.rows("select number, outcome, verdict from outbox.attempts order by at")
    assert told == [(1, "stood_still", "retry"), (1, "delivered", "delivered")]
    assert not app.dead()
    assert app.one("select count(*) from outbox.health") == 0, "the endpoint is not blamed"


def test_an_answer_that_came_while_its_relay_stood_still_counts(app: Application) -> None:
    app.subscribe("/hook", timeout_seconds=ATTEMPT_SECONDS, schedule_seconds=[])
    app.receiver.plan("/hook", "hold", "500")
    app.record(1)
    relay = app.stage.running_relay()
    app.receiver.wait_for(1)
    _stand_still_past_the_timeout(relay, app.receiver.release)
    app.wait_settled()
    assert app.rows("select number, outcome from outbox.attempts") == [(1, "delivered")]


def test_two_relays_without_a_fault_send_nothing_twice(app: Application) -> None:
    app.subscribe("/one")
    app.subscribe("/two")
    relays = [app.stage.running_relay() for _ in range(2)]
    for _ in range(20):
        app.record(25)
        app.record_and_roll_back(5)
    app.wait_settled()
    assert [relay.stop() for relay in relays] == [0, 0]
    app.assert_each_once()
    assert app.one("select count(*) from outbox.attempts") == 1000
