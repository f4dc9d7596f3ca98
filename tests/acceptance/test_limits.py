"""Limits over real processes, by the receiver's own log, and a process that is killed while it holds some of them."""

from __future__ import annotations

import psutil
import pytest

from tests.support.application import Application
from tests.support.processes import read_log
from tests.support.waiting import wait_until


def _limit(app: Application, **fields: object) -> None:
    for name, value in fields.items():
        app.rows(f"update outbox.subscriptions set {name} = '{value}'")


def _most_in_a_second(times: list[float]) -> int:
    return max(sum(first <= at < first + 1 for at in times) for first in times)


def _most_open(app: Application) -> int:
    """The most requests that the receiver had open at once, by its log."""
    most = now = 0
    for entry in read_log(app.receiver.log):
        now += {"received": 1, "answered": -1, "cut": -1, "hung up": -1}.get(entry["what"], 0)
        most = max(most, now)
    return most


@pytest.mark.slow
def test_two_processes_never_send_more_than_limit_and_burst_in_any_second(app: Application) -> None:
    app.subscribe()
    _limit(app, rate_limit="60/s", rate_burst=20)
    app.record(200)
    relay = app.stage.running_relay("--processes", "2", processes=2)
    app.wait_settled()
    assert relay.stop() == 0
    times = [entry["at"] for entry in app.receiver.received()]
    assert _most_in_a_second(times) <= 80
    assert max(times) - min(times) >= (200 - 20) / 60 - 0.2
    app.assert_each_once()


@pytest.mark.slow
def test_a_killed_process_loses_its_share_of_a_cap_until_its_requests_must_have_ended(app: Application) -> None:
    app.subscribe("/hook", timeout_seconds=1)
    _limit(app, max_in_flight=4, rate_limit="500/s")
    app.receiver.plan("/hook", "0.05:200")
    relay = app.stage.running_relay("--processes", "2", processes=2)
    app.record(60)
    app.receiver.wait_for(20)
    relay.note("killed")
    psutil.Process(min(child.pid for child in relay.children())).kill()
    relay.wait_running(3)
    app.wait_settled()
    assert relay.stop() == 0
    wait_until(lambda: app.rows("select count(*) from outbox.in_flight where ends_at > clock_timestamp()") == [(0,)])
    assert _most_open(app) <= 4
    app.assert_all_accounted()
