"""The sweep: what no hint told of is found by a rotating look at all subscriptions."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import pytest

from relay.engine import sweep
from relay.store.store import Store
from relay.store.suspects import SUSPECTS_AMONG
from tests.integration.engine.world import FarEnd, World, fan_out, running, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio


async def test_rows_due_long_ago_are_found(world: World, far_end: FarEnd, store: Store) -> None:
    """As another relay left them, or a person put them there by hand."""
    world.subscribe()
    async with running(world.url, far_end) as relay:
        await await_until(lambda: relay.feeder.steps > 0)
        world.record(count=3)
        await await_until(lambda: world.count("attempts") == 3)
        (subscription,) = world.rows("select id from outbox.subscriptions")[0]
        world.rows(
            "insert into outbox.deliveries (id, event_seq, subscription_id, due_at)"
            " select outbox.uuid7(), seq, %s, now() - interval '1 day' from outbox.events",
            subscription,
        )
        await await_until(lambda: world.count("attempts") == 6)


async def test_what_fell_due_before_this_process_began_is_found(world: World, far_end: FarEnd, store: Store) -> None:
    world.subscribe()
    world.record(count=3)
    await fan_out(store)
    world.rows("update outbox.deliveries set due_at = now() - interval '1 day'")
    async with running(world.url, far_end):
        await await_until(lambda: world.count("attempts") == 3)


async def test_it_rotates_over_more_subscriptions_than_it_looks_at(world: World, far_end: FarEnd) -> None:
    world.rows(
        "insert into outbox.subscriptions (url, types)"
        " select 'http://127.0.0.1/', '{none}' from generate_series(1, 1200)"
    )
    last = UUID("ffffffff-ffff-7fff-bfff-ffffffffffff")
    world.rows(
        "insert into outbox.subscriptions (id, url, types) values (%s, 'http://127.0.0.1/', '{none}')",
        last,
    )
    world.rows(
        "insert into outbox.deliveries (id, event_seq, subscription_id, due_at)"
        " values (outbox.uuid7(), 1, %s, now() - interval '1 day')",
        last,
    )
    async with stepping(world.url, far_end) as relay:
        looks = 0
        while not relay.feeder.due:
            await relay.feeder.sweep.run()
            looks += 1
        assert looks == 3
        assert list(relay.feeder.due) == [last.bytes]
        for _ in range(3):
            await relay.feeder.sweep.run()
        assert relay.feeder.sweep.position == bytes(16), "it begins again"


async def test_where_a_look_at_what_is_due_is_slow_the_next_sweeps_do_all_but_that(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a held snapshot. Every look counts as slow here, and the pause after it is long."""
    monkeypatch.setattr(sweep, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(sweep, "LOOK_SHARE", 1_000_000)
    subscription = world.subscribe()
    async with stepping(world.url, far_end) as relay:
        world.record()
        await relay.look()
        await await_until(lambda: world.count("attempts") == 1)
        await relay.feeder.sweep.run()  # slow, and so was the one before
        world.rows(
            "insert into outbox.deliveries (id, event_seq, subscription_id, due_at)"
            " select outbox.uuid7(), seq, %s, now() - interval '1 day' from outbox.events",
            uuid_of(subscription),
        )
        world.rows("update outbox.subscriptions set timeout_seconds = 7")
        for _ in range(3):
            await relay.feeder.sweep.run()
        endpoint = relay.endpoints.get(subscription)
        assert endpoint is not None
        assert endpoint.subscription.timeout_seconds == 7
        assert not relay.feeder.due
        relay.feeder.sweep.look_at = 0.0  # the pause is over
        await relay.feeder.sweep.run()
        assert subscription in relay.feeder.due


async def test_a_look_that_waited_for_a_lock_delays_no_other(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LOOK_SHARE", 1_000_000)
    subscription = world.subscribe()
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        with world.open() as other:
            other.execute("lock table outbox.deliveries in access exclusive mode")
            look = asyncio.create_task(relay.feeder.sweep.run())
            await await_until(lambda: world.locks("not granted") == 1)
            await asyncio.sleep(2 * sweep.SLOW_SECONDS)
            other.rollback()
            await look
        world.record()
        await fan_out(relay.engine.settle_store)
        await relay.feeder.sweep.run()
        assert subscription in relay.feeder.due


async def test_another_database_is_looked_at_at_once(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(sweep, "LOOK_SHARE", 1_000_000)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.feeder.sweep.run()
        assert relay.feeder.sweep.look_at > time.monotonic()
        relay.feeder.sweep.restart()
        assert relay.feeder.sweep.look_at <= time.monotonic()


async def test_due_rows_behind_many_suspects_are_found(world: World, store: Store) -> None:
    """The oldest rows alone do not tell of them."""
    subscription = world.subscribe()
    world.record(count=SUSPECTS_AMONG + 1)
    await fan_out(store, leased=True)
    world.expire()
    world.rows(
        "update outbox.deliveries set lease = null, due_at = now() where id = ("
        " select id from outbox.deliveries order by due_at desc, id desc limit 1)"
    )
    assert [row[:3] for row in await store.sweep(bytes(16), 500)] == [(subscription, True, True)]


async def test_paused_and_removed_subscriptions_are_not_looked_at(world: World, store: Store) -> None:
    paused, removed, active = (world.subscribe() for _ in range(3))
    world.record()
    await fan_out(store)
    world.rows("update outbox.subscriptions set paused_at = now() where id = %s", uuid_of(paused))
    world.rows("update outbox.subscriptions set removed_at = now() where id = %s", uuid_of(removed))
    assert [row[:3] for row in await store.sweep(bytes(16), 500)] == [(active, True, False)]


async def test_it_tells_due_rows_from_suspects_and_from_what_waits(world: World, store: Store) -> None:
    due, suspect, leased, waiting = (world.subscribe(name) for name in ("due", "suspect", "leased", "waiting"))
    world.record("suspect")
    await fan_out(store, leased=True)
    world.expire()
    world.record("leased")
    await fan_out(store, leased=True)
    world.record("due")
    world.record("waiting", available_at="2199-01-01T00:00:00Z")
    await fan_out(store)
    found = {row.id: (row.due, row.suspects) for row in await store.sweep(bytes(16), 500)}
    assert found == {due: (True, False), suspect: (False, True), leased: (False, False), waiting: (False, False)}


async def test_an_event_with_a_lower_number_that_commits_late_is_found_by_a_running_relay(
    world: World, far_end: FarEnd
) -> None:
    """The low-water mark has long passed it."""
    world.subscribe()
    with world.open() as writer:
        (late,) = world.record(connection=writer)
        async with running(world.url, far_end) as relay:
            world.record(count=3)
            await await_until(lambda: world.count("attempts") == 3)
            relay.feeder.low_water.note_look(0, 0.0, 0.0, late + 3, late + 3)  # long ago: the mark is there now
            writer.commit()
            await await_until(lambda: world.count("attempts") == 4)


async def test_until_drained_ends_when_only_later_and_paused_work_is_left(world: World, far_end: FarEnd) -> None:
    paused = world.subscribe("paused")
    world.rows("update outbox.subscriptions set paused_at = now() where id = %s", uuid_of(paused))
    world.subscribe("now")
    world.record("now", 30)
    world.record("now", available_at="2199-01-01T00:00:00Z")
    world.record("paused")
    async with running(world.url, far_end, until_drained=True) as relay:
        await await_until(lambda: relay.feeding.done())
        assert world.count("attempts") == 30
        assert world.count("deliveries") == 2


async def test_until_drained_waits_for_what_another_relay_has_leased(
    world: World, far_end: FarEnd, store: Store
) -> None:
    world.subscribe()
    world.record()
    await fan_out(store, leased=True)
    async with running(world.url, far_end, until_drained=True) as relay:
        assert not await store.is_drained()
        await await_until(lambda: relay.feeder.steps > 0)
        assert not relay.feeding.done()
        world.expire()
        await await_until(lambda: relay.feeding.done())
    assert world.count("deliveries") == 0
