"""How a relay leaves: SIGTERM, a second SIGTERM, and --until-drained."""

from __future__ import annotations

import signal
from datetime import timedelta

import pytest

from tests.support.application import Application
from tests.support.constants import SHORT_LEASES
from tests.support.processes import RelayProcess
from tests.support.waiting import wait_until

_RELEASED = "select count(*) from outbox.deliveries where lease is null and attempts = 0"


def _draining(app: Application, *options: str) -> RelayProcess:
    """A relay that was told to stop with 4 of 20 requests on the wire, and has given back the others."""
    relay = app.stage.running_relay("--max-in-flight", "4", *options)
    app.receiver.wait_for(4)
    wait_until(lambda: not app.one("select count(*) from outbox.pending"))
    relay.signal(signal.SIGTERM)
    wait_until(lambda: app.one(_RELEASED) == 16, message="what had not begun was not given back uncharged")
    return relay


@pytest.mark.case("C22")
def test_sigterm_finishes_what_is_on_the_wire_and_gives_back_the_rest_uncharged(app: Application) -> None:
    app.subscribe("/hook", timeout_seconds=60)
    app.receiver.plan("/hook", "hold")
    app.record(20)
    relay = _draining(app)
    assert relay.alive
    app.receiver.release()
    assert relay.wait() == 0
    assert app.one("select count(*) from outbox.attempts where verdict = 'delivered'") == 4
    assert len(app.receiver.received()) == 4
    app.receiver.plan("/hook", "200")
    app.stage.drain()
    app.assert_each_once()
    assert app.one("select count(*) from outbox.attempts") == 20


def test_requests_still_out_when_the_drain_ends_are_failed_attempts(app: Application) -> None:
    app.subscribe("/hook", timeout_seconds=60, schedule_seconds=[3600])
    app.receiver.plan("/hook", "hang")
    app.record(20)
    assert _draining(app, "--drain-seconds", "1").wait() == 0
    assert app.rows("select outcome, count(*) from outbox.attempts group by 1") == [("aborted", 4)]
    assert app.one("select count(*) from outbox.deliveries where lease is null and attempts = 1") == 4


@pytest.mark.case("C22")
def test_a_second_sigterm_leaves_at_once(app: Application) -> None:
    app.subscribe("/hook", timeout_seconds=300, schedule_seconds=[3600])
    app.receiver.plan("/hook", "hang")
    app.record(20)
    relay = _draining(app, "--drain-seconds", "600")
    relay.signal(signal.SIGTERM)
    assert relay.wait(20) == 0
    assert app.rows("select outcome, count(*) from outbox.attempts group by 1") == [("aborted", 4)]


def test_until_drained_leaves_when_only_later_work_is_left(app: Application) -> None:
    app.subscribe("/now")
    app.subscribe("/failing", schedule_seconds=[3600])
    app.receiver.plan("/failing", "500")
    app.record(5)
    app.record(5, available_at=timedelta(hours=1))
    app.stage.drain()
    assert len(app.receiver.received("/now")) == 5
    assert len(app.receiver.received("/failing")) == 5
    assert app.one("select count(*) from outbox.pending") == 0
    waiting = "select count(*) from outbox.deliveries where due_at > clock_timestamp() + interval '50 minutes'"
    assert app.one(waiting) == 15


@pytest.mark.slow
def test_until_drained_waits_for_the_leases_of_a_dead_relay(app: Application) -> None:
    app.stage.constants = SHORT_LEASES
    app.subscribe("/hook", timeout_seconds=1)
    app.receiver.plan("/hook", "hang", "200")
    app.record(3)
    first = app.stage.running_relay()
    app.receiver.wait_for(3)
    first.kill()
    app.stage.drain()
    app.wait_settled(1)
    app.assert_all_accounted()
