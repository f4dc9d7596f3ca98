"""A receiver that bans the address that we send from: every relay holds its webhooks back, whichever was told."""

from __future__ import annotations

import signal
import time
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

from tests.support.application import Application
from tests.support.processes import RelayProcess
from tests.support.proxies import proxying
from tests.support.waiting import wait_until

QUIET_SECONDS = 1.0
ATTEMPTED = "select count(*) from outbox.attempts where status = 429"
UNTOUCHED = "select count(*) from outbox.deliveries where attempts = 0 and lease is null"


def test_a_ban_of_the_address_holds_the_webhooks_of_discord_in_every_relay(app: Application) -> None:
    here = f"127.0.0.1:{urlsplit(app.receiver.url('/')).port}"
    leading_here = proxying("http", hosts={"discord.com": here, "ptb.discord.com": here})
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(leading_here) as proxy:
        hold_in_every_relay(app, proxy.url)


def hold_in_every_relay(app: Application, proxy_url: str) -> None:
    app.subscribe("/banned", "first.one", format="discord")
    app.subscribe("/other", "all.others", format="discord")
    app.subscribe("/plain", "all.others")
    app.receiver.plan("/banned", "429")  # without JSON: Discord's ban
    for host, path in (("discord.com", "/banned"), ("ptb.discord.com", "/other")):
        app.rows(
            "update outbox.subscriptions set url = :url where url like '%' || :path",
            url=f"http://{host}{path}",
            path=path,
        )
    relays = [app.stage.running_relay("--egress-proxy", proxy_url) for _ in range(2)]
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
