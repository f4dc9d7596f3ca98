"""An erasure whose command is killed goes on in a relay, and one whose relay is killed goes on in another."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from relay.operations.erase.erasure import receipt_of, request_erasure, show_erasure
from relay.operations.erase.request import EraseRequest
from tests.support.application import Application
from tests.support.waiting import wait_until

EVENTS = 60_000
STATE = "select state from outbox.erasures"


def history(app: Application) -> None:
    """Events of which every second one is about customer 42, done long ago."""
    app.rows(
        "insert into outbox.events (type, payload) select 'order.placed',"
        " json_build_object('customer', json_build_object('id', 42 + n % 2))::text from generate_series(1, :n) n",
        n=EVENTS,
    )
    app.rows("truncate outbox.pending")


@pytest.mark.slow
def test_when_the_command_is_killed_a_relay_goes_on(app: Application) -> None:
    history(app)
    arguments = ["erase", "subject", "customer.id=42", "--yes", "--database-url", app.stage.database_url]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-m", "relay", *arguments], **quiet) as command:  # type: ignore[call-overload]
        wait_until(lambda: bool(app.rows("select from outbox.erasures where phase = 'events' and after_seq > 0")))
        command.send_signal(signal.SIGKILL)
    assert app.one(STATE) == "running"
    assert 0 < app.one("select count(*) from outbox.events where payload like '%: 42}%'") < EVENTS / 2
    app.stage.running_relay()
    wait_until(lambda: app.one(STATE) == "done", timeout_seconds=60)
    assert app.one("select count(*) from outbox.events where payload like '%: 42}%'") == 0
    assert app.one("select count(*) from outbox.events") == EVENTS / 2
    with app.engine.begin() as connection:
        receipt = receipt_of(show_erasure(connection, None, str(app.one("select id::text from outbox.erasures"))))
    assert receipt.counts["events deleted"] == EVENTS / 2


@pytest.mark.slow
def test_when_the_relay_at_work_is_killed_another_goes_on(app: Application) -> None:
    history(app)
    with app.engine.begin() as connection:
        request_erasure(connection, None, EraseRequest(kind="subject", path="customer.id", value="42"))
    first = app.stage.running_relay()
    wait_until(lambda: app.one("select after_seq from outbox.erasures") > 0 or app.one(STATE) == "done")
    first.kill()
    app.stage.running_relay()
    wait_until(lambda: app.one(STATE) == "done", timeout_seconds=60)
    assert app.one("select count(*) from outbox.events") == EVENTS / 2
    assert app.one("select (counts ->> 'events deleted')::int from outbox.erasures") == EVENTS / 2
