"""From PostgreSQL to PostgreSQL, with kill -9 on both sides: each event is acted upon once, and each id kept once."""

from __future__ import annotations

from tests.support.application import Application
from tests.support.receiving_side import POINTS, receiving_side
from tests.support.waiting import wait_until

EVENTS = 400
CRASHES = 6


def test_each_event_is_acted_upon_once_whatever_is_killed(app: Application, server_url: str) -> None:
    with receiving_side(app.stage.directory, server_url) as side:
        app.switch_breakers_off()
        side.subscribe(app, timeout_seconds=5, schedule_seconds=[1] * 10 + [5] * 10)
        committed = app.record(EVENTS)
        app.record_and_roll_back(20)
        relay = app.stage.running_relay()
        for crash in range(CRASHES):
            side.start(crash_after=EVENTS // (CRASHES * 2))
            wait_until(lambda: not side.alive, message="the receiver did not come to its end")
            if crash % len(POINTS) == 1:
                relay.kill()
                app.expire_leases()
                relay = app.stage.running_relay()
        side.start()
        app.wait_settled()
        assert side.broken(committed) == {}
        assert app.dead() == {}
        assert side.outcomes()["duplicate"] >= 1, "no answer was lost after a commit: the kills showed nothing"
