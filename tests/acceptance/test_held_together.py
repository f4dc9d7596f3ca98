"""A receiver that bans the address that we send from: every relay holds its webhooks back, whichever was told."""

from __future__ import annotations

import signal
import time

from tests.support.application import Application
from tests.support.processes import RelayProcess
from tests.support.waiting import wait_until

QUIET_SECONDS = 1.0
ATTEMPTED = "select count(*) from outbox.attempts where status = 429"
UNTOUCHED = "select count(*) from outbox.deliveries where attempts = 0 and lease is null"


def test_a_ban_of_the_address_holds_the_webhooks_of_a_host_in_every_relay(app: Application) -> None:
    app.subscribe("/banned", "first.one", format="discord")
    app.subscribe("/other", "all.others", format="discord")
    app.subscribe("/plain", "all.others")
    app.receiver.plan("/banned", "429")  # without JSON: Discord's ban
    relays = [app.stage.running_relay(), app.stage.running_relay()]
    app.record(1, "all.others")
    app.receiver.wait_for(1, "/other")
    app.record(1, "first.one")
    wait_until(lambda: app.one(ATTEMPTED) == 1)
    time.sleep(QUIET_SECONDS)  # until a relay has looked at what changed
    for alone, other in (relays, reversed(relays)):
        with_plain_ones_arriving(app, alone, other)
    assert len(app.receiver.received("/banned")) == 1
    assert len(app.receiver.received("/other")) == 1
    wait_until(lambda: app.one(UNTOUCHED) == 6, message="what waits is not charged")


def with_plain_ones_arriving(app: Application, alone: RelayProcess, other: RelayProcess) -> None:
    """Record for both kinds while one relay is there alone; wait until the plain ones came, and a while longer."""
    came = len(app.receiver.received("/plain"))
    other.suspend()
    app.record(3, "all.others")
    app.receiver.wait_for(came + 3, "/plain")
    time.sleep(QUIET_SECONDS)
    other.signal(signal.SIGCONT)
    assert alone.alive
