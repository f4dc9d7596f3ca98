"""kill -9 before and after every step of the engine: what the next relay finds is always enough.

The steps come from the engine's code (tests/support/crashing.py). A step that no run reaches lets its relay drain and
leave in peace, and the test fails: a new step needs a provocation here.
"""

from __future__ import annotations

import pytest

from tests.support.application import Application
from tests.support.crashing import steps
from tests.support.provocations import BROKEN, crash, prepare, subscribe_to_everything

# tests/acceptance/test_bulk.py crashes around these: what they put back was sent before.
OF_BULK = {step for step in steps() if "_bulk" in step} - {"Store.is_bulk_running"}

# The way of an event. `pytest -m slow` has the others.
IN_THE_SUITE = {
    "Store.fan_out",
    "TakenBatch.resolve",
    "Store.claim",
    "HttpSender.send",
    "Store.settle",
    "Store.release",
}


def rows() -> list[object]:
    return [
        pytest.param(step, marks=() if step in IN_THE_SUITE else pytest.mark.slow)
        for step in steps()
        if step not in OF_BULK
    ]


def test_the_way_of_an_event_is_among_the_steps() -> None:
    assert set(steps()) >= IN_THE_SUITE


@pytest.mark.parametrize("step", rows())
def test_a_kill_around_any_step_loses_nothing(app: Application, step: str) -> None:
    subscribe_to_everything(app)
    prepare(app, step)
    for when in ("before", "after"):
        crash(app, f"{step}:{when}:1")
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
