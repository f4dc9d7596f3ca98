"""A lease that ends without a word: whoever held the row may have died of it, so it goes out again alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from relay.model.settlement import Settlement
from relay.model.verdict import VerdictKind
from relay.store.lease import new_lease
from relay.store.store import Store
from relay.store.suspects import MAX_CRASHES
from tests.integration.engine.world import (
    FarEnd,
    Relay,
    World,
    claimed,
    fan_out,
    held,
    result,
    running,
    stepping,
    uuid_of,
)
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio


async def test_an_expired_lease_is_a_suspect_and_not_merely_due(world: World, store: Store) -> None:
    subscription = world.subscribe()
    world.record(count=3)
    await fan_out(store, leased=True)
    world.expire()
    assert await store.claim([(subscription, 10)], 10, 10**9, new_lease()) == []
    (row,) = await store.claim_suspect([subscription], new_lease(), None)
    assert row.attempts == 1, "the attempt that never reported was charged already"
    assert world.count("deliveries", "crashes = 1") == 1


async def test_of_many_subscriptions_one_suspect_is_claimed_at_a_time(world: World, store: Store) -> None:
    subscriptions = [world.subscribe() for _ in range(3)]
    world.record()
    await fan_out(store, leased=True)
    world.expire()
    assert len(await store.claim_suspect(subscriptions, new_lease(), None)) == 1
    assert world.count("deliveries", "crashes = 1") == 1


async def test_a_live_lease_is_nobodys_suspect(world: World, store: Store) -> None:
    subscription = world.subscribe()
    world.record()
    await fan_out(store, leased=True)
    assert await store.claim_suspect([subscription], new_lease(), None) == []


async def test_a_process_sends_one_suspect_at_a_time(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.record(count=5)
    freed = far_end.hold("/")
    async with stepping(world.url, far_end) as relay:
        await fan_out(relay.engine.feed_store, leased=True)
        world.expire()
        for _ in range(4):
            await relay.look()
        await await_until(lambda: far_end.in_flight)
        assert far_end.most_in_flight["/"] == 1
        assert world.count("deliveries", "crashes = 1") == 1
        freed.set()
        while world.count("deliveries"):
            await relay.look()
            await relay.settled()
    assert len(far_end.requests) == 5
    assert far_end.most_in_flight["/"] == 1


async def test_a_suspect_that_hangs_lets_the_next_begin_and_is_no_longer_charged(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.engine.suspects.ALONE_SECONDS", 0.0)
    world.subscribe()
    world.record(count=2)
    far_end.hold("/")
    async with stepping(world.url, far_end) as relay:
        await fan_out(relay.engine.feed_store, leased=True)
        world.expire()
        await relay.look()
        await await_until(lambda: far_end.in_flight == 1)
        first = relay.engine.lone_suspect.charged
        assert first is not None
        await relay.look()
        await await_until(lambda: far_end.in_flight == 2)
        crashes = {row[0].bytes: row[1] for row in world.rows("select id, crashes from outbox.deliveries")}
        assert crashes.pop(first.id) == 0, "it is not alone any more: its charge is taken back"
        assert list(crashes.values()) == [1]


async def test_a_delivery_that_ends_its_process_again_and_again_becomes_a_dead_letter(
    world: World, far_end: FarEnd
) -> None:
    subscription = world.subscribe("killer", path="/killer")
    world.subscribe("good", path="/good")
    world.record("good", 20)
    (killer,) = world.record("killer", payload='{"n": 1.10}')
    far_end.hold("/killer")
    far_end.hold("/good")
    for _ in range(MAX_CRASHES + 1):
        relay = Relay(world.url, far_end)
        relay.start_settling()
        await relay.look()
        await relay.look()
        await await_until(lambda: "/killer" in far_end.paths()[-40:])
        await relay.crash()
        world.expire()
        if world.value("select max(crashes) from outbox.deliveries where event_seq = %s", killer) == MAX_CRASHES:
            break
        far_end.requests.clear()
        # The others' lone turns end well for them, as they do not end the process.
        world.rows("update outbox.deliveries set crashes = 0, due_at = 'tomorrow' where event_seq <> %s", killer)
    del far_end.script["/good"]
    async with running(world.url, far_end):
        await await_until(lambda: world.count("dead_letters"))
    ((reason, attempts, payload, seq, error),) = world.rows(
        "select reason, attempts, payload, event_seq, error from outbox.dead_letters"
    )
    assert (reason, attempts, payload, seq) == ("crash", 1, '{"n": 1.10}', killer)
    assert f"{MAX_CRASHES} times" in error
    assert world.rows("select subscription_id from outbox.dead_letters") == [(uuid_of(subscription),)]


async def test_only_lone_crashes_count_and_bystanders_are_not_charged(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.record(count=16)
    for _ in range(MAX_CRASHES + 2):
        far_end.hold("/")
        relay = Relay(world.url, far_end)
        relay.start()
        await await_until(lambda: far_end.in_flight == 16)
        await relay.crash()
        # Had the row ended its process in company each time, this is what a fresh relay would find.
        world.rows("update outbox.deliveries set due_at = now(), lease = null, attempts = 0")
    assert world.count("deliveries", "crashes = 0") == 16
    assert world.count("dead_letters") == 0


async def test_at_the_limit_it_is_buried_instead_of_sent(world: World, store: Store) -> None:
    subscription = world.subscribe()
    world.record()
    await fan_out(store, leased=True)
    for turn in range(MAX_CRASHES):
        world.expire()
        assert len(await store.claim_suspect([subscription], new_lease(), None)) == 1
        assert world.value("select crashes from outbox.deliveries") == turn + 1
    world.expire()
    assert await store.claim_suspect([subscription], new_lease(), None) == []
    assert (world.count("deliveries"), world.count("dead_letters", "reason = 'crash'")) == (0, 1)


@pytest.mark.parametrize("end", ["retry", "release"])
async def test_an_attempt_that_reports_ends_the_suspicion(world: World, store: Store, end: str) -> None:
    subscription = world.subscribe()
    world.record()
    await fan_out(store, leased=True)
    world.expire()
    (row,) = await store.claim_suspect([subscription], 5, None)
    if end == "retry":
        await store.settle([result(claimed(row, 5), VerdictKind.RETRY)])
    else:
        await store.release([(claimed(row, 5, suspect=True), 0.0)])
    assert world.deliveries("lease, crashes, attempts") == [(None, 0, 1)]


@pytest.mark.parametrize(("former_lease", "crashes"), [(5, [0, 1]), (999, [1, 1])])
async def test_the_former_suspects_charge_is_taken_back_only_under_its_own_lease(
    world: World, store: Store, former_lease: int, crashes: list[int]
) -> None:
    subscription = world.subscribe()
    world.record(count=2)
    await fan_out(store, leased=True)
    world.expire()
    (row,) = await store.claim_suspect([subscription], 5, None)
    await store.claim_suspect([subscription], 6, claimed(row, former_lease))
    assert sorted(row[0] for row in world.deliveries("crashes")) == crashes


async def test_the_claim_of_a_suspect_waits_for_nobody_who_holds_the_former_one(world: World, store: Store) -> None:
    """An application cancelled it, and has not committed."""
    subscription = world.subscribe()
    world.record(count=2)
    await fan_out(store, leased=True)
    world.expire()
    (row,) = await store.claim_suspect([subscription], 5, None)
    with world.open() as application:
        application.autocommit = False
        application.execute("select from outbox.deliveries where id = %s for update", (UUID(bytes=row.id),))
        async with asyncio.timeout(10):
            (other,) = await store.claim_suspect([subscription], 6, claimed(row, 5))
    assert other.id != row.id
    assert sorted(row[0] for row in world.deliveries("crashes")) == [1, 1], "its charge stays where it is held"


async def test_a_look_that_finds_no_other_suspect_takes_no_charge_back(world: World, store: Store) -> None:
    """It is still alone, however long it is on the wire before it ends its process."""
    subscription = world.subscribe()
    world.record()
    await fan_out(store, leased=True)
    world.expire()
    (row,) = await store.claim_suspect([subscription], 5, None)
    assert await store.claim_suspect([subscription], 6, claimed(row, 5)) == []
    assert world.deliveries("crashes, lease") == [(1, 5)]


async def test_the_next_suspect_waits_until_the_database_knows_of_the_one_before(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an answered one would stay charged when the next one ends the process, and be buried in its stead."""
    monkeypatch.setattr("relay.engine.suspects.ALONE_SECONDS", 3600.0)
    for path in ("/one", "/two"):
        world.subscribe(path=path)
    world.record()
    async with stepping(world.url, far_end) as relay:
        may_settle, settle = asyncio.Event(), relay.engine.settle_store.settle

        async def settle_when_told(batch: Sequence[Settlement]) -> list[bytes]:
            await may_settle.wait()
            return await settle(batch)

        monkeypatch.setattr(relay.engine.settle_store, "settle", settle_when_told)
        await fan_out(relay.engine.feed_store, leased=True)
        world.expire()
        for _ in range(3):
            await relay.look()
            await await_until(lambda: relay.sending.idle)
        assert (len(far_end.requests), world.count("deliveries", "crashes = 1")) == (1, 1)
        may_settle.set()
        await relay.settled()
        await relay.look()
        await relay.settled()
    assert (len(far_end.requests), world.count("deliveries")) == (2, 0)


