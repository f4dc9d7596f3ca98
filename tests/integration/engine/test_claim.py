"""claim: due → leased, fair between subscriptions, each row by one relay only, an attempt charged at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from relay.engine import claim
from relay.model.outcome import Outcome
from relay.store.lease import new_lease
from relay.store.store import Store
from tests.integration.engine.world import FarEnd, World, fan_out, running, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio


async def test_two_relays_claim_disjoint_rows_and_together_all(world: World, store: Store, other_store: Store) -> None:
    subscription = world.subscribe()
    world.record(count=300)
    await fan_out(store)

    async def claim_all(one: Store) -> list[bytes]:
        ids: list[bytes] = []
        while rows := await one.claim([(subscription, 7)], 7, 10**9, new_lease()):
            ids += [row.id for row in rows]
        return ids

    mine, theirs = await asyncio.gather(claim_all(store), claim_all(other_store))
    assert len(mine) + len(theirs) == len({*mine, *theirs}) == 300
    assert Counter(row[0] for row in world.rows("select attempts from outbox.deliveries")) == {1: 300}


async def test_a_row_that_another_holds_locked_is_skipped_and_not_waited_for(world: World, store: Store) -> None:
    subscription = world.subscribe()
    world.record(count=3)
    first, *rest = await fan_out(store)
    with world.open() as other:
        other.execute("select from outbox.deliveries where id = %s for update", (uuid_of(first.id),))
        async with asyncio.timeout(20):
            rows = await store.claim([(subscription, 2)], 2, 10**9, new_lease())
        assert {row.id for row in rows} == {birth.id for birth in rest}


async def test_the_attempt_is_charged_and_the_lease_begun_by_the_claim(world: World, store: Store) -> None:
    subscription = world.subscribe(timeout=40)
    world.record()
    await fan_out(store)
    (row,) = await store.claim([(subscription, 1)], 1, 10**9, 77)
    assert (row.attempts, row.timeout_seconds) == (1, 40)
    ((attempts, lease, seconds),) = world.deliveries("attempts, lease, extract(epoch from due_at - clock_timestamp())")
    assert (attempts, lease) == (1, 77)
    assert 40 < seconds <= 46, "the lease outlives the timeout"


async def test_attempts_without_end_stop_no_claim(world: World, store: Store) -> None:
    """An endpoint may answer 410 and be resumed for ever; a count that overflows would fail every claim after it."""
    subscription = world.subscribe()
    world.record(count=2)
    first, _ = await fan_out(store)
    world.rows("update outbox.deliveries set attempts = 32767 where id = %s", uuid_of(first.id))
    rows = await store.claim([(subscription, 2)], 2, 10**9, new_lease())
    assert sorted(row.attempts for row in rows) == [1, 32767]


async def test_each_subscription_gets_its_slots_oldest_first(world: World, store: Store) -> None:
    busy, quiet = world.subscribe("busy"), world.subscribe("quiet")
    backlog = world.record("busy", 50)
    (late,) = world.record("quiet")
    await fan_out(store)
    world.rows("update outbox.deliveries set due_at = now() - make_interval(secs => 1000 - event_seq)")
    rows = await store.claim([(busy, 3), (quiet, 3)], 100, 10**9, new_lease())
    assert sorted(row.event_seq for row in rows) == [*backlog[:3], late]


async def test_what_is_claimed_together_comes_in_the_order_of_turns_and_the_oldest_first(
    world: World, store: Store
) -> None:
    """It is sent in this order: what is urgent is due earlier, though it may be recorded later."""
    quiet, busy = world.subscribe("quiet"), world.subscribe("busy")
    backlog = world.record("busy", 50)
    (late,) = world.record("quiet")
    await fan_out(store)
    world.rows("update outbox.deliveries set due_at = now() - make_interval(secs => event_seq)")
    rows = await store.claim([(busy, 20), (quiet, 3)], 100, 10**9, new_lease())
    assert [row.event_seq for row in rows] == [*backlog[:-21:-1], late]


async def test_the_room_of_the_process_bounds_the_whole_claim(world: World, store: Store) -> None:
    asked = [(world.subscribe(f"t{number}"), 5) for number in range(4)]
    for number in range(4):
        world.record(f"t{number}", 5)
    await fan_out(store)
    rows = await store.claim(asked, 8, 10**9, new_lease())
    assert Counter(row.subscription_id for row in rows) == {asked[0][0]: 5, asked[1][0]: 3}
    assert world.count("deliveries", "lease is not null") == 8


async def test_rows_that_wait_or_are_leased_are_not_claimed(world: World, store: Store) -> None:
    subscription = world.subscribe()
    world.record(count=2, available_at="2199-01-01T00:00:00Z")
    await fan_out(store)
    world.record(count=2)
    await fan_out(store, leased=True)
    assert await store.claim([(subscription, 100)], 100, 10**9, new_lease()) == []


async def test_paused_and_removed_subscriptions_are_not_asked(world: World, store: Store) -> None:
    paused, removed, active = world.subscribe(), world.subscribe(), world.subscribe()
    world.record()
    await fan_out(store)
    world.rows("update outbox.subscriptions set paused_at = now() where id = %s", uuid_of(paused))
    world.rows("update outbox.subscriptions set removed_at = now() where id = %s", uuid_of(removed))
    rows = await store.claim([(paused, 9), (removed, 9), (active, 9)], 100, 10**9, new_lease())
    assert [row.subscription_id for row in rows] == [active]
    assert world.count("deliveries", "attempts > 0") == 1


async def test_an_event_that_is_gone_is_claimed_without_a_body_and_ends_as_a_dead_letter(
    world: World, far_end: FarEnd
) -> None:
    world.subscribe()
    (seq,) = world.record()
    async with stepping(world.url, far_end) as relay:
        await fan_out(relay.engine.feed_store)
        world.rows("delete from outbox.events where seq = %s", seq)
        await relay.look()
        await relay.settled()
    assert far_end.requests == []
    assert world.rows("select reason, payload from outbox.dead_letters") == [("event_gone", "null")]


async def test_a_claim_ends_where_the_bodies_fill_the_budget_but_takes_at_least_one(world: World, store: Store) -> None:
    subscription = world.subscribe()
    world.record(count=5, payload='"' + "x" * 19_998 + '"')
    await fan_out(store)
    assert len(await store.claim([(subscription, 5)], 5, 50_000, new_lease())) == 3
    assert len(await store.claim([(subscription, 5)], 5, 1, new_lease())) == 1
    assert world.count("deliveries", "lease is null and attempts = 0") == 1


@pytest.mark.field("F01")
async def test_each_subscription_has_a_share_of_the_bytes_and_small_rows_cost_nothing(
    world: World, store: Store
) -> None:
    large, small = world.subscribe("large"), world.subscribe("small")
    world.record("large", 5, payload='"' + "x" * 19_998 + '"')
    world.record("small", 5)
    await fan_out(store)
    asked = [(large, 5), (small, 5)]
    rows = await store.claim(asked, 10, 10**6, new_lease(), [(30_000, False), (0, False)])
    assert Counter(row.subscription_id for row in rows) == {large: 2, small: 5}
    assert await store.claim(asked[:1], 10, 10**6, new_lease(), [(0, False)]) == []


@pytest.mark.field("F01")
async def test_one_huge_row_at_a_time_is_claimed_and_only_where_it_may(world: World, store: Store) -> None:
    world.allow_payloads_of(2_000_000)
    first, second = world.subscribe("a"), world.subscribe("b")
    for name in ("a", "b"):
        world.record(name, 2, payload='"' + "x" * 1_100_000 + '"')
        world.record(name)
    await fan_out(store)
    asked = [(first, 9), (second, 9)]
    rows = await store.claim(asked, 9, 1, new_lease(), [(0, False), (1, True)])
    assert Counter(row.subscription_id for row in rows) == {first: 1, second: 2}
    assert sum(row.event.size > 1_000_000 for row in rows if row.event) == 1


async def test_rows_are_born_leased_while_there_is_room_and_due_beyond_it(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.record(count=100)
    far_end.hold("/")
    async with stepping(world.url, far_end, max_in_flight=100, per_endpoint=64) as relay:
        relay.feeder.fan_out.limit = 100
        await relay.feeder.fan_out.run(-1)
        assert Counter(row[0] for row in world.deliveries("lease is not null")) == {True: 16, False: 84}
        assert world.count("deliveries", "attempts <> (lease is not null)::int") == 0
        assert world.count("deliveries", "lease is null and due_at > clock_timestamp()") == 0


async def test_a_subscription_with_a_backlog_gets_nothing_born_leased(world: World, far_end: FarEnd) -> None:
    """Or new events would overtake the old ones and starve the retries."""
    backed_up = world.subscribe("a.b", path="/backed-up")
    world.subscribe("a.b", path="/free")
    far_end.hold("/backed-up")
    far_end.hold("/free")
    async with stepping(world.url, far_end) as relay:
        relay.feeder.due.add(backed_up)
        world.record("a.b", 4)
        await relay.feeder.fan_out.run(-1)
        rows = world.rows(
            "select s.url, d.lease is not null from outbox.deliveries d join outbox.subscriptions s"
            " on s.id = d.subscription_id group by 1, 2"
        )
        assert sorted(rows) == [("http://127.0.0.1/backed-up", False), ("http://127.0.0.1/free", True)]


async def test_a_full_process_still_fans_out(world: World, far_end: FarEnd) -> None:
    """Waiting for room would let one tenant's million pending starve every other."""
    world.subscribe()
    async with stepping(world.url, far_end, leased_max=10) as relay:
        world.record()
        await relay.look()
        await relay.settled()  # it answers: what does not may not take all the room there is
        far_end.hold("/")
        for _ in range(3):
            world.record(count=10)
            await relay.look()
        assert world.count("pending") == 0
        assert world.count("deliveries", "lease is not null") == 10
        assert relay.room.free == 0


