"""What keeps a relay from parting, clearing or hastening a batch, or rows of one, that is another's by now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.model.outcome import OutcomeKind
from relay.model.settlement import Settlement
from relay.model.verdict import Verdict, VerdictKind
from relay.store.lease import new_lease
from relay.store.store import Store
from relay.store.suspects import MAX_CRASHES
from tests.integration.engine.world import World, claimed, fan_out, uuid_of

pytestmark = pytest.mark.anyio


async def a_batch(world: World, store: Store, lease: int, events: int = 4) -> tuple[bytes, list[Settlement]]:
    """Lease a batch; return its subscription and the refusal of all its members, which halves it."""
    subscription = world.subscribe()
    world.rows("update outbox.subscriptions set batch_events = %s, batch_milliseconds = 0", events)
    world.record(count=events)
    await fan_out(store)
    ((batch, rows),) = await store.claim_batches(subscription, 1, 10**6, lease)
    halved = Verdict(VerdictKind.RETRY, halves=True)
    deliveries = [replace(claimed(row, lease), batch=batch) for row in rows]
    return subscription, [
        Settlement(one, halved, "http://127.0.0.1/", OutcomeKind.HTTP_4XX, 422, 12) for one in deliveries
    ]


def batches(world: World) -> list[tuple[object, ...]]:
    return world.rows("select batch_id, batch_size, attempts from outbox.deliveries order by event_seq")


async def test_a_refused_batch_is_parted(world: World, store: Store) -> None:
    _, refused = await a_batch(world, store, new_lease())
    await store.settle(refused)
    assert sorted(row[1:] for row in batches(world)) == [(2, 0)] * 4


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param("lease = 5, due_at = now() + interval '1 min'", id="it is leased again for the same attempt"),
        pytest.param("lease = null, attempts = 2", id="it was tried again and waits"),
        pytest.param("lease = null, batch_id = '00000000-0000-7000-8000-000000000001'", id="it is in another batch"),
    ],
)
async def test_a_late_refusal_parts_no_batch_that_is_another_by_now(world: World, store: Store, meanwhile: str) -> None:
    _, refused = await a_batch(world, store, new_lease())
    world.rows(f"update outbox.deliveries set {meanwhile}")
    before = batches(world)
    settled = await store.settle(refused)
    assert (batches(world), settled.halved) == (before, frozenset())


@pytest.mark.parametrize(("former_lease", "crashes"), [(5, [0, 0, 1, 1]), (999, [1, 1, 1, 1])])
async def test_the_crash_of_a_former_suspect_is_taken_back_only_under_its_own_lease(
    world: World, store: Store, former_lease: int, crashes: list[int]
) -> None:
    subscription, _ = await a_batch(world, store, new_lease(), events=2)
    world.record(count=2)
    await fan_out(store)
    await store.claim_batches(subscription, 1, 10**6, new_lease())
    world.expire()
    ((_, first),) = await store.claim_batches(subscription, 1, 10**6, 5, suspects=True)
    for row in first:
        former = claimed(row, former_lease)
        await store.claim_batches(subscription, 1, 10**6, 6, suspects=True, former=former)
        world.rows("update outbox.deliveries set crashes = 0, lease = 7, due_at = now() where lease = 6")
    ((_, second),) = await store.claim_batches(subscription, 1, 10**6, 8, suspects=True)
    assert len(second) == 2
    assert sorted(row[0] for row in world.deliveries("crashes")) == crashes


async def test_a_member_that_waits_is_not_hastened_where_its_batch_is_parted(world: World, store: Store) -> None:
    subscription, refused = await a_batch(world, store, new_lease())
    world.rows("update outbox.deliveries set crashes = %s", MAX_CRASHES)
    world.expire()
    waiting = uuid_of(refused[-1].delivery.id)
    world.rows("update outbox.deliveries set lease = null, due_at = now() + interval '1 h' where id = %s", waiting)
    assert await store.claim_batches(subscription, 1, 0, new_lease(), suspects=True) == []
    assert world.count("deliveries", "due_at <= now() and lease is null") == 3
    assert world.value("select due_at > now() from outbox.deliveries where id = %s", waiting)
