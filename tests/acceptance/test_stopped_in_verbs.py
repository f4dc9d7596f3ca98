"""A relay that stops inside a verb, between what it sends and what it reads, holds nobody else for long."""

from __future__ import annotations

import pytest

from tests.support.application import Application
from tests.support.constants import SHORT_LEASES, SHORT_STOP
from tests.support.stopping import BOUND_SECONDS, hold_nobody, received_twice
from tests.support.waiting import wait_until

LATER = "/later"


def points(verb: str, waits: int) -> list[str]:
    """Each wait of a verb for the database: before the first answer, and after each part of what it reads."""
    return [f"stop:{verb}:inside:{number + 1}" for number in range(waits)]


def leave_suspects(app: Application) -> None:
    """Let a relay die with its requests on the wire, and their leases run out."""
    relay = app.stage.relay(trap="HttpSender.send:after:1")
    relay.wait()
    app.expire_leases()


@pytest.mark.field("F66", "F92")
@pytest.mark.parametrize(
    "stops",
    [
        pytest.param(points("Store.fan_out", 3), id="fan_out", marks=pytest.mark.slow),
        pytest.param(points("Store.claim", 2), id="claim"),
        pytest.param(points("Store.claim_suspect", 2), id="claim_suspect", marks=pytest.mark.slow),
        pytest.param(points("Store.settle", 2), id="settle"),
    ],
)
def test_relays_that_stop_inside_a_verb_hold_nobody_else_for_long(app: Application, stops: list[str]) -> None:
    """Each stops in its turn, and stays so; then another one does what all of them had begun."""
    app.stage.constants = {**SHORT_STOP, **SHORT_LEASES}
    app.timeout_seconds = 1
    app.receiver.plan(LATER, "500", "200")
    app.subscribe(LATER, schedule_seconds=(0,) * 9)
    for stop in stops:
        app.record(1)
        if "suspect" in stop:
            leave_suspects(app)
        relay = app.stage.relay(trap=stop)
        relay.wait_stopped()
    app.stage.running_relay()
    late = set(app.record(3))
    wait_until(lambda: late <= received_twice(app, LATER), timeout_seconds=BOUND_SECONDS)
    app.wait_settled(60)  # what the stopped ones had leased goes out one by one: it may have ended them
    app.assert_all_accounted()


# `python -m tests.chaos stops` does this at each place of every verb and of every round of housekeeping.
@pytest.mark.slow
@pytest.mark.field("F66", "F92")
@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("Housekeeping.old events", 5),
        ("Store.claim_batches", 5),
        ("TakenBatch.resolve_wide", 1),
        ("Store.take_slots", 8),
        ("Store.make_cells", 8),
    ],
)
def test_a_relay_that_stops_at_a_place_of_its_work_holds_nobody_else_for_long(
    app: Application, step: str, number: int
) -> None:
    assert hold_nobody(app, step, number), "it was never reached"