async def test_a_backlog_is_worked_off_through_the_due_map(world: World, far_end: FarEnd) -> None:
    for number in range(3):
        world.subscribe(path=f"/{number}")
    world.record(count=200)
    async with stepping(world.url, far_end, per_endpoint=8) as relay:
        relay.feeder.fan_out.limit = 200
        await relay.look()
        while world.count("deliveries"):
            await relay.look()
            await relay.settled()
    assert Counter(far_end.paths()) == {"/0": 200, "/1": 200, "/2": 200}
    assert world.count("attempts", "number = 1 and verdict = 'delivered'") == 600


class Timed(FarEnd):
    """A far end that holds each request until it is freed, and notes how long each may take."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float] = []
        self.freed = self.hold("/")

    async def send(self, endpoint: Any, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        self.timeouts.append(timeout_seconds)
        return await super().send(endpoint, headers, body, timeout_seconds)


@pytest.mark.parametrize("way", ["born leased", "born in batches", "claimed", "claimed in batches"])
async def test_what_was_leased_for_a_short_timeout_is_not_sent_for_a_longer_one(
    world: World, store: Store, way: str
) -> None:
    """It would end after its lease, be taken for what ended its relay, and be sent beside itself."""
    far_end = Timed()
    world.subscribe(timeout=20)
    if "in batches" in way:
        world.rows("update outbox.subscriptions set batch_events = 2, batch_milliseconds = 60000")
    world.record(count=4)
    if "claimed" in way:
        await fan_out(store)
    async with running(world.url, far_end, per_endpoint=1) as relay:
        await await_until(lambda: far_end.timeouts and relay.sending.has_unbegun)
        (endpoint,) = relay.endpoints
        leased = 1 + len(endpoint.unbegun)
        world.rows("update outbox.subscriptions set timeout_seconds = 60")
        await await_until(lambda: endpoint.subscription.timeout_seconds == 60)
        world.record(count=2)
        far_end.freed.set()
        await await_until(lambda: not world.count("deliveries") and not world.count("pending"))
    assert leased >= 2
    assert far_end.timeouts[:leased] == [20] * leased
    assert far_end.timeouts[-1] == 60


async def test_of_many_endpoints_that_were_never_asked_a_look_takes_a_few_and_the_next_ones_after_a_pause(
    world: World, far_end: FarEnd, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of them in one claim would hold up new events; all are claimed for in their turn."""
    monkeypatch.setattr(claim, "UNPROVEN_MAX", 3)
    monkeypatch.setattr(claim, "UNREAD_MAX", 4)
    far_end.script["/"] = hang
    for _ in range(10):
        world.subscribe()
    world.record()
    await fan_out(store)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await require_asked(far_end, 3)
        for _ in range(9):
            await asyncio.sleep(0.01)  # longer than the pause
            await relay.look()
        await require_asked(far_end, 10)


async def hang() -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


async def require_asked(far_end: FarEnd, count: int) -> None:
    """Require that so many requests have begun, and no more."""
    await await_until(lambda: len(far_end.requests) >= count)
    assert len(far_end.requests) == count


async def test_one_that_is_held_back_speaks_for_no_other_of_its_tenant(
    world: World, far_end: FarEnd, store: Store
) -> None:
    """That its tenant has all that it may have is told by one that could have something."""
    ids = [world.subscribe(path=path, tenant="a") for path in ("/held", "/next")]
    world.subscribe(path="/other", tenant="b")
    world.record(tenant="a")
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        far_end.requests.clear()
        for subscription in ids:
            endpoint = relay.endpoints.get(subscription)
            assert endpoint is not None
            endpoint.window.answers = False
            relay.endpoints.note_answers(endpoint)
        held = relay.endpoints.get(ids[0])
        assert held is not None
        held.send_nothing_for(1000.0)
        world.record(tenant="a")
        await fan_out(store)
        for _ in range(3):
            await relay.look()
            await asyncio.sleep(0.01)
        await await_until(lambda: relay.sending.idle)
        assert far_end.paths() == ["/next"]
