"""kill -9 before and after every step of the engine: what the next relay finds is always enough.

The steps come from the engine's code (tests/support/crashing.py). A step that no run reaches lets its relay drain and
leave in peace, and the test fails: a new step needs a provocation here.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.support.application import Application
from tests.support.crashing import steps
from tests.support.processes import RelayProcess

BROKEN = "broken.event"


def _leave_suspects(app: Application) -> None:
    """Let a relay die while it sends, so that the next one finds leases that ended without a word."""
    _crash(app, "HttpSender.send:after:3")


def _refuse_broken_events(app: Application) -> None:
    """Make the database refuse deliveries of one type, and record one such event."""
    app.rows(
        "create function refuse() returns trigger language plpgsql as $$ begin"
        f" if (select type from outbox.events where seq = new.event_seq) = '{BROKEN}' then raise 'refused'; end if;"
        " return new; end $$"
    )
    app.rows("create trigger refuse before insert on outbox.deliveries for each row execute function refuse()")
    app.record(1, BROKEN)


def _fail_the_first_fan_out_of_each_connection(app: Application) -> None:
    """Make the database too busy for the first deliveries of each connection: what a session drew it keeps."""
    app.rows("create sequence seen")
    app.rows(
        "create function be_busy() returns trigger language plpgsql as $$ begin perform currval('seen'); return null;"
        " exception when object_not_in_prerequisite_state then perform nextval('seen');"
        " raise 'busy' using errcode = 'serialization_failure'; end $$"
    )
    app.rows("create trigger be_busy before insert on outbox.deliveries execute function be_busy()")


def _stop_while_busy(app: Application, relay: RelayProcess) -> None:
    """SIGTERM with one request on the wire and others waiting behind it."""
    came = len(app.receiver.received("/good"))
    app.receiver.wait_for(came + 1, "/good")
    relay.signal(signal.SIGTERM)


def _limit(app: Application) -> None:
    """Give a subscription limits that are wider than what is sent."""
    app.rows("update outbox.subscriptions set rate_limit = '500/s', max_in_flight = 20 where url like '%good'")


def _leave_parked(app: Application) -> None:
    """Let a relay die with a head and what is parked behind it, then switch order off."""
    _crash(app, "HttpSender.send:after:1")
    app.rows("update outbox.subscriptions set ordered = false")
    assert app.one("select count(*) from outbox.deliveries where due_at = 'infinity'")


def _switch_order_on(app: Application) -> None:
    """Switch order on for a subscription with a backlog."""
    _crash(app, "HttpSender.send:after:1")
    app.rows("update outbox.subscriptions set ordered = false")
    app.rows("update outbox.subscriptions set ordered = true where batch_events is null")


def _break_an_endpoint(app: Application) -> None:
    """Leave the breaker of /good open, with a probe due."""
    app.rows(
        "insert into outbox.health (subscription_id, failing_since, opened_at, probe_at, pause_seconds)"
        " select id, clock_timestamp(), clock_timestamp(), clock_timestamp(), 1 from outbox.subscriptions"
        " where url like '%/good'"
    )


def _filter(app: Application) -> None:
    """Give a subscription a filter that every event matches, and record more than one batch."""
    app.rows(
        """update outbox.subscriptions set filter = '{"payload": {"$not": {"nothing": 1}}}' where url like '%/good'"""
    )
    app.record(200)


def _switch_order_off(app: Application) -> None:
    """Let no subscription ask for order: then the server makes the deliveries of a wide event."""
    app.rows("update outbox.subscriptions set ordered = false")


_BEFORE: dict[str, Callable[[Application], None]] = {
    **dict.fromkeys(("Store.make_cells", "Store.take_slots", "Store.take_shares"), _limit),
    "Store.claim_suspect": _leave_suspects,
    "Store.claim_probes": _break_an_endpoint,
    "Store.read_subscriptions": _leave_suspects,
    "Store.find_first_pending": _refuse_broken_events,
    "Store.bury_unresolvable": _refuse_broken_events,
    "Store.release_parked": _leave_parked,
    **dict.fromkeys(("Store.await_fan_out", "Store.sort_batch", "Store.end_sorting"), _switch_order_on),
    **dict.fromkeys(("Store.find_ahead", "Store.read_filters", "Store.read_bodies"), _filter),
    **dict.fromkeys(("TakenBatch.is_plain", "TakenBatch.resolve_wide"), _switch_order_off),
    "Store.recover": _fail_the_first_fan_out_of_each_connection,
}
_WITHOUT_NEW_EVENTS = "Store.read_subscriptions:"  # fan_out would read the subscriptions first


def _crash(app: Application, point: str) -> None:
    """Run a relay until it kills itself at the point, then let its leases run out."""
    if not point.startswith(_WITHOUT_NEW_EVENTS):
        app.record(6, key="k")
        app.record_and_roll_back(2)
    if point.startswith("Store.release:"):
        app.receiver.plan("/good", "0.3:200")
        relay = app.stage.relay("--max-in-flight", "1", trap=point)
        _stop_while_busy(app, relay)
    elif point.startswith("Store.find_changed"):  # asked about what waits here when a second has passed
        app.receiver.plan("/good", "0.3:200")
        relay = app.stage.relay("--until-drained", "--max-in-flight", "1", trap=point)
    else:
        relay = app.stage.relay("--until-drained", trap=point)
    assert relay.wait() == -signal.SIGKILL, f"{point} was never reached:\n{relay.text}"
    app.expire_leases()


# tests/acceptance/test_bulk.py crashes around these: what they put back was sent before.
OF_BULK = {step for step in steps() if "_bulk" in step} - {"Store.is_bulk_running"}


@pytest.mark.parametrize("step", [step for step in steps() if step not in OF_BULK])
def test_a_kill_around_any_step_loses_nothing(app: Application, step: str) -> None:
    app.subscribe("/good")
    app.subscribe("/flaky", schedule_seconds=[0] * 5)
    app.subscribe("/ordered", schedule_seconds=[0] * 5, ordered=True)
    app.subscribe("/batches", batch_events=4, batch_milliseconds=0)
    app.receiver.plan("/flaky", "500", "200")
    app.receiver.plan("/batches", "500", "200")
    app.switch_breakers_off()
    _BEFORE.get(step, lambda _: None)(app)
    for when in ("before", "after"):
        _crash(app, f"{step}:{when}:1")
    app.stage.drain()
    app.wait_settled(1)
    app.assert_all_accounted()
    broken = {event for event, kind in app.committed.items() if kind == BROKEN}
    assert {event for _, event in app.dead()} == broken


@pytest.mark.case("E33", "F8")
@pytest.mark.parametrize("when", ["while the request is read", "while the answer is on its way"])
def test_a_kill_during_a_request_repeats_only_what_was_in_flight(app: Application, when: str) -> None:
    app.subscribe("/slow", timeout_seconds=15)
    app.receiver.plan("/slow", *(["hang", "200"] if when.startswith("while the request") else ["hold", "200"]))
    ids = app.record(10)
    relay = app.stage.running_relay()
    app.receiver.wait_for(10, "/slow")
    if when.startswith("while the answer"):
        app.receiver.release()
    relay.kill()
    app.expire_leases()
    app.stage.drain()
    verdict = app.assert_all_accounted()
    assert len(app.receiver.received()) <= 2 * len(ids)
    assert verdict.pairs == len(ids)
