"""A failover rehearsed: application, relay and receiver go on, and only what the standby never heard of is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import outbox
from tests.support import databases
from tests.support.application import Application, staged
from tests.support.processes import ReceiverProcess, RelayProcess
from tests.support.replication import Pair, pair
from tests.support.waiting import wait_until


@pytest.fixture
def servers() -> Iterator[Pair]:
    with pair() as made:
        yield made


@pytest.fixture
def app(tmp_path: Path, servers: Pair, receiver_process: ReceiverProcess) -> Iterator[Application]:
    """An application that knows both servers by one URL."""
    with psycopg.connect(servers.first.url(), autocommit=True) as connection:
        connection.execute("create database shop")
    databases.migrate(servers.first.url("shop"))
    with staged(tmp_path, servers.urls("shop")[0], receiver_process) as app:
        yield app


def start(app: Application, servers: Pair) -> RelayProcess:
    relay = app.stage.relay(database_url=servers.urls("shop")[1])
    relay.wait_running()
    return relay


def arrived(app: Application, path: str) -> set[str]:
    return {entry["id"] for entry in app.receiver.received(path)}


def record_when_possible(app: Application, count: int) -> set[str]:
    """Record as an application does that tries again while its database is away."""
    recorded: list[str] = []

    def done() -> bool:
        try:
            recorded.extend(app.record(count))
        except Exception as error:  # of the driver or of SQLAlchemy: the connection failed
            assert "connect" in str(error) or "terminat" in str(error) or "read-only" in str(error), error
            return False
        return True

    wait_until(done, timeout_seconds=30)
    return set(recorded)


@pytest.mark.field("F60", "F61")
def test_the_primary_is_killed_and_the_standby_promoted(app: Application, servers: Pair) -> None:
    """Changes of which the standby never heard, three of the URL and a pause, must not stay in the relay's memory."""
    subscription = app.subscribe("/known")
    before = set(app.record(10))
    relay = start(app, servers)
    wait_until(lambda: arrived(app, "/known") == before)
    app.wait_settled()
    servers.wait_replayed()
    servers.cut()
    with app.engine.begin() as connection:
        for path in ("/second", "/third", "/unheard"):
            outbox.subscriptions.update(connection, subscription, url=app.receiver.url(path))
    unheard = set(app.record(5))
    wait_until(lambda: arrived(app, "/unheard") == unheard)
    with app.engine.begin() as connection:
        outbox.subscriptions.pause(connection, subscription)
    servers.first.kill()
    servers.promote()
    after = record_when_possible(app, 10)
    wait_until(lambda: after <= arrived(app, "/known"), timeout_seconds=30)
    app.wait_settled()
    assert arrived(app, "/known") == before | after
    assert arrived(app, "/unheard") == unheard
    assert relay.alive
    assert relay.stop() == 0


@pytest.mark.field("F61")
def test_the_primary_is_demoted_while_answers_are_awaited(app: Application, servers: Pair) -> None:
    """What is on the wire meanwhile is settled on the new primary, and not sent again."""
    app.subscribe("/held", timeout_seconds=60)
    app.receiver.plan("/held", "hold", "200")
    held = set(app.record(3))
    relay = start(app, servers)
    app.receiver.wait_for(3, "/held")
    servers.wait_replayed()
    servers.first.stop()
    servers.promote()
    (servers.first.directory / "data" / "standby.signal").touch()
    servers.first.start()  # as a standby under the address that the relay asks first
    app.receiver.release()
    after = record_when_possible(app, 5)
    wait_until(lambda: after <= arrived(app, "/held"), timeout_seconds=30)
    app.receiver.release()
    app.wait_settled()
    assert sorted(entry["id"] for entry in app.receiver.received("/held")) == sorted(held | after)
    assert relay.alive
    assert relay.stop() == 0
