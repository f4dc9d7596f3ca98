"""Whoever stops in the middle of a transaction, or has no right to it, keeps no relay from its turn or its rows."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from relay.engine.stuck_relays import TurnWait
from relay.store import turns
from relay.store.lease import new_lease
from relay.store.store import Store
from tests.integration.engine.world import World, fan_out
from tests.support.databases import as_relay
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

# Runs statements in one transaction and stops itself: with the pipeline open, between two statements, or, after
# `answer`, in the middle of an answer that it does not read.
STOPPING = """
import os, signal, sys
import psycopg
from psycopg import pq
url, how, statement = sys.argv[1:]
connection = psycopg.connect(url, autocommit=True, application_name="outbox-relay")
raw = connection.pgconn
if how == "between":
    connection.execute("begin")
    connection.execute(statement)
else:
    raw.nonblocking = 1
    raw.enter_pipeline_mode()
    raw.send_query_params(b"begin", None)
    raw.send_query_params(statement.encode(), None)
    raw.send_flush_request()
    if how == "answer":
        raw.send_query_params(b"select repeat('x', 1000000) from generate_series(1, 64)", None)
        raw.send_flush_request()
    while raw.flush():
        pass
print("sent", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""
FAN_OUT_TURN = turns.TAKE.format(turn="fan_out")
LOCK_ROWS = "select from outbox.deliveries for update"


@contextmanager
def stopped(url: str, how: str, statement: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped by SIGSTOP in a transaction that ran the statement."""
    process = subprocess.Popen([sys.executable, "-c", STOPPING, url, how, statement], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"sent\n"
        os.waitpid(process.pid, os.WUNTRACED)
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.field("F66")
@pytest.mark.parametrize("how", ["between", "pipeline", "answer"])
@pytest.mark.parametrize("statement", [FAN_OUT_TURN, LOCK_ROWS], ids=["turn", "rows"])
async def test_a_relay_stopped_in_a_transaction_is_ended_by_another(
    world: World, store: Store, how: str, statement: str
) -> None:
    world.subscribe()
    world.record()
    (birth,) = await fan_out(store)
    with stopped(as_relay(world.url), how, statement):
        await await_until(lambda: world.locks("mode in ('RowShareLock') and granted"))
        assert await turns.end_stopped(store, 3600.0) == []
        ended: list[turns.Holder] = []

        async def is_ended() -> bool:
            ended.extend(await turns.end_stopped(store, 0.2))
            return bool(ended)

        await await_until(is_ended)
        assert ended[0].application_name == "outbox-relay"
        await await_until(lambda: not world.locks("mode = 'RowShareLock'"))
        world.record()
        assert len(await fan_out(store)) == 1
        assert await store.claim([(birth.subscription_id, 9)], 9, 10**9, new_lease())


@pytest.mark.field("F91")
async def test_the_turn_needs_a_right(own_world: World) -> None:
    with own_world.open() as stranger:
        stranger.execute("set role outbox_reader")
        assert stranger.execute("select count(*) from outbox.turns").fetchone() == (69,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stranger.execute(FAN_OUT_TURN)


@pytest.mark.field("F91")
async def test_advisory_locks_of_a_stranger_stop_nothing(world: World, store: Store) -> None:
    world.subscribe()
    world.record()
    with world.open() as stranger:
        for key in (0x6F7574626F7801, 0x6F7574626F78, 31372865143011331, 31372865143011330):
            stranger.execute("select pg_advisory_lock(%s)", (key,))
        assert len(await fan_out(store)) == 1
        world.rows("select outbox.prune_resolutions('2000-01-01', 1)")


@pytest.mark.field("F91")
def test_no_statement_excludes_by_an_advisory_lock(world: World) -> None:
    """Neither the code nor a function of the schema as it is after all migrations."""
    root = Path(__file__).parents[3]
    files = [*root.glob("outbox/**/*.py"), *root.glob("relay/**/*.py")]
    assert [str(file) for file in files if re.search("pg_(try_)?advisory", file.read_text())] == []
    functions = "select proname from pg_proc where pronamespace = 'outbox'::regnamespace"
    assert len(world.rows(functions)) > 20
    assert world.rows(f"{functions} and pg_get_functiondef(oid) like '%advisory%'") == []


@pytest.mark.field("F91")
async def test_who_has_the_turn_is_known_and_logged(
    world: World, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.engine.stuck_relays.SAID_AFTER_SECONDS", 0.0)
    assert await turns.find_holder(store, "fan_out") is None
    with world.open(application_name="somebody") as other:
        other.execute(FAN_OUT_TURN)
        holder = await turns.find_holder(store, "fan_out")
        assert holder is not None
        assert (holder.pid, holder.application_name) == (other.info.backend_pid, "somebody")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await fan_out(store)
        with caplog.at_level(logging.WARNING, "relay.engine"):
            await TurnWait(store).go_on()
        assert f"the turn is with pid {holder.pid} (somebody" in caplog.text


@pytest.mark.field("F92")
async def test_twenty_locked_suspects_hold_back_no_other(world: World, store: Store) -> None:
    subscription = world.subscribe()
    world.record(count=30)
    births = await fan_out(store, leased=True)
    world.expire()
    with world.open() as other:
        oldest = (
            "select from outbox.deliveries where id in (select id from outbox.deliveries order by due_at, id limit 20)"
        )
        other.execute(f"{oldest} for update")
        rows = await store.claim_suspect([subscription], new_lease(), None)
    assert len(rows) == 1
    assert rows[0].id in {birth.id for birth in births}


@pytest.mark.field("F67")
async def test_large_bodies_of_one_subscription_leave_the_others_their_share(world: World, store: Store) -> None:
    large, small = world.subscribe("large"), world.subscribe("small")
    world.record("large", 5, payload='"' + "x" * 9_998 + '"')
    world.record("small", 2)
    await fan_out(store)
    rows = await store.claim([(large, 5), (small, 5)], 10, 10**6, new_lease(), shares=[(15_000, True), (15_000, True)])
    assert [row.subscription_id for row in rows].count(large) == 2
    assert [row.subscription_id for row in rows].count(small) == 2
