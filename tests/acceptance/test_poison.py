"""An event that ends the process that sends it is buried after its lone crashes, and takes no neighbour along."""

from __future__ import annotations

import signal

import pytest

from relay.store.suspects import MAX_CRASHES
from tests.support.application import Application


@pytest.mark.case("F9")
def test_a_poison_event_is_buried_and_its_neighbours_are_delivered(app: Application) -> None:
    app.subscribe("/one")
    app.subscribe("/two", "order.placed")
    app.record(4)
    (poison,) = app.record(1, "poison.pill")
    app.record(4)
    crashes = 0
    while (code := (relay := app.stage.relay("--until-drained", trap="poison:poison.pill")).wait()) != 0:
        assert code == -signal.SIGKILL, relay.text
        crashes += 1
        assert crashes <= MAX_CRASHES + 1, "the poison event is sent for ever"
        app.record(2)
        app.expire_leases()
    assert crashes == MAX_CRASHES + 1
    app.wait_settled(1)
    assert app.dead() == {("/one", poison): "crash"}
    app.assert_all_accounted()
