"""What keeps relays from writing is a finding of its own: a full disk, and whoever holds what others wait for."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from outbox.control.findings import Finding
from relay.operations.status import disk, locks
from relay.operations.status.locks import HeldLock, findings_of_locks, read_locks
from relay.operations.status.status import status
from tests.support import seeding
from tests.support.waiting import wait_until

NO_SPACE = "could not extend file: No space left on device"
FAILING = f"""insert into outbox.rounds (name, every_seconds, succeeded_at, failed_at, error)
values ('event leaves', 60, now() - interval '2 minutes', now() - interval '5 seconds', 'DiskFull: {NO_SPACE}'),
       ('statistics', 5, now() - interval '1 day', now() - interval '4 seconds', 'DiskFull: {NO_SPACE}'),
       ('erasures', 5, now(), now() - interval '1 minute', 'DiskFull: {NO_SPACE}'),
       ('removed subscriptions', 60, null, now() - interval '9 seconds', 'InsufficientPrivilege: no right')"""
FULL = "do $$ begin raise exception 'could not write to file: No space left on device' using errcode = '53100'; end $$"


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        seeding.sign_in(connection)
        yield connection


def found(connection: Connection, area: str) -> list[Finding]:
    return [one for one in status(connection, None).findings if one.code.startswith(area)]


@pytest.mark.field("F102")
def test_a_disk_that_was_full_a_moment_ago_is_named_once_for_all_rounds_and_others_apart(connection: Connection):
    connection.execute(text(FAILING))
    (one,) = found(connection, "disk.")
    assert (one.code, one.subject, one.severity) == ("disk.full", "server", "problem")
    assert one.seen == (
        f"the disk of the database's server was a moment ago full: {NO_SPACE};"
        " housekeeping: 'statistics' and 1 more cannot be done"
    )
    assert one.mend.startswith("free space on the server's disk")
    (other,) = found(connection, "rounds.failing")
    assert other.subject == "removed subscriptions"


@pytest.mark.field("F102")
def test_a_disk_that_is_full_now_is_found_by_writing_and_the_transaction_goes_on(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    assert found(connection, "disk.") == []
    monkeypatch.setattr(disk, "WRITE", text(FULL))
    (one,) = found(connection, "disk.")
    assert "is full: could not write to file: No space left on device" in one.seen
    assert connection.execute(text("select 1")).scalar_one() == 1


@pytest.mark.parametrize("is_full", [True, False])
def test_a_full_disk_is_said_of_a_relay_that_cannot_sign_and_not_that_none_was_started(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, *, is_full: bool
):
    connection.execute(text("update outbox.relays set seen_at = seen_at - interval '40 seconds'"))
    seeding.record(connection)
    if is_full:
        monkeypatch.setattr(disk, "WRITE", text(FULL))
    (none,) = found(connection, "relays.none")
    assert none.severity == ("note" if is_full else "problem")
    assert ("start `relay run`" in none.mend) is not is_full
    if is_full:
        assert re.match("no relay could write a sign of life for 4[0-9]s, since the disk is full", none.seen)
        assert status(connection, None).findings[0].code == "disk.full"


def test_the_look_at_the_disk_writes_a_file_and_leaves_no_setting_behind(connection: Connection):
    connection.execute(text("set local temp_file_limit = 0"))
    with pytest.raises(OperationalError, match="temporary file size exceeds"), connection.begin_nested():
        connection.execute(disk.WRITE)
    assert disk.full_disk(connection, None) is None  # that is no full disk
    connection.execute(text("set local temp_file_limit = -1"))
    before = connection.execute(text("show work_mem")).scalar_one()
    assert disk.full_disk(connection, None) is None
    assert connection.execute(text("show work_mem")).scalar_one() == before


def hold(connection: Connection, statement: str) -> int:
    connection.execute(text("set local application_name = 'shop'"))
    connection.execute(text(statement))
    pid: int = connection.execute(text("select pg_backend_pid()")).scalar_one()
    return pid


@pytest.mark.field("F97")
def test_who_holds_what_somebody_waits_for_is_named_by_the_end_of_the_row(
    connection: Connection, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    name = seeding.subscribe(connection)
    connection.commit()
    monkeypatch.setattr(locks, "WAITED_FOR_SECONDS", 0.0)
    touch = text("update outbox.subscriptions set description = 'x' where id = outbox.uuid_of(:name)")

    def wait(role: str) -> None:
        with engine.begin() as waiter:
            waiter.execute(text(f"set local application_name = '{role}'"))
            waiter.execute(touch, {"name": name})

    with engine.begin() as holder, engine.begin() as looking:
        holder.execute(touch, {"name": name})
        pid = hold(holder, "select 'secret' as never_shown")
        waiters = [threading.Thread(target=wait, args=(role,)) for role in ("outbox-relay", "relay command")]
        for one in waiters:
            one.start()
        waiting = text("select count(*) from pg_locks where not granted")
        wait_until(lambda: looking.execute(waiting).scalar_one() == 2)
        assert read_locks(looking, None)[0].waited_seconds is not None
        (one,) = found(looking, "locks.")
        holder.rollback()
        for thread in waiters:
            thread.join()
    assert (one.code, one.subject, one.severity) == ("locks.held", f"pid {pid}", "problem")
    assert f"server process {pid} (shop, role " in one.seen
    assert "idle in transaction" in one.seen
    assert "a lock on outbox.subscriptions that 2 sessions wait for (outbox-relay, relay command)" in one.seen
    assert "secret" not in one.seen + one.mend
    assert one.mend.endswith(f"select pg_terminate_backend({pid})")


@pytest.mark.field("F97")
@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("select from outbox.deliveries for update", True),
        ("lock table outbox.attempts in share mode", True),
        ("select outbox.record('order.created', '{}')", False),
        ("select count(*) from outbox.deliveries", False),
    ],
)
def test_who_holds_deliveries_for_long_is_named_though_relays_pass_over_them(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, statement: str, *, named: bool
):
    monkeypatch.setattr(locks, "UNASKED_SECONDS", 0.0)
    with engine.begin() as holder, engine.begin() as looking:
        pid = hold(holder, statement)
        assert [one.pid for one in read_locks(looking, None)] == [pid] * named


HELD = HeldLock(
    pid=7, role="app", application_name="", state=None, address=None, seconds=None, waiting=1, waited_seconds=12.0,
    waiters=("outbox-relay",), tables=("deliveries",),
)  # fmt: skip


def test_what_may_not_be_seen_is_left_out_and_a_prepared_transaction_ended_by_name():
    (unseen,) = findings_of_locks([HELD])
    assert unseen.seen == (
        "server process 7 (no application_name, role app) holds a lock on outbox.deliveries that 1 session waits for"
        " (outbox-relay), the first for 12s"
    )
    (prepared,) = findings_of_locks([replace(HELD, pid=0, role=None)])
    assert prepared.seen.startswith("a prepared transaction holds a lock on outbox.deliveries")
    assert "pg_prepared_xacts" in prepared.mend
