"""The database goes away, comes back, and cuts connections, while events are written and delivered."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import psycopg
import pytest

from relay.local.embedded import EmbeddedServer
from tests.support.application import Application
from tests.support.processes import RelayProcess, WriterProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.xdist_group("killable database")

_TERMINATE = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)


def _finish(app: Application, relay: RelayProcess, writer: WriterProcess) -> None:
    """Let the writer and the relay end, and what was cut off in a commit be found by the next relay."""
    writer.finish()
    app.take_over(writer)
    wait_until(lambda: len(app.receiver.received()) >= len(app.committed) * 0.9)
    assert relay.stop() == 0
    app.expire_leases()
    app.stage.drain()
    app.wait_settled(1)
    app.assert_each_once()


@pytest.mark.case("F1")
def test_cut_connections_neither_lose_nor_repeat(app: Application) -> None:
    app.subscribe()
    relay = app.stage.running_relay()
    writer = app.stage.writer("--events", 300, "--per-second", 150)
    cuts = 0
    with psycopg.connect(app.stage.database_url, autocommit=True) as connection:
        while writer.alive:
            cuts += connection.execute(_TERMINATE).rowcount
            time.sleep(0.1)
    assert cuts >= 5
    _finish(app, relay, writer)


def _crash(server: EmbeddedServer) -> None:
    server.kill()
    server.start()


@pytest.mark.slow
@pytest.mark.parametrize("restart", [_crash, EmbeddedServer.restart], ids=["crash", "fast stop"])
def test_a_server_that_comes_back_neither_loses_nor_repeats(
    killable_app: Application, killable: EmbeddedServer, restart: Callable[[EmbeddedServer], None]
) -> None:
    app = killable_app
    app.subscribe()
    relay = app.stage.running_relay()
    writer = app.stage.writer("--events", 300, "--per-second", 150)
    wait_until(lambda: writer.committed() >= 75)
    restart(killable)
    _finish(app, relay, writer)


@pytest.mark.slow
@pytest.mark.case("C3", "F4")
def test_an_outage_costs_little_and_answers_are_settled_from_memory(
    killable_app: Application, killable: EmbeddedServer
) -> None:
    app = killable_app
    app.subscribe("/hook", timeout_seconds=60)
    app.receiver.plan("/hook", "hold")
    app.record(10)
    relay = app.stage.running_relay()
    app.receiver.wait_for(10)
    killable.kill()
    app.receiver.release()
    began, cpu = time.monotonic(), _cpu_seconds(relay)
    wait_until(lambda: "away for 10" in relay.text or "away for 11" in relay.text, timeout_seconds=20)
    spent, lasted = _cpu_seconds(relay) - cpu, time.monotonic() - began
    assert spent < 0.05 * lasted
    assert relay.text.count(" relay.database: ") == 2, relay.text
    killable.start()
    app.wait_settled()
    app.receiver.plan("/hook", "200")
    app.record(1)
    app.receiver.wait_for(11)
    assert relay.stop() == 0
    app.assert_each_once()
    assert app.one("select count(*) from outbox.attempts") == 11


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["gone", "frozen"])
def test_a_second_sigterm_leaves_at_once_without_the_database(
    killable_app: Application, killable: EmbeddedServer, fault: str
) -> None:
    app = killable_app
    app.subscribe("/hook", timeout_seconds=60)
    app.receiver.plan("/hook", "hold")
    app.record(3)
    relay = app.stage.running_relay("--drain-seconds", "600")
    app.receiver.wait_for(3)
    with _gone(killable) if fault == "gone" else _frozen(killable):
        app.receiver.release()
        relay.signal(signal.SIGTERM)
        wait_until(lambda: not relay.has_pending(signal.SIGTERM))  # two signals at once are one
        relay.signal(signal.SIGTERM)
        assert relay.wait(20) in (0, 1)


@pytest.mark.slow
@pytest.mark.field("F99")
def test_a_database_that_hangs_is_said_and_does_not_hold_up_the_drain(
    killable_app: Application, killable: EmbeddedServer
) -> None:
    app = killable_app
    app.subscribe("/hook", timeout_seconds=60)
    app.receiver.plan("/hook", "hold")
    app.record(3)
    relay = app.stage.running_relay("--drain-seconds", "25")
    app.receiver.wait_for(3)
    with _frozen(killable):
        wait_until(lambda: "database: slow: " in relay.text)
        app.receiver.release()
        began = time.monotonic()
        relay.signal(signal.SIGTERM)
        assert relay.wait(40) == 0
        assert time.monotonic() - began < 20, "it waited for the database"
        assert "3 results could not be settled" in relay.text


@contextmanager
def _gone(server: EmbeddedServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def _frozen(server: EmbeddedServer) -> Iterator[None]:
    """A server that accepts connections in the kernel and never answers."""
    postmaster = psutil.Process(server.pid)
    postmaster.suspend()  # first, so that it makes no other child meanwhile
    frozen = [postmaster, *postmaster.children()]
    for process in frozen[1:]:
        process.suspend()
    try:
        yield
    finally:
        for process in frozen:
            process.resume()


def _cpu_seconds(relay: RelayProcess) -> float:
    times = psutil.Process(relay.pid).cpu_times()
    return float(times.user + times.system)


def test_the_incident_log_is_what_explains_repeats(killable_app: Application) -> None:
    app = killable_app
    app.subscribe()
    app.record(1)
    app.stage.drain()
    receipt = app.receiver.received()[0]
    with app.receiver.log.open("a") as log:  # as if the receiver had seen it twice, without any fault
        log.write(json.dumps(receipt | {"request": 99}) + "\n")
    assert not app.reconcile().clean