async def test_suspects_of_paused_subscriptions_stay(world: World, store: Store) -> None:
    subscription = world.subscribe()
    world.record()
    await fan_out(store, leased=True)
    world.expire()
    world.rows("update outbox.subscriptions set paused_at = now()")
    assert await store.claim_suspect([subscription], new_lease(), None) == []
    assert world.deliveries("crashes, attempts") == [(0, 1)]


async def test_a_success_that_was_only_slow_is_accepted_after_its_lease_was_given_away(
    world: World, store: Store, other_store: Store
) -> None:
    subscription = world.subscribe()
    world.record()
    (birth,) = await fan_out(store, leased=True)
    world.expire()
    await other_store.claim_suspect([subscription], new_lease(), None)
    await store.settle([result(held(birth), VerdictKind.DELIVERED)])
    assert world.count("deliveries") == 0


async def test_after_a_kill_everything_is_delivered_once_more_at_most(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.record(count=30)
    far_end.hold("/")
    relay = Relay(world.url, far_end)
    relay.start()
    await await_until(lambda: far_end.in_flight == 16)
    await relay.crash()
    before = len(far_end.requests)
    del far_end.script["/"]
    world.expire()
    async with running(world.url, far_end) as successor:
        await await_until(lambda: not world.count("deliveries"))
        await successor.settled()
    assert world.count("attempts", "verdict = 'delivered'") == 30
    assert len(far_end.requests) == before + 30
