"""Nobody waits behind another tenant's backlog, and an urgent event passes what waits: fan_out, claims, sending."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import NullPool, create_engine

from relay.config.database_url import sqlalchemy_url_of
from relay.http import AddressPolicy, DirectDialler, HttpSender
from relay.operations.status.delivery_counts import read_deliveries
from relay.operations.status.late_subscriptions import find_stuck
from relay.store.fan_out import MAX_SEQ
from relay.store.pending_shares import GROUPS_MAX, Shares
from tests.integration.engine.world import DELIVERED, ERROR_500, FarEnd, Relay, World, fan_out, running, stepping
from tests.support.scripted_receiver import OK, Exchange, receiving
from tests.support.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.store.store import Store

pytestmark = pytest.mark.anyio

STEP_SECONDS = 600
BACKLOG = 3000  # several batches


def resolved(world: World) -> set[int]:
    return set(world.matches())


async def looks_until(relay: Relay, world: World, seqs: list[int], most: int) -> int:
    """Take steps until these events are resolved; tell how many it took. Fail after `most`."""
    for look in range(1, most + 1):
        await relay.look()
        if set(seqs) <= resolved(world):
            return look
    raise AssertionError(f"{len(set(seqs) - resolved(world))} events are not resolved after {most} looks")


@pytest.fixture
async def relay(world: World, far_end: FarEnd) -> AsyncIterator[Relay]:
    async with stepping(world.url, far_end) as one:
        yield one


@pytest.mark.field("F67")
@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize(("busy", "other"), [("a", "b"), ("", "b"), ("a", "")])
async def test_an_event_behind_another_tenants_backlog_is_resolved_in_the_next_takes(
    world: World, relay: Relay, busy: str, other: str, key: str | None
) -> None:
    world.record(tenant=busy, count=BACKLOG, key=key)
    behind = world.record(tenant=other, key=key)
    assert await looks_until(relay, world, behind, 3) <= 3
    assert len(resolved(world)) < BACKLOG, "the backlog was not worked off first"
    for _ in range(30):
        await relay.look()
    assert world.count("pending") == 0
    assert len(resolved(world)) == BACKLOG + 1, "and each event was resolved"


async def test_each_of_many_tenants_has_its_turn_before_the_second_of_one(world: World, store: Store) -> None:
    tenants = [f"t{number:03}" for number in range(2 * GROUPS_MAX + 50)]
    for tenant in tenants:
        world.record(tenant=tenant, count=3)
    after, met = "", []
    for _ in range(3):
        shares = Shares(GROUPS_MAX, after, 1, -1)
        async with store.fan_out(-1, 500, 10_000_000, shares=shares) as batch:
            met += [taken.tenant for taken in batch.taken]
            after = batch.last_tenant or ""
            await batch.resolve([])
    assert after == "", "the third take ended the round"
    assert set(tenants) <= set(met)


async def test_urgent_events_are_taken_first_and_the_most_urgent_of_them_too(world: World, store: Store) -> None:
    world.record(count=600)
    late = [world.record(count=300, priority=priority) for priority in (1, 2, 3)]
    async with store.fan_out(-1, 100, 10_000_000, shares=Shares(90, "", 5, -1)) as batch:
        priorities = [taken.priority for taken in batch.taken]
        assert {priority: priorities.count(priority) for priority in (1, 2, 3)} == dict.fromkeys((1, 2, 3), 30)
        assert {taken.seq for taken in batch.taken if taken.priority == 3} == set(late[2][:30])


@pytest.mark.parametrize(("ordered", "removed"), [(True, False), (True, True), (False, False)])
async def test_what_has_no_tenant_is_taken_ahead_only_where_nobody_asks_for_order(
    world: World, store: Store, ordered: bool, removed: bool
) -> None:
    world.subscribe(ordered=ordered)
    if removed:
        world.rows("update outbox.subscriptions set removed_at = now()")
    world.record(tenant="a", count=300, key="k")
    urgent, later = *world.record(priority=1, key="k"), *world.record(key="k")
    async with store.fan_out(-1, 100, 10_000_000, shares=Shares(50, "", 10, -1)) as batch:
        assert {urgent, later} & {taken.seq for taken in batch.taken} == (
            set() if ordered and not removed else {urgent, later}
        )


async def test_what_commits_late_and_has_no_tenant_is_found_behind_a_backlog(world: World, relay: Relay) -> None:
    with world.open() as application:
        early = world.record(connection=application)
        world.record(tenant="a", count=BACKLOG)
        await relay.look()
        await relay.look()
        application.commit()
    await looks_until(relay, world, early, 3)


async def test_a_share_takes_nothing_beyond_the_bounds_of_its_take(world: World, store: Store) -> None:
    first, *_, last = world.record(tenant="a", count=40)
    urgent = world.record(tenant="a", priority=3)
    for low, up, expected in ((first, last - 1, 38), (last, MAX_SEQ, 1), (urgent[0], MAX_SEQ, 0)):
        async with store.fan_out(low, 500, 10_000_000, up_to_seq=up, shares=Shares(250, "", 50, -1)) as batch:
            assert len(batch.taken) == expected
            assert all(low < taken.seq <= up for taken in batch.taken)


async def test_an_urgent_event_is_due_earlier_and_passes_a_backlog(world: World, far_end: FarEnd) -> None:
    world.subscribe(path="/slow")
    freed = far_end.hold("/slow")
    async with running(world.url, far_end, per_endpoint=1, max_in_flight=1, leased_max=8) as relay:
        world.record(count=50)
        await await_until(lambda: world.count("deliveries") == 50 and far_end.in_flight == 1)
        (urgent,) = world.record(priority=3)
        await await_until(lambda: world.count("deliveries", "event_seq = %s", urgent) == 1)
        ((early, boost),) = world.deliveries(
            "due_at < now() - interval '25 min', boost_seconds", f"event_seq = {urgent}"
        )
        assert (early, boost) == (True, 3 * STEP_SECONDS)
        freed.set()
        await await_until(lambda: world.count("attempts") == 51)
        await relay.settled()
    name = world.value("select outbox.text_id('evt', id) from outbox.events where seq = %s", urgent)
    place = [webhook_id for _, webhook_id, _ in far_end.requests].index(name)
    assert place <= 16, "it went out behind those that were leased already, before the others"


async def test_a_retry_and_a_later_time_are_not_moved_by_the_priority(
    world: World, relay: Relay, far_end: FarEnd
) -> None:
    world.subscribe(schedule=(3600,))
    far_end.script["/"] = ERROR_500
    world.record(priority=3)
    (later,) = world.record(priority=3, available_at="2100-01-01Z")
    await relay.look()
    await await_until(lambda: world.count("attempts") == 1)
    await relay.settled()
    assert world.deliveries("due_at > now() + interval '59 min', boost_seconds") == [(True, None), (True, None)]
    assert world.value("select due_at = '2100-01-01Z' from outbox.deliveries where event_seq = %s", later)


async def test_a_claim_forgets_the_boost(world: World, relay: Relay, far_end: FarEnd) -> None:
    subscription = world.subscribe()
    far_end.script["/"] = ERROR_500
    relay.feeder.due.add(subscription)  # as with a backlog: nothing is born leased
    world.record(priority=1)
    for _ in range(2):
        await relay.look()
    await await_until(lambda: world.count("attempts") == 1)
    await relay.settled()
    assert world.deliveries("boost_seconds, due_at > now() + interval '50 min'") == [(None, True)]


async def test_a_tenant_with_many_endpoints_leaves_another_its_places(world: World, far_end: FarEnd) -> None:
    """They answer, and then all hang at once: what is left to others is not what endpoints that never answer leave."""
    for number in range(40):
        world.subscribe(path=f"/a{number}", tenant="a")
    world.subscribe(path="/b", tenant="b")
    async with running(world.url, far_end, max_in_flight=32, leased_max=64) as relay:
        world.record(tenant="b")
        world.record(tenant="a")
        await await_until(lambda: world.count("attempts") == 41)
        assert all(endpoint.answers for endpoint in relay.endpoints)
        for number in range(40):
            far_end.hold(f"/a{number}")
        world.record(tenant="a", count=20)
        await await_until(lambda: far_end.in_flight >= 28)
        world.record(tenant="b", count=20)
        await await_until(lambda: world.count("attempts") == 61)
        assert far_end.in_flight == 28


async def test_a_tenant_whose_endpoints_all_hang_leaves_places_for_anothers_that_never_answered(world: World) -> None:
    """Of 32 places endpoints without a success have 28 together, and those of one tenant 25."""

    async def behaviour(exchange: Exchange) -> None:
        if exchange.head.startswith(b"POST /hangs"):
            await exchange.reader.read()  # to the end of the connection
        else:
            await exchange.play(OK)

    def hanging() -> int:
        return sum(request.head.startswith(b"POST /hangs") for request in receiver.requests)

    sender = HttpSender(DirectDialler(AddressPolicy(["127.0.0.0/8"], allow_http=True)), user_agent="test")
    async with receiving(behaviour) as receiver:
        for number in range(60):
            world.subscribe("a.made", tenant="a", path=f":{receiver.port}/hangs/{number}")
        for name in ("known", "new"):
            world.subscribe(name, tenant="b", path=f":{receiver.port}/{name}")
        async with running(world.url, cast("FarEnd", sender), max_in_flight=32, leased_max=64) as relay:
            world.record("known", tenant="b")
            await await_until(lambda: world.count("attempts") == 1)
            world.record("a.made", count=3, tenant="a")
            await await_until(lambda: hanging() >= 25)
            world.record("new", count=5, tenant="b")
            await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 6)
            assert (hanging(), relay.room.free) == (25, 64 - 49)
    await sender.close()


async def test_a_backlog_for_endpoints_that_no_one_has_asked_yet_leaves_room_for_others(
    world: World, store: Store, far_end: FarEnd
) -> None:
    """Of 64 leases such ones have 56 together, and those of one tenant 49, also where this process has to read them."""
    for number in range(120):
        world.subscribe("a.made", tenant="a", path=f"/hangs/{number}")
        far_end.hold(f"/hangs/{number}")
    world.subscribe("new", tenant="b", path="/new")
    world.subscribe("known", tenant="b", path="/known")
    world.record("a.made", tenant="a")
    world.record("new", tenant="b")
    await fan_out(store)
    world.rows("update outbox.deliveries set due_at = 'infinity'")
    async with running(world.url, far_end, max_in_flight=32, leased_max=64) as relay:
        world.record("known", tenant="b")
        await await_until(lambda: world.count("attempts") == 1)
        world.rows("update outbox.deliveries set due_at = now() - interval '1 second'")
        await await_until(lambda: far_end.in_flight >= 25)
        world.record("known", count=5, tenant="b")
        await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 7)
        await await_until(lambda: relay.room.free <= 64 - 49)
        assert (far_end.in_flight, relay.room.free) == (25, 64 - 49)


async def test_endpoints_that_answer_after_seconds_leave_places_for_the_quick_ones_of_their_tenant(
    world: World, far_end: FarEnd
) -> None:
    """They answer, but each request of theirs holds its place a hundred times as long."""
    slow = [f"/slow/{number}" for number in range(60)]
    for path in slow:
        world.subscribe("slow", path=path)
        far_end.script[path] = DELIVERED._replace(milliseconds=10_000)
    world.subscribe("quick", path="/quick")
    async with running(world.url, far_end, max_in_flight=32, leased_max=64) as relay:
        world.record("slow", count=2)
        world.record("quick")
        await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 121)
        freed = [far_end.hold(path, DELIVERED) for path in slow]
        world.record("slow", count=5)
        await await_until(lambda: far_end.in_flight == 28)  # of the 32 places
        world.record("quick", count=5)
        await await_until(lambda: far_end.paths().count("/quick") == 6)
        await await_until(lambda: relay.room.free <= 64 - 56)  # what waits is leased once the results are written
        assert (far_end.in_flight, relay.room.free) == (28, 64 - 56)
        for one in freed:
            one.set()
        await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 121 + 300 + 5)


async def test_status_adds_the_boost_to_what_it_reports(world: World, relay: Relay) -> None:
    subscription = world.subscribe()
    relay.feeder.due.add(subscription)  # as with a backlog: nothing is born leased
    world.record(priority=3, count=3)
    await relay.feeder.fan_out.run(-1)
    with create_engine(sqlalchemy_url_of(world.url), poolclass=NullPool).connect() as connection:
        assert (read_deliveries(connection, None, None).oldest_due_seconds or 0) < 60
        assert find_stuck(connection, None) == ()
        world.rows(
            "update outbox.deliveries set boost_seconds = null where event_seq = (select min(seq) from outbox.events)"
        )
        assert (read_deliveries(connection, None, None).oldest_due_seconds or 0) > 1700
        (stuck,) = find_stuck(connection, None)
        assert stuck.behind_seconds


async def test_views_and_alarms_leave_the_boost_out(world: World, relay: Relay) -> None:
    subscription = world.subscribe()
    relay.feeder.due.add(subscription)  # as with a backlog: nothing is born leased
    world.record(priority=3, count=3)
    await relay.feeder.fan_out.run(-1)
    for view in ("v_backlog", "v_deliveries_by_state"):
        late = f"select extract(epoch from now() - oldest_due_at)::float8 from outbox.{view}"
        assert abs(world.value(late)) < 60, view
    world.rows("update outbox.deliveries set due_at = due_at - interval '301 s'")
    world.rows("insert into outbox.health (subscription_id, late_at) select id, now() from outbox.subscriptions")
    said = (
        "select (payload::json ->> 'oldest_due_at')::timestamptz from outbox.events where type = 'relay.backlog.late'"
    )
    assert 250 < world.value(f"select extract(epoch from now() - ({said}))::float8") < 360
