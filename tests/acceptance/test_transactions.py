"""An open application transaction never blocks the relay, nor a stopped relay the application; and PgBouncer."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

import outbox
from relay.local.embedded import free_port
from tests.support.application import Application
from tests.support.constants import SHORT_LEASES, SHORT_STOP
from tests.support.reconcile import AT_A_STOP
from tests.support.waiting import wait_until

_IMPATIENT = """
do $$ begin execute format('alter database %I set lock_timeout = ''3s''', current_database()); end $$
"""


@pytest.mark.case("A32")
def test_an_open_transaction_that_recorded_and_subscribed_blocks_nothing(app: Application) -> None:
    app.subscribe("/old")
    app.stage.running_relay()
    with app.engine.connect() as open_transaction:
        event = outbox.record(open_transaction, "order.placed", {})
        url, secret = app.receiver.url("/new"), app.receiver.secret
        new = outbox.subscribe(open_transaction, url, ["*"], secret=secret)
        meanwhile = app.record(20)
        app.wait_settled()
        assert {entry["id"] for entry in app.receiver.received("/old")} == set(meanwhile)
        open_transaction.commit()
    wait_until(lambda: event.id in {entry["id"] for entry in app.receiver.received("/new")})
    app.wait_settled()
    assert event.id in {entry["id"] for entry in app.receiver.received("/old")}
    assert {entry["id"] for entry in app.receiver.received("/new")} == {event.id}
    assert app.one("select count(*) from outbox.subscriptions where id = outbox.uuid_of(:id)", id=new.id) == 1


@pytest.mark.parametrize("point", ["TakenBatch.resolve:before:1", "Store.settle:before:1"])
def test_a_relay_stopped_anywhere_never_blocks_the_application(app: Application, point: str) -> None:
    app.subscribe("/old")
    app.record(3)
    relay = app.stage.relay(trap=f"stop:{point}")
    relay.wait_stopped()
    app.rows(_IMPATIENT)
    app.record(3)
    app.subscribe("/new")
    late = app.record(3)
    relay.signal(signal.SIGCONT)
    app.wait_settled()
    assert {entry["id"] for entry in app.receiver.received("/old")} == set(app.committed)
    assert set(late) <= {entry["id"] for entry in app.receiver.received("/new")}
    assert relay.stop() == 0


def _stop_in_transaction(app: Application, fan_out: int, done: Callable[[], bool]) -> None:
    """Let a relay stop inside its n-th fan_out, each recorded when the one before is `done`; start another relay."""
    app.stage.constants = SHORT_STOP
    app.subscribe()
    relay = app.stage.relay(trap=f"stop:TakenBatch.resolve:before:{fan_out}")
    for _ in range(fan_out):
        app.record(3)
        wait_until(lambda: app.stage.incidents.exists() or done())
    relay.wait_stopped()
    app.stage.running_relay()
    app.record(3)
    app.wait_settled(30)


@pytest.mark.slow
@pytest.mark.parametrize("fan_out", [1, 2], ids=["the first", "a later"])
def test_a_relay_stopped_in_its_transaction_does_not_stop_the_other_relay(app: Application, fan_out: int) -> None:
    _stop_in_transaction(app, fan_out, done=app.is_settled)
    app.assert_each_once()


@pytest.mark.slow
def test_a_relay_stopped_in_its_transaction_may_leave_answers_unsettled(app: Application) -> None:
    """The next events come as soon as the first have arrived: what is answered may not be settled by then."""
    _stop_in_transaction(app, 2, done=lambda: len(app.receiver.received()) == 3)
    verdict = app.assert_all_accounted()
    assert set(verdict.duplicates) <= {AT_A_STOP}
    assert verdict.duplicates[AT_A_STOP] <= 3


def test_what_a_relay_had_not_settled_when_it_was_stopped_is_sent_again(app: Application) -> None:
    app.stage.constants = SHORT_LEASES
    app.timeout_seconds = 1
    app.subscribe()
    relay = app.stage.relay(trap="stop:Store.settle:before:1")
    app.record(1)
    relay.wait_stopped()
    app.stage.running_relay()
    app.wait_settled(30)
    verdict = app.assert_all_accounted()
    assert dict(verdict.duplicates) == {AT_A_STOP: 1}


@pytest.mark.case("C9")
def test_it_works_through_pgbouncer_in_transaction_mode(app: Application, tmp_path: Path) -> None:
    app.subscribe("/one")
    app.subscribe("/two")
    app.receiver.plan("/two", "500", "200")
    app.switch_breakers_off()
    with _pgbouncer(app.stage.database_url, tmp_path) as url:
        relays = [app.stage.relay(database_url=url) for _ in range(2)]
        for relay in relays:
            relay.wait_running()
        for _ in range(10):
            app.record(20)
        app.wait_settled()
        assert [relay.stop() for relay in relays] == [0, 0]
    verdict = app.assert_all_accounted()
    assert dict(verdict.duplicates) == {"answered with a failure": 200}


@contextmanager
def _pgbouncer(database_url: str, directory: Path) -> Iterator[str]:
    """Yield the URL of the same database behind a PgBouncer in transaction mode with a pool of three."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("no pgbouncer on this machine: apt-get install pgbouncer")
    url = make_url(database_url)
    port = free_port()
    target = f"host={url.host} port={url.port} dbname={url.database} user={url.username} password={url.password or ''}"
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\npooled = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        "unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
    )
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
    with (directory / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([program, *as_nobody, str(configuration)], stderr=log, start_new_session=True)
    try:
        wait_until(lambda: _listens(port), message="pgbouncer does not listen")
        yield f"postgresql://anybody@127.0.0.1:{port}/pooled"
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
