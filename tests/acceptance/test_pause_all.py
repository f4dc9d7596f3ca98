"""The switch of all sending and cancellation, with relays as processes that are killed meanwhile."""

from __future__ import annotations

import pytest

from outbox.control import by_hand
from outbox.control.filters import Filters
from relay.operations.sending_switch import pause_all, resume_all
from tests.support.application import Application
from tests.support.processes import RelayProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.field("F103")


def until_quiet(app: Application, *relays: RelayProcess) -> int:
    """Wait until these know of the switch, all is resolved and nothing leased; return how many requests came so far."""
    for relay in relays:
        wait_until(lambda relay=relay: relay.text.count("sending is paused") == 2)
    left = "select (select count(*) from outbox.pending) + (select count(lease) from outbox.deliveries)"
    wait_until(lambda: app.one(left) == 0)
    return len(app.receiver.received())


@pytest.mark.slow
def test_no_process_sends_while_all_is_paused_and_all_goes_on_afterwards(app: Application) -> None:
    """Two relays of two processes, one of them killed while all is paused and started again."""
    app.subscribe("/one")
    app.subscribe("/two")
    first = app.stage.running_relay("--processes", "2", processes=2)
    second = app.stage.running_relay("--processes", "2", processes=2)
    for _ in range(20):
        app.record(20)
    with app.engine.begin() as connection:
        pause_all(connection, None, "wrong prices")
    app.record(20)
    sent = until_quiet(app, first, second)
    first.kill()
    again = app.stage.running_relay("--processes", "2", processes=2)
    app.record(20)
    assert until_quiet(app, again) == sent, "they looked for work, since they resolved events, and sent none"
    assert app.one("select count(*) from outbox.deliveries where attempts > 0") == 0, "nothing is charged"
    with app.engine.begin() as connection:
        resume_all(connection, None)
    app.wait_settled()
    assert again.stop() == 0
    app.assert_each_once()
    assert app.one("select count(*) from outbox.attempts") == len(app.committed) * 2


def test_what_is_cancelled_comes_back_neither_by_a_crash_nor_by_a_late_answer(app: Application) -> None:
    app.subscribe("/hook", timeout_seconds=60)
    app.receiver.plan("/hook", "hold")
    relay = app.stage.running_relay()
    app.record(6)
    app.receiver.wait_for(6)
    with app.engine.begin() as connection:
        found = by_hand.outstanding_by_filter(connection, None, Filters(type="*", limit=100))
        done = by_hand.cancel(connection, None, found)
    assert len(done.leased) == 6
    for request in app.receiver.received()[:3]:
        app.receiver.release(200, request=request["request"])
    wait_until(lambda: app.one("select count(*) from outbox.attempts where verdict = 'delivered'") == 3)
    relay.kill()
    app.stage.drain()
    verdict = app.assert_all_accounted()
    assert (verdict.cancelled, len(app.receiver.received()), verdict.dead) == (3, 6, 0)
