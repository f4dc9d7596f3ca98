"""Batches: the same members, id and bytes until all are delivered; one bad event holds up no other."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from typing import Any
from uuid import UUID

import pytest

from outbox.ids import text_id
from relay.engine.feeder import Part
from relay.store.lease import new_lease
from relay.store.store import Store
from relay.store.suspects import MAX_CRASHES
from tests.integration.engine.world import (
    DELIVERED,
    ERROR_500,
    FarEnd,
    Outcome,
    Relay,
    World,
    fan_out,
    running,
    stepping,
    uuid_of,
)
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.field("F54")]

REFUSED = Outcome(kind="http_4xx", status=422, milliseconds=1)


def subscribe(world: World, events: int = 100, milliseconds: int = 0, **settings: Any) -> bytes:
    subscription = world.subscribe(**settings)
    world.rows(
        "update outbox.subscriptions set batch_events = %s, batch_milliseconds = %s where id = %s",
        *(events, milliseconds, uuid_of(subscription)),
    )
    return subscription


def numbered(world: World, count: int, first: int = 0) -> None:
    """Record events with a number in each, in one transaction."""
    world.rows(
        "insert into outbox.events (type, payload)"
        " select 'a.b', json_build_object('n', i)::text from generate_series(%s::int, %s::int) i order by i",
        *(first, first + count - 1),
    )


def numbers(body: bytes) -> list[int]:
    return [one["data"]["n"] for one in json.loads(body)]


def make_due(world: World) -> None:
    world.rows("update outbox.deliveries set due_at = now() - interval '1 ms' where lease is null")


async def until_nothing_is_left(world: World) -> None:
    await await_until(lambda: not world.count("pending") and not world.count("deliveries"))


async def test_events_go_together_in_their_order_up_to_so_many(world: World, far_end: FarEnd) -> None:
    subscribe(world, 10)
    numbered(world, 25)
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    assert sorted(n for *_, body in far_end.requests for n in numbers(body)) == list(range(25))
    assert [numbers(body) for *_, body in sorted(far_end.requests, key=lambda r: numbers(r[2]))] == [
        [*range(10)], [*range(10, 20)], [*range(20, 25)],
    ]  # fmt: skip
    ids = [webhook_id for _, webhook_id, _ in far_end.requests]
    assert len(set(ids)) == 3
    assert all(one.startswith("bat_") and len(one) == 30 for one in ids)
    assert world.rows(
        "select count(*), count(distinct delivery_id) from outbox.attempts where verdict = 'delivered'"
    ) == [(25, 25)]


async def test_what_fills_a_batch_is_born_in_it_and_the_rest_is_filled_up(world: World, far_end: FarEnd) -> None:
    """No claim gathers what one fan_out has together; what it leaves goes with the next ones, not after its time."""
    subscribe(world, 5, 60_000)
    freed = far_end.hold("/")
    born = "select batch_size, count(*), count(lease), max(attempts) from outbox.deliveries group by batch_id, 1"
    async with stepping(world.url, far_end) as relay:
        numbered(world, 12)
        await relay.feeder.step(Part.EVERY)
        assert sorted(world.rows(born), key=str) == [(5, 5, 5, 1)] * 2 + [(None, 2, 0, 0)]
        await relay.feeder.step(Part(0))  # a look at what is left: it is no full batch
        numbered(world, 10, 12)
        await relay.feeder.step(Part.EVERY)
        assert sorted(world.rows(born), key=str) == [(5, 5, 5, 1)] * 3 + [(None, 7, 0, 0)]
        while far_end.in_flight < 4:
            await asyncio.sleep(0.005)
            await relay.look()
        freed.set()
        await relay.settled()
    assert sorted(numbers(body) for *_, body in far_end.requests) == [
        [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19],
    ]  # fmt: skip
    assert world.count("deliveries", "batch_id is null and attempts = 0") == 2


async def test_a_backlog_goes_before_batches_that_are_born(world: World, far_end: FarEnd) -> None:
    subscribe(world, 5, 60_000)
    async with stepping(world.url, far_end) as relay:
        numbered(world, 7)
        await relay.look()
        await relay.settled()
        numbered(world, 3, first=7)  # with the two that are left, a full batch
        await relay.feeder.step(Part.POLL | Part.FAN_OUT)
        numbered(world, 5, first=10)
        relay.feeder.batches.clear()  # as if the moment for which a look holds had passed
        for _ in range(3):
            await relay.look()
            await relay.settled()
    assert [numbers(body) for *_, body in far_end.requests] == [
        [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14],
    ]  # fmt: skip


async def test_what_is_gathered_for_an_endpoint_without_room_is_not_looked_at_without_rest(
    world: World, far_end: FarEnd
) -> None:
    subscription = subscribe(world, 2, 60_000)
    world.rows("update outbox.subscriptions set max_in_flight = 1")
    far_end.hold("/")
    async with stepping(world.url, far_end) as relay:
        numbered(world, 1)
        await relay.look()
        await relay.look()  # one is no batch: it waits
        numbered(world, 6, 1)
        while not far_end.in_flight:
            await relay.look()
            await asyncio.sleep(0.006)
        relay.feeder.due.add(subscription)
        assert relay.feeder.batches.rest_until > time.monotonic()


async def test_a_batch_that_is_born_has_no_more_bytes_than_one_that_is_claimed(world: World, far_end: FarEnd) -> None:
    subscribe(world, 100, 60_000)
    world.rows(
        "insert into outbox.events (type, payload)"
        " select 'a.b', json_build_object('n', i, 'x', repeat('x', 100000))::text"
        " from generate_series(0, 11) i order by i"
    )
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert [numbers(body) for *_, body in far_end.requests] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert world.count("deliveries", "lease is null") == 2


async def test_a_batch_is_one_place_of_its_endpoint(world: World, far_end: FarEnd) -> None:
    subscribe(world, 2, 60_000)
    world.rows("update outbox.subscriptions set max_in_flight = 1")
    freed = far_end.hold("/")
    async with stepping(world.url, far_end) as relay:
        await relay.look()  # the limit's slots are taken before
        numbered(world, 6)
        while not far_end.in_flight:
            await relay.look()
            await asyncio.sleep(0)
        assert world.count("deliveries", "lease is not null") == 2
        freed.set()
        while world.count("deliveries"):
            await relay.settled()
            await relay.look()
    assert far_end.most_in_flight["/"] == 1
    assert [numbers(body) for *_, body in far_end.requests] == [[0, 1], [2, 3], [4, 5]]


async def test_a_batch_that_is_not_full_waits_for_its_time_and_a_full_one_does_not(
    world: World, far_end: FarEnd
) -> None:
    subscribe(world, 5, 60_000)
    numbered(world, 7)
    async with stepping(world.url, far_end) as relay:
        while not far_end.requests:
            await relay.look()
            await relay.settled()
        assert [numbers(body) for *_, body in far_end.requests] == [[0, 1, 2, 3, 4]]
        for _ in range(3):
            await relay.look()
            await relay.settled()
        assert len(far_end.requests) == 1
        assert relay.feeder.batches.rest_until < float("inf")
        world.rows("update outbox.deliveries set due_at = due_at - interval '1 min'")
        relay.feeder.batches.clear()
        await relay.look()
        await relay.settled()
        assert [numbers(body) for *_, body in far_end.requests][1:] == [[5, 6]]


async def test_what_waits_for_its_time_goes_by_itself(world: World, far_end: FarEnd) -> None:
    subscribe(world, 5, 300)
    async with running(world.url, far_end):
        numbered(world, 2)
        await until_nothing_is_left(world)
        numbered(world, 5, first=2)
        await until_nothing_is_left(world)
    assert [numbers(body) for *_, body in far_end.requests] == [[0, 1], [2, 3, 4, 5, 6]]


async def test_members_id_and_bytes_stay_over_retries(world: World, far_end: FarEnd) -> None:
    subscribe(world, 10, schedule=(0, 0, 0, 3600))
    numbered(world, 10)
    far_end.script["/"] = ERROR_500
    async with stepping(world.url, far_end) as relay:
        while len(far_end.requests) < 3:
            await relay.look()
            await relay.settled()
            numbered(world, 3, first=100)  # what comes meanwhile joins none
            make_due(world)
        far_end.script["/"] = DELIVERED
        await relay.look()
        await relay.settled()
    first = [(webhook_id, body) for _, webhook_id, body in far_end.requests if 0 in numbers(body)]
    assert len(first) >= 3
    assert len(set(first)) == 1


async def test_each_part_of_a_standard_batch_begins_with_the_id_of_its_event(world: World, far_end: FarEnd) -> None:
    subscribe(world, 3)
    numbered(world, 3)
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    ((_, _, body),) = far_end.requests
    parts = json.loads(body)
    assert [list(part) for part in parts] == [["id", "type", "timestamp", "data"]] * 3
    assert [part["id"] for part in parts] == [
        row[0] for row in world.rows("select outbox.text_id('evt', id) from outbox.events order by seq")
    ]


async def test_members_id_and_bytes_stay_over_a_crash(world: World, far_end: FarEnd) -> None:
    """A relay dies with the batch on the wire; the next one, which knows nothing, sends it as it was."""
    subscribe(world, 10)
    numbered(world, 30)
    far_end.hold("/")
    first = Relay(world.url, far_end)
    first.start()
    await await_until(lambda: far_end.in_flight)
    await first.crash()
    sent = {webhook_id: body for _, webhook_id, body in far_end.requests}
    far_end.requests.clear()
    far_end.script.clear()
    numbered(world, 10, first=30)
    world.expire()
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    again = {webhook_id: body for _, webhook_id, body in far_end.requests}
    assert sent
    assert {one: again.get(one) for one in sent} == sent
    assert sorted(n for body in again.values() for n in numbers(body)) == list(range(40))


async def test_a_relay_that_knows_nothing_retries_a_waiting_batch_as_it_was(world: World, far_end: FarEnd) -> None:
    subscribe(world, 10)
    numbered(world, 10)
    far_end.script["/"] = ERROR_500
    async with stepping(world.url, far_end) as relay:
        while not far_end.requests:
            await relay.look()
            await relay.settled()
    far_end.script["/"] = DELIVERED
    make_due(world)
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    assert len(set(far_end.requests)) == 1
    assert len(far_end.requests) == 2


async def test_one_bad_of_64_is_found_in_halves_and_the_others_are_delivered(world: World, far_end: FarEnd) -> None:
    subscribe(world, 64, schedule=())
    numbered(world, 64)
    bad = 23

    async def answer() -> Outcome:
        return REFUSED if bad in numbers(far_end.requests[-1][2]) else DELIVERED

    far_end.script["/"] = answer
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    refused = [numbers(body) for *_, body in far_end.requests if bad in numbers(body)]
    assert [len(one) for one in refused] == [64, 32, 16, 8, 4, 2, 1]
    assert len(far_end.requests) == 13
    assert len({webhook_id for _, webhook_id, _ in far_end.requests}) == 13
    assert world.count("dead_letters") == 1
    assert world.value("select payload::json ->> 'n' from outbox.dead_letters") == str(bad)
    assert world.value("select attempts from outbox.dead_letters") == 1, "the halves are not charged"
    assert world.count("attempts", "verdict = 'delivered'") == 63
    assert world.count("health", "failures > 1") == 0


async def test_at_the_end_of_its_schedule_a_batch_is_halved_and_nothing_dies_for_another(
    world: World, far_end: FarEnd
) -> None:
    subscribe(world, 8, schedule=())
    numbered(world, 8)

    async def answer() -> Outcome:
        return ERROR_500 if 3 in numbers(far_end.requests[-1][2]) else DELIVERED

    far_end.script["/"] = answer
    world.break_at(0)
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    assert world.rows("select payload::json ->> 'n' from outbox.dead_letters") == [("3",)]


async def test_a_member_that_is_gone_leaves_the_others_another_id(world: World, far_end: FarEnd) -> None:
    subscribe(world, 10, schedule=(3600, 3600))
    numbered(world, 10)
    far_end.script["/"] = ERROR_500
    async with stepping(world.url, far_end) as relay:
        while not far_end.requests:
            await relay.look()
            await relay.settled()
        world.rows("delete from outbox.deliveries where id = (select min(id::text)::uuid from outbox.deliveries)")
        make_due(world)
        far_end.script["/"] = DELIVERED
        await relay.look()
        await relay.settled()
    (_, former, _), (_, later, body) = far_end.requests
    assert former != later
    assert len(numbers(body)) == 9
    assert not world.count("deliveries")


async def test_an_event_that_is_gone_is_decided_alone(world: World, store: Store, far_end: FarEnd) -> None:
    subscribe(world, 10, 60_000)
    numbered(world, 10)
    async with stepping(world.url, far_end) as relay:
        while not far_end.requests:
            await relay.look()
            await relay.settled()
        far_end.requests.clear()
        numbered(world, 10)
        await fan_out(store)
        ((batch, _),) = await store.claim_batches(next(iter(relay.endpoints.batching)), 1, 10**6, new_lease())
        world.rows("update outbox.deliveries set lease = null, due_at = now() - interval '1 ms'")
        world.rows("delete from outbox.events where payload like '%2%' and seq > 10")
        while world.count("deliveries"):
            await relay.look()
            await relay.settled()
    ((_, webhook_id, body),) = far_end.requests
    assert numbers(body) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert webhook_id != text_id("bat", UUID(bytes=batch))
    assert world.rows("select reason from outbox.dead_letters") == [("event_gone",)]
    assert world.count("attempts", "outcome = 'event_gone'") == 1
    assert world.count("attempts") == 20


async def test_a_member_that_is_leased_elsewhere_keeps_its_batch(world: World, store: Store, far_end: FarEnd) -> None:
    """A relay that does not know the subscription yet has one of them for a moment."""
    subscription = subscribe(world, 10)
    numbered(world, 4)
    await fan_out(store)
    ((batch, rows),) = await store.claim_batches(subscription, 5, 10**6, new_lease())
    world.rows("update outbox.deliveries set lease = null, due_at = now() - interval '1 ms'")
    world.rows(
        "update outbox.deliveries set lease = 7, due_at = now() + interval '1 min' where id = %s", uuid_of(rows[0].id)
    )
    assert await store.claim_batches(subscription, 5, 10**6, new_lease()) == []
    world.rows("update outbox.deliveries set lease = null, due_at = now() + interval '1 h' where lease = 7")
    ((again, same),) = await store.claim_batches(subscription, 5, 10**6, new_lease())
    assert (again, [row.id for row in same]) == (batch, [row.id for row in rows])
    assert world.count("deliveries", "attempts = 2") == 4


async def test_of_two_relays_one_has_the_batch(world: World, store: Store, other_store: Store) -> None:
    subscription = subscribe(world, 10)
    numbered(world, 40)
    await fan_out(store)
    one, two = await asyncio.gather(
        store.claim_batches(subscription, 2, 10**6, new_lease()),
        other_store.claim_batches(subscription, 2, 10**6, new_lease()),
    )
    ids = [row.id for claimed in (one, two) for _, rows in claimed for row in rows]
    assert len(ids) == len(set(ids))
    assert world.count("deliveries", "lease is not null") == len(ids)


async def test_a_subscription_that_is_not_sendable_has_no_batch(world: World, store: Store) -> None:
    subscription = subscribe(world, 10)
    numbered(world, 3)
    await fan_out(store)
    world.rows("update outbox.subscriptions set paused_at = now()")
    assert await store.find_ready([subscription]) == []
    assert await store.claim_batches(subscription, 2, 10**6, new_lease()) == []
    world.rows("update outbox.subscriptions set paused_at = null, batch_events = null")
    assert await store.find_ready([subscription]) == []
    assert await store.claim_batches(subscription, 2, 10**6, new_lease()) == []


async def test_a_batch_that_ends_its_process_is_halved_until_one_is_left(world: World, store: Store) -> None:
    """Each claim of suspects below is a process that ends without a word."""
    subscription = subscribe(world, 8)
    numbered(world, 8)
    await fan_out(store)
    poison = world.value("select id from outbox.deliveries order by event_seq limit 1 offset 5").bytes
    await store.claim_batches(subscription, 1, 10**6, new_lease())
    world.expire()
    crashes, sizes = 0, []
    while world.count("dead_letters") == 0:
        assert crashes < 30
        claimed = await store.claim_batches(subscription, 1, 0, new_lease(), suspects=True)
        claimed = claimed or await store.claim_batches(subscription, 1, 10**6, new_lease())
        for _, rows in claimed:
            if poison in [row.id for row in rows]:
                crashes += 1
                sizes.append(len(rows))
                world.expire()
            else:
                world.rows("delete from outbox.deliveries where id = any(%s)", [uuid_of(row.id) for row in rows])
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-MAX_CRASHES:] == [1] * MAX_CRASHES, "it is buried for crashes while it was alone"
    assert world.value("select delivery_id from outbox.dead_letters").bytes == poison
    assert not world.count("deliveries")


async def test_a_late_failure_does_not_part_what_another_relay_has(world: World, far_end: FarEnd) -> None:
    subscription = subscribe(world, 4)
    numbered(world, 4)
    freed = far_end.hold("/", REFUSED)
    async with stepping(world.url, far_end) as relay:
        while not far_end.in_flight:
            await relay.look()
            await asyncio.sleep(0)
        world.rows("update outbox.deliveries set lease = 5, attempts = 2")
        freed.set()
        await relay.settled()
        assert world.rows("select count(distinct batch_id), min(attempts) from outbox.deliveries") == [(1, 2)]
        world.rows("update outbox.deliveries set lease = null, due_at = now()")
    assert text_id("bat", world.value("select batch_id from outbox.deliveries limit 1")) == far_end.requests[0][1]
    assert subscription


async def test_a_limit_counts_a_batch_as_one_request(world: World, far_end: FarEnd) -> None:
    subscribe(world, 50)
    world.rows("update outbox.subscriptions set rate_limit = '4/min', rate_burst = 2")
    numbered(world, 100)
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    assert len(far_end.requests) == 2


async def test_an_open_breaker_is_probed_with_the_batch_that_there_is(world: World, far_end: FarEnd) -> None:
    subscription = subscribe(world, 5, schedule=(0,) * 9)
    numbered(world, 5)
    far_end.script["/"] = ERROR_500
    async with stepping(world.url, far_end) as relay:
        while not far_end.requests:
            await relay.look()
            await relay.settled()
        world.rows(
            "insert into outbox.health (subscription_id, opened_at, probe_at, failing_since, pause_seconds)"
            " values (%s, now(), now() - interval '1 s', now(), 1)"
            " on conflict (subscription_id) do update set opened_at = now(), probe_at = now() - interval '1 s',"
            " pause_seconds = 1",
            uuid_of(subscription),
        )
        make_due(world)
        relay.feeder.breakers.restart()
        far_end.script["/"] = DELIVERED
        before = len(far_end.requests)
        await relay.look()
        await relay.settled()
    assert len(far_end.requests) == before + 1
    assert far_end.requests[0] == far_end.requests[-1]
    assert not world.count("deliveries")


async def test_what_is_unordered_and_plain_beside_it_goes_alone(world: World, far_end: FarEnd) -> None:
    subscribe(world, 10, path="/batch")
    world.subscribe(path="/plain")
    numbered(world, 30)
    async with running(world.url, far_end):
        await until_nothing_is_left(world)
    counted: dict[str, int] = defaultdict(int)
    for path in far_end.paths():
        counted[path] += 1
    assert counted == {"/batch": 3, "/plain": 30}


async def test_batches_switched_off_and_on_lose_nothing(world: World, far_end: FarEnd) -> None:
    subscribe(world, 10, schedule=(3600, 3600, 3600))
    numbered(world, 30)
    far_end.script["/"] = ERROR_500
    async with running(world.url, far_end):
        await await_until(lambda: world.count("deliveries", "attempts = 1 and lease is null") == 30)
    world.rows("update outbox.subscriptions set batch_events = null")
    make_due(world)
    far_end.script["/"] = DELIVERED
    async with running(world.url, far_end, per_endpoint=1, leased_max=4):
        await await_until(lambda: world.count("deliveries") < 20)
        world.rows("update outbox.subscriptions set batch_events = 7")
        await until_nothing_is_left(world)
    assert world.count("attempts", "verdict = 'delivered'") == 30
    by_id: dict[str, set[bytes]] = defaultdict(set)
    for _, webhook_id, body in far_end.requests:
        by_id[webhook_id].add(body)
    assert all(len(bodies) == 1 for bodies in by_id.values())
