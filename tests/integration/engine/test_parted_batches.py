"""Batches whose relay ended after it had settled a part of them: the rest is a suspect, and all goes as it was."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from relay.store.batches import ClaimedBatch
from relay.store.lease import new_lease
from relay.store.store import Store
from relay.store.suspects import SUSPECTS_AMONG
from tests.integration.engine.world import (
    ERROR_500,
    FarEnd,
    PlanWatch,
    Relay,
    World,
    fan_out,
    running,
    stepping,
    uuid_of,
)
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.field("F54")]

EVENTS = 2 * SUSPECTS_AMONG


def subscribe(world: World, path: str = "/") -> bytes:
    subscription = world.subscribe(path=path, schedule=(0,) * 9)
    world.rows("update outbox.subscriptions set batch_events = %s, batch_milliseconds = 0", EVENTS)
    return subscription


async def until_nothing_is_left(world: World) -> None:
    await await_until(lambda: not world.count("pending") and not world.count("deliveries"))


async def leave_in_part(world: World, far_end: FarEnd) -> None:
    """Let a relay fail a batch and settle all but one row, which a person holds, and then end without a word."""
    world.record(count=EVENTS)
    freed = far_end.hold("/", ERROR_500)
    relay = Relay(world.url, far_end)
    relay.start()
    await await_until(lambda: far_end.in_flight)
    with world.open() as person:
        person.execute("select from outbox.deliveries order by event_seq limit 1 for update")
        freed.set()
        await await_until(lambda: world.count("deliveries", "lease is null") == EVENTS - 1)
        await relay.crash()
    far_end.script.clear()
    end_lease(world)


def end_lease(world: World) -> None:
    """Let leases end now, after everything else became due."""
    world.rows("update outbox.deliveries set due_at = clock_timestamp() where lease is not null")


def open_breakers(world: World) -> None:
    """Open the breaker of each subscription, with a probe that is due."""
    world.rows(
        "insert into outbox.health (subscription_id, opened_at, probe_at, failing_since, pause_seconds)"
        " select id, now(), now() - interval '1 s', now(), 1 from outbox.subscriptions"
        " on conflict (subscription_id) do update set opened_at = now(), probe_at = now() - interval '1 s'"
    )


async def part(world: World, store: Store, subscription: bytes) -> bytes:
    """Make a batch of which one row is leased and the others are due; return its id."""
    world.record(count=EVENTS)
    await fan_out(store)
    ((batch, rows),) = await store.claim_batches(subscription, 1, 10**6, new_lease())
    world.rows(
        "update outbox.deliveries set lease = null, due_at = now() - interval '1 s' where batch_id = %s and id <> %s",
        *(uuid_of(batch), uuid_of(rows[0].id)),
    )
    return batch


async def test_a_batch_that_was_settled_in_part_goes_again_as_it_was(world: World, far_end: FarEnd) -> None:
    subscribe(world)
    await leave_in_part(world, far_end)
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    first, again = far_end.requests
    assert first == again
    assert world.rows(
        "select count(*), count(distinct delivery_id) from outbox.attempts where verdict = 'delivered'"
    ) == [(EVENTS, EVENTS)]


async def test_where_one_of_its_rows_is_gone_too_the_others_go_under_another_id(world: World, far_end: FarEnd) -> None:
    subscribe(world)
    await leave_in_part(world, far_end)
    world.rows(
        "delete from outbox.deliveries where id = (select id from outbox.deliveries where lease is null limit 1)"
    )
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    (_, former, _), (_, later, body) = far_end.requests
    assert (former == later, len(json.loads(body))) == (False, EVENTS - 1)


async def test_it_is_claimed_with_all_its_rows_as_a_suspect_and_from_nobody(world: World, store: Store) -> None:
    subscription = subscribe(world)
    batch = await part(world, store, subscription)
    assert await store.claim_batches(subscription, 1, 0, new_lease(), suspects=True) == [], "another has a row of it"
    assert [row.suspects for row in await store.sweep(bytes(16), 9)] == [False]
    end_lease(world)
    assert [row.suspects for row in await store.sweep(bytes(16), 9)] == [True]
    assert await store.claim_batches(subscription, 9, 10**6, new_lease()) == [], "suspects are claimed alone"
    ((again, rows),) = await store.claim_batches(subscription, 1, 0, new_lease(), suspects=True)
    assert (again, len(rows), world.count("deliveries", "crashes = 1")) == (batch, EVENTS, EVENTS)


async def test_an_open_breaker_is_probed_with_all_of_it(world: World, far_end: FarEnd) -> None:
    subscribe(world)
    await leave_in_part(world, far_end)
    open_breakers(world)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    first, again = far_end.requests
    assert first == again
    assert not world.count("deliveries")


async def test_probes_have_one_suspect_on_the_wire(world: World, store: Store, far_end: FarEnd) -> None:
    paths = ("/one", "/two")
    for path in paths:
        await part(world, store, subscribe(world, path))
        world.rows("update outbox.subscriptions set types = '{none}'")
    end_lease(world)
    open_breakers(world)
    freed = [far_end.hold(path) for path in paths]
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await await_until(lambda: far_end.in_flight and not relay.settler.unsettled)
        assert (len(far_end.requests), world.count("deliveries", "due_at > now()")) == (1, EVENTS)
        for event in freed:
            event.set()
        await relay.settled()
        open_breakers(world)
        relay.feeder.breakers.restart()
        await relay.look()
        await relay.settled()
    assert sorted(far_end.paths()) == list(paths)
    assert not world.count("deliveries")


async def test_claims_that_find_nothing_come_ever_later(
    world: World, store: Store, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due goes with a row that another relay has; once that is free, the batch goes."""
    subscription = subscribe(world)
    batch = await part(world, store, subscription)
    now = time.monotonic()
    monkeypatch.setattr("relay.engine.batches.time", SimpleNamespace(monotonic=lambda: now))
    pauses, claimed = [], list[ClaimedBatch]()
    async with stepping(world.url, far_end) as relay:
        real = store.claim_batches

        async def claim(*asked: Any) -> list[ClaimedBatch]:
            claimed[:] = await real(*asked)
            return claimed

        monkeypatch.setattr(relay.feeder.batches, "_store", SimpleNamespace(
            find_ready=store.find_ready, claim_batches=claim, read_subscriptions=store.read_subscriptions,
        ))  # fmt: skip
        relay.sending.update(await store.read_subscriptions([subscription]))
        relay.feeder.due.add(subscription)
        for _ in range(9):
            assert not await relay.feeder.batches.run()
            pauses.append(relay.feeder.batches.rest_until - now)
            now = relay.feeder.batches.rest_until
        world.rows("update outbox.deliveries set lease = null")
        assert await relay.feeder.batches.run()
        await relay.settled()
    assert pauses == sorted(pauses)
    assert (pauses[0] < 0.02, pauses[-1] > 0.4, claimed[0].id) == (True, True, batch)


async def test_no_look_for_suspects_reads_more_than_the_batches_of_the_oldest(own_world: World) -> None:
    """The statistics are of an empty table."""
    for table in ("deliveries", "subscriptions", "health"):
        own_world.rows(f"analyze outbox.{table}")
        own_world.rows(f"alter table outbox.{table} set (autovacuum_enabled = off)")
    subscription = subscribe(own_world)
    own_world.rows(
        "insert into outbox.deliveries (id, event_seq, subscription_id, due_at, batch_id, batch_size)"
        " select outbox.uuid7(), n, %s, now() - make_interval(secs => 9000 - n * 0.1),"
        "        lpad(to_hex(n / 100 + 1), 32, '0')::uuid, 100 from generate_series(0, 49999) n",
        uuid_of(subscription),
    )
    watch = PlanWatch(own_world.url)
    await watch.begin()
    assert [row.suspects for row in await watch.store.sweep(bytes(16), 500)] == [False]
    assert await watch.store.claim_batches(subscription, 1, 0, new_lease(), suspects=True) == []
    assert watch.seq_scans() == []
    assert watch.buffers <= 300
    await watch.store.close()
