"""Order: of each key and ordered subscription one delivery at a time, in the order of the events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy

from outbox.control.replay.replay import candidates_by_id, replay
from outbox.control.store.by_hand import cancel
from relay.engine import pace
from relay.engine.lanes import BatchLanes
from relay.model.outcome import Outcome
from relay.model.verdict import VerdictKind
from relay.store.lease import new_lease
from relay.store.pending_shares import Shares
from relay.store.sorting import BEGIN
from relay.store.store import Store
from tests.integration.engine.world import (
    DELIVERED,
    ERROR_500,
    FarEnd,
    Relay,
    World,
    claimed,
    result,
    running,
    stepping,
    uuid_of,
)  # fmt: skip
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.case("B12")]

WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


def numbered(world: World, count: int, key: str | None = "k", start: int = 1) -> list[int]:
    """Record events of one key whose payload is a number; return their sequence numbers."""
    return [world.record(payload=str(number), key=key)[0] for number in range(start, start + count)]


def sent(far_end: FarEnd) -> list[int]:
    """The payloads in the order in which they were sent."""
    return [json.loads(body)["data"] for _, _, body in far_end.requests]


def sent_to(far_end: FarEnd, path: str) -> list[Any]:
    """The payloads that one endpoint got, in the order in which they were sent."""
    return [json.loads(body)["data"] for to, _, body in far_end.requests if to == path]


def states(world: World) -> list[str]:
    """For each delivery in the order of events: parked, leased, or open (due or waiting)."""
    return [row[0] for row in world.deliveries(
        "case when due_at = 'infinity' then 'parked' when lease is null then 'open' else 'leased' end"
    )]  # fmt: skip


async def test_an_event_that_no_filter_asks_about_overtakes_none_that_waits_to_be_read(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so much is read for filters at once, and what lies behind it has to wait too."""
    monkeypatch.setattr(pace, "BYTES_FIRST", 60_000)
    monkeypatch.setattr(pace, "BYTES_MAX", 60_000)
    world.subscribe(ordered=True)
    world.subscribe("read.first", path="/filtered", filter={"payload": {"number": {"$gt": 0}}})
    for number, key in enumerate([None] * 6 + ["k"]):
        world.record("read.first", payload=json.dumps({"number": number, "note": "x" * 20_000}), key=key)
    world.record("read.never", payload='{"number": 7}', key="k")
    async with running(world.url, far_end):
        await await_until(lambda: not world.count("pending") and not world.count("deliveries"))
    ordered = [one["number"] for one in sent_to(far_end, "/")]
    assert sorted(ordered) == list(range(8))
    assert ordered.index(6) < ordered.index(7)
    assert sorted(one["number"] for one in sent_to(far_end, "/filtered")) == [1, 2, 3, 4, 5, 6]


async def test_one_of_a_key_is_sent_at_a_time_in_the_order_of_events(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    numbered(world, 12)
    async with running(world.url, far_end):
        await await_until(lambda: not world.count("pending") and not world.count("deliveries"))
    assert sent(far_end) == list(range(1, 13))
    assert far_end.most_in_flight["/"] == 1


async def test_keys_do_not_wait_for_each_other_nor_events_without_a_key_for_any(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    far_end.hold("/")
    for key in ("a", "a", "b", "b", None, None):
        world.record(key=key)
    async with stepping(world.url, far_end) as relay:
        await _resolve(relay, world)
        await await_until(lambda: far_end.in_flight == 4)
        assert states(world) == ["leased", "parked", "leased", "parked", "leased", "leased"]


async def test_an_unordered_subscription_has_no_lanes(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    numbered(world, 3)
    far_end.hold("/")
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        assert world.deliveries("lane") == [(None,)] * 3
        assert "parked" not in states(world)


@pytest.mark.case("E37")
async def test_a_failing_head_blocks_its_lane_and_no_other(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    far_end.script["/"] = ERROR_500
    numbered(world, 2, "a")
    async with stepping(world.url, far_end) as relay:
        await _resolve(relay, world)
        await relay.settled()
        far_end.script["/"] = DELIVERED
        numbered(world, 2, "b", start=11)
        await _until_quiet(relay, world)
    assert sent(far_end) == [1, 11, 12]
    assert states(world) == ["open", "parked"]


async def _resolve(relay: Relay, world: World) -> None:
    """Look until nothing is pending: the first ordered batch above a mark is given up."""
    await _look_until(relay, lambda: not world.count("pending"))


async def _look_until(relay: Relay, condition: Callable[[], bool]) -> None:
    async def look() -> bool:
        await relay.look()
        return condition()

    await await_until(look)


async def _until_quiet(relay: Relay, world: World) -> None:
    """Look until nothing is pending and nothing can be sent now."""
    for _ in range(100):
        await relay.look()
        await relay.settled()
        if not world.count("pending") and not world.count("deliveries", "due_at <= now()"):
            return
    raise AssertionError("work goes on and on")


@pytest.mark.parametrize(("policy", "left", "dead"), [("block", ["open", "parked"], 0), ("skip", [], 1)])
async def test_when_the_schedule_of_a_head_ends_it_blocks_or_is_skipped(
    world: World, far_end: FarEnd, policy: str, left: list[str], dead: int
) -> None:
    world.subscribe(ordered=True, order_policy=policy, schedule=())
    answers = iter([ERROR_500])

    async def answer() -> Outcome:
        return next(answers, DELIVERED)

    far_end.script["/"] = answer
    numbered(world, 2)
    async with stepping(world.url, far_end) as relay:
        await _until_quiet(relay, world)
    assert states(world) == left
    assert world.count("dead_letters") == dead
    assert sent(far_end) == ([1] if policy == "block" else [1, 2])


async def test_available_at_holds_a_lane_and_is_kept_by_what_is_parked(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    numbered(world, 1)
    world.record(key="k", payload="2", available_at="2100-01-01Z")
    numbered(world, 1, start=3)
    async with stepping(world.url, far_end) as relay:
        await _until_quiet(relay, world)
        assert sent(far_end) == [1]
        assert world.deliveries("due_at >= '2099-12-31Z' and due_at < 'infinity'", "event_seq = 2") == [(True,)]
        assert states(world) == ["open", "parked"]


# --- the rule, statement by statement


async def test_a_row_is_a_head_only_where_its_lane_has_no_row_at_all(world: World, far_end: FarEnd) -> None:
    """A lane whose rows are all parked (its relay died before it looked) gets no second head out of turn."""
    world.subscribe(ordered=True)
    numbered(world, 2)
    async with stepping(world.url, far_end) as relay:
        far_end.hold("/")
        await _resolve(relay, world)
        world.rows("delete from outbox.deliveries where due_at < 'infinity'")
        numbered(world, 1, start=3)
        await relay.feeder.fan_out.run(-1)
        rows = world.deliveries("event_seq, due_at = 'infinity'")
    assert rows == [(2, False), (3, True)]  # and its look woke the older one


async def test_a_look_takes_the_first_event_and_leaves_a_lane_with_a_head_alone(world: World, store: Store) -> None:
    subscription = world.subscribe(ordered=True)
    _park(world, subscription, lane=7, seqs=[3, 1, 2])
    assert await store.look([(subscription, 7)]) == [subscription]
    assert await store.look([(subscription, 7)]) == []
    assert world.deliveries("event_seq, due_at < 'infinity'") == [(1, True), (2, False), (3, False)]


async def test_a_look_passes_over_a_row_that_another_has_locked(world: World, store: Store) -> None:
    subscription = world.subscribe(ordered=True)
    _park(world, subscription, lane=7, seqs=[1, 2])
    with world.open() as other:
        other.execute("select from outbox.deliveries where event_seq = 1 for update")
        assert await store.look([(subscription, 7)]) == []
        assert states(world) == ["parked", "parked"]


async def test_a_look_that_lost_against_another_head_looks_again(world: World, store: Store) -> None:
    """Another transaction makes a later row the head meanwhile; the unique index refuses ours."""
    subscription = world.subscribe(ordered=True)
    _park(world, subscription, lane=7, seqs=[1, 2])
    with world.open() as other:
        other.execute("update outbox.deliveries set due_at = now() where event_seq = 2")
        waiting = asyncio.create_task(store.look([(subscription, 7)]))
        await await_until(lambda: world.value(WAITING))
        other.commit()
        assert await waiting == []
    assert world.deliveries("event_seq, due_at < 'infinity'") == [(1, False), (2, True)]


async def test_a_look_leaves_a_row_alone_that_another_made_the_head_and_leased_after_it_was_chosen(
    own_world: World,
) -> None:
    """The look chooses what is parked in its snapshot, and locks it as it is by then."""
    subscription = own_world.subscribe(ordered=True)
    _park(own_world, subscription, lane=7, seqs=[1, 2])
    own_world.rows("create schema trap")
    own_world.rows("create function trap.isfinite(timestamptz) returns boolean volatile language plpgsql as $$ begin"
                   " perform pg_advisory_xact_lock_shared(1); return pg_catalog.isfinite($1); end $$")  # fmt: skip
    looking = Store(psycopg.conninfo.make_conninfo(own_world.url, options="-csearch_path=trap,pg_catalog"))
    with own_world.open() as other:
        other.execute("select pg_advisory_xact_lock(1)")
        look = asyncio.create_task(looking.look([(subscription, 7)]))
        await await_until(lambda: own_world.locks("not granted"))
        other.execute(
            "update outbox.deliveries set due_at = '2100-01-01Z', lease = 5, attempts = 1 where event_seq = 1"
        )
        other.commit()
        assert await look == []
    await looking.close()
    assert own_world.deliveries("event_seq, lease, due_at in ('2100-01-01Z', 'infinity')") == [
        (1, 5, True), (2, None, True)]  # fmt: skip


async def test_a_look_that_a_deadlock_ended_looks_again(world: World) -> None:
    """Two look at the same lanes in the same moment, and each has made a head that keeps the other's from being one."""
    subscription = world.subscribe(ordered=True)
    for lane in (7, 8):
        _park(world, subscription, lane=lane, seqs=[1, 2])
    looking = Store(psycopg.conninfo.make_conninfo(world.url, options="-cdeadlock_timeout=2s"))
    with world.open(options="-cdeadlock_timeout=1h") as other:
        first, second = other.execute(
            "select lane, lane from outbox.deliveries where event_seq = 1 order by id"
        ).fetchall()
        other.execute("update outbox.deliveries set due_at = now() where event_seq = 2 and lane = %s", second[:1])
        look = asyncio.create_task(looking.look([(subscription, 7), (subscription, 8)]))
        await await_until(lambda: world.value(WAITING))
        move = "update outbox.deliveries set due_at = now() where event_seq = 2 and lane = %s"
        await asyncio.to_thread(other.execute, move, first[:1])
        other.commit()
        assert await look == []
    await looking.close()
    assert world.deliveries("event_seq, due_at < 'infinity'") == [(1, False), (1, False), (2, True), (2, True)]


async def test_the_index_refuses_a_second_head(world: World) -> None:
    subscription = world.subscribe(ordered=True)
    _park(world, subscription, lane=7, seqs=[1, 2])
    with pytest.raises(psycopg.errors.UniqueViolation):
        world.rows("update outbox.deliveries set due_at = now()")


async def test_a_lane_of_a_backlog_that_is_being_sorted_gets_no_head(world: World, store: Store) -> None:
    subscription = world.subscribe(ordered=True)
    world.rows("update outbox.subscriptions set sorting_since = now()")
    _park(world, subscription, lane=7, seqs=[1])
    assert await store.look([(subscription, 7)]) == []
    assert states(world) == ["parked"]


async def test_fan_out_takes_again_where_a_replay_was_promoted_in_an_empty_lane(world: World, far_end: FarEnd) -> None:
    """Between the look into the lanes and the insert, another row became the head: the batch is taken again."""
    subscription = world.subscribe(ordered=True)
    (seq,) = numbered(world, 1)
    lane = world.value("select hashtextextended('k', hashtextextended('', 0))")
    async with stepping(world.url, far_end) as relay:
        far_end.hold("/")
        await _resolve(relay, world)  # knows the subscription
        world.rows("truncate outbox.deliveries")
        numbered(world, 1, start=2)
        store = relay.feeder.fan_out._store  # noqa: SLF001
        async with store.fan_out(-1, 10, 1_000_000) as batch:
            assert await batch.find_busy_lanes([(subscription, lane)]) == set()
            _park(world, subscription, lane=lane, seqs=[seq])
            world.rows("update outbox.deliveries set due_at = now() + interval '1 h'")
            births = relay.feeder.fan_out.planner.plan(batch, BatchLanes(set()), may_lease=True)
            with pytest.raises(psycopg.errors.UniqueViolation):
                await batch.resolve(births, in_lanes=True)
        assert await relay.feeder.fan_out.run(-1) == (2, False)
        assert states(world) == ["open", "parked"]


# --- fan_out's order


async def test_an_event_that_commits_late_is_not_overtaken_by_a_later_one_of_its_key(
    world: World, far_end: FarEnd
) -> None:
    """The low-water mark lies above the late event: the batch above it is given up and taken without a mark."""
    world.subscribe(ordered=True)
    with world.open() as writer:
        (late,) = world.record(key="k", payload="1", connection=writer)
        (mark,) = world.record()
        writer.commit()
    (later,) = world.record(key="k", payload="2")
    async with stepping(world.url, far_end) as relay:
        far_end.hold("/")
        assert late < mark < later
        assert await relay.feeder.fan_out.run(mark) == (None, True)  # given up
        assert await relay.feeder.fan_out.run(mark) == (None, True)  # its event lies below where it was looked for
        assert await relay.feeder.fan_out.run(mark) == (late, False)
        assert world.deliveries("event_seq, due_at < 'infinity'", "lane is not null") == [(late, True), (later, False)]


@pytest.mark.parametrize("ordered", [True, False])
async def test_an_urgent_event_is_not_taken_before_an_older_one_of_its_key(
    world: World, store: Store, ordered: bool
) -> None:
    """While fan_out is behind, it takes some of each group; what is ordered only in the order of its numbers."""
    world.subscribe(tenant="a", ordered=ordered)
    seqs = world.record(key="k", tenant="a", count=20)
    (urgent,) = world.record(key="k", tenant="a", priority=3)
    async with store.fan_out(-1, 4, 1_000_000, shares=Shares(2, "", 0, -1)) as batch:
        taken = [one.seq for one in batch.taken]
    assert (urgent in taken) is not ordered
    assert [seq for seq in taken if seq != urgent] == seqs[: len(taken) - (not ordered)]


async def test_a_parked_event_keeps_its_priority(world: World, store: Store) -> None:
    subscription = world.subscribe(ordered=True)
    _park(world, subscription, lane=7, seqs=[1])
    world.rows("update outbox.deliveries set boost_seconds = 600")
    await store.look([(subscription, 7)])
    assert world.deliveries("due_at between now() - interval '11 min' and now() - interval '9 min'") == [(True,)]


async def test_unordered_events_are_taken_above_the_mark(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    seqs = numbered(world, 3)
    async with stepping(world.url, far_end) as relay:
        assert await relay.feeder.fan_out.run(seqs[1]) == (seqs[2], False)


# --- the sweep, and order switched on and off


async def test_the_sweep_wakes_a_lane_whose_relay_died_before_it_looked(world: World, far_end: FarEnd) -> None:
    subscription = world.subscribe(ordered=True)
    seqs = numbered(world, 2)
    world.rows("truncate outbox.pending")
    _park(world, subscription, lane=7, seqs=seqs)
    async with running(world.url, far_end):
        await await_until(lambda: not world.count("deliveries"))
    assert sent(far_end) == [1, 2]


async def test_a_relay_that_drains_does_not_leave_a_lane_asleep(world: World, far_end: FarEnd) -> None:
    subscription = world.subscribe(ordered=True)
    seqs = numbered(world, 1)
    world.rows("truncate outbox.pending")
    async with running(world.url, far_end, until_drained=True) as relay:
        relay.feeder.lanes._next = 1e18  # noqa: SLF001 - its turn does not come
        _park(world, subscription, lane=7, seqs=seqs)
        assert relay.feeding is not None
        await relay.feeding
    assert sent(far_end) == [1]


@pytest.mark.slow
async def test_a_relay_that_drains_waits_for_a_backlog_that_has_just_to_be_sorted(
    world: World, far_end: FarEnd
) -> None:
    """Nothing of it is due until it is sorted, and sorting begins a second after the switch."""
    subscription = world.subscribe()
    for seq in numbered(world, 3):
        world.rows(
            "insert into outbox.deliveries (id, event_seq, subscription_id, due_at)"
            " values (outbox.uuid7(), %s, %s, now())", seq, uuid_of(subscription),
        )  # fmt: skip
    world.rows("truncate outbox.pending")
    world.rows("update outbox.subscriptions set ordered = true")
    async with running(world.url, far_end, until_drained=True) as relay:
        assert relay.feeding is not None
        await relay.feeding
    assert sent(far_end) == [1, 2, 3]
    assert not world.count("deliveries")


async def test_the_sweep_goes_from_lane_to_lane_in_slices(world: World, store: Store) -> None:
    first, second = sorted([world.subscribe(ordered=True), world.subscribe(ordered=True)])
    for subscription, lane in ((first, -5), (first, 3), (second, -9), (second, 8)):
        _park(world, subscription, lane=lane, seqs=[1, 2, 3])
    world.rows("update outbox.deliveries set due_at = now() + interval '1 h' where event_seq = 1 and lane in (3, -9)")
    slice_ = await store.sweep_lanes((bytes(16), -(2**63)), 3)
    assert [(row.lane, row.number, row.headless) for row in slice_] == [
        ((first, -5), 1, True), ((second, -9), 3, False)]  # fmt: skip
    rest = await store.sweep_lanes(slice_[-1].lane, 3)
    assert [(row.lane, row.number, row.headless) for row in rest] == [((second, 8), 1, True)]


async def test_order_switched_on_sorts_a_backlog_and_keeps_its_retries_in_place(world: World, far_end: FarEnd) -> None:
    """Rows born without lanes, one of them failing: then the rest waits behind it, and new events behind all."""
    world.subscribe(schedule=(3600,))
    numbered(world, 3, "a")
    numbered(world, 3, "b", start=11)
    numbered(world, 1, None, start=21)
    async with stepping(world.url, far_end) as relay:
        freed = far_end.hold("/", ERROR_500)
        await _resolve(relay, world)
        await await_until(lambda: far_end.in_flight == 7)
        far_end.requests.clear()
        world.rows("update outbox.deliveries set attempts = 0, lease = null, due_at = now() where event_seq <> 2")
        world.rows("update outbox.subscriptions set ordered = true")
        numbered(world, 1, "a", start=4)
        far_end.script["/"] = DELIVERED
        freed.set()  # the one with a lease is to be tried again in an hour
        await relay.settled()
        await _look_until(relay, lambda: world.value("select sorting_since from outbox.subscriptions") is None)
        await _until_quiet(relay, world)
    assert sent(far_end)[:1] != [4]
    assert [number for number in sent(far_end) if number < 10] == [1]
    assert sorted(number for number in sent(far_end) if number > 20) == [21]
    assert [number for number in sent(far_end) if 10 < number < 20] == [11, 12, 13]
    assert states(world) == ["open", "parked", "parked"]


async def test_while_a_backlog_is_sorted_nothing_is_claimed_and_what_is_born_is_parked(
    world: World, far_end: FarEnd
) -> None:
    world.subscribe()
    numbered(world, 2)
    async with stepping(world.url, far_end) as relay:
        far_end.hold("/")
        await relay.look()  # both are leased, without a lane
        world.rows("update outbox.subscriptions set ordered = true")
        world.rows("update outbox.deliveries set lease = null, due_at = now() where event_seq = 2")
        numbered(world, 1, "new", start=3)
        for _ in range(3):
            relay.feeder.lanes.look_soon()
            await relay.look()
        first, second, third = states(world)
        assert (first, third) == ("leased", "parked")
        assert second in ("open", "parked")  # parked once the pass came by
        assert world.value("select sorting_since from outbox.subscriptions") is not None


async def test_a_pass_leaves_what_is_leased_or_changes_meanwhile_to_the_next_one(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = world.subscribe()
    seqs = numbered(world, 3)
    for seq in seqs:
        _park(world, subscription, lane=0, seqs=[seq])
    world.rows("update outbox.deliveries set lane = null, due_at = now() - event_seq * interval '1 s'")
    world.rows("update outbox.deliveries set lease = 1, attempts = 1, due_at = now() + interval '1 h'"
               " where event_seq = %s", seqs[0])  # fmt: skip
    read_events = store.transaction

    async def transaction(*asked: Any, **settings: Any) -> Any:
        if settings:  # between the read of the rows and their change, another retries one
            world.rows("update outbox.deliveries set due_at = now() + interval '2 h' where event_seq = %s", seqs[1])
        return await read_events(*asked, **settings)

    monkeypatch.setattr(store, "transaction", transaction)
    batch = await store.sort_batch(subscription, BEGIN, 10)
    assert batch.again
    assert states(world) == ["leased", "open", "parked"]


async def test_a_pass_keeps_the_time_of_a_retry_and_leaves_what_has_no_key(world: World, store: Store) -> None:
    subscription = world.subscribe()
    (keyed,), (keyless,) = numbered(world, 1), numbered(world, 1, None)
    _park(world, subscription, lane=0, seqs=[keyed, keyless])
    world.rows("update outbox.deliveries set lane = null, due_at = '2100-01-01Z'")
    batch = await store.sort_batch(subscription, BEGIN, 10)
    assert batch.place is not None
    assert not batch.again
    assert (await store.sort_batch(subscription, batch.place, 10)).place is None
    assert world.deliveries("due_at = 'infinity', not_before = '2100-01-01Z', lane is not null") == [
        (True, True, True), (False, None, False)]  # fmt: skip


async def test_sorting_ends_only_without_a_head_and_for_the_switch_it_began_with(world: World, store: Store) -> None:
    subscription = world.subscribe()
    world.rows("update outbox.subscriptions set ordered = true, sorting_since = now()")
    world.rows("update outbox.subscriptions set sorting_since = now() - interval '1 h'")
    (sorting,) = await store.find_sorting()
    _park(world, subscription, lane=7, seqs=[1])
    world.rows("update outbox.deliveries set due_at = now()")
    assert not await store.end_sorting(sorting)
    world.rows("update outbox.deliveries set due_at = 'infinity'")
    world.rows("update outbox.subscriptions set sorting_since = now() - interval '2 h'")
    assert not await store.end_sorting(sorting)
    (sorting,) = await store.find_sorting()
    assert await store.end_sorting(sorting)
    assert await store.find_sorting() == []


async def test_sorting_begins_a_second_after_the_switch_and_waits_for_fan_out(world: World, store: Store) -> None:
    world.subscribe()
    world.rows("update outbox.subscriptions set ordered = true")
    world.rows("update outbox.subscriptions set sorting_since = clock_timestamp()")
    assert await store.find_sorting() == []
    world.rows("update outbox.subscriptions set sorting_since = clock_timestamp() - interval '1.5 s'")
    assert len(await store.find_sorting()) == 1
    with world.open() as fan_out:
        fan_out.execute("select from outbox.turns where name = 'fan_out' for update")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await store.await_fan_out()
    await store.await_fan_out()


async def test_what_is_parked_is_not_let_go_while_somebody_changes_the_subscription(world: World, store: Store) -> None:
    subscription = world.subscribe()
    _park(world, subscription, lane=7, seqs=[1])
    with world.open() as person:
        person.execute("update outbox.subscriptions set ordered = true")
        assert await store.release_parked(subscription, 10) == 0


async def test_order_is_switched_on_only_after_a_replay_that_did_not_know(world: World, far_end: FarEnd) -> None:
    """The replay's delivery has no lane; the switch waits for it, and the pass then finds it."""
    world.subscribe()
    (seq,) = numbered(world, 1)
    async with stepping(world.url, far_end) as relay:
        await _until_quiet(relay, world)
    engine = sqlalchemy.create_engine(world.url.replace("postgresql://", "postgresql+psycopg://"))
    event = world.value("select outbox.text_id('evt', id) from outbox.events where seq = %s", seq)
    with engine.begin() as connection:
        replay(connection, None, candidates_by_id(connection, None, event))
        with world.open() as person:
            person.execute("set lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                person.execute("update outbox.subscriptions set ordered = true")
    engine.dispose()


async def test_order_switched_off_lets_go_what_is_parked(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    numbered(world, 4)
    async with stepping(world.url, far_end) as relay:
        far_end.script["/"] = ERROR_500
        await _resolve(relay, world)
        await relay.settled()
        far_end.script["/"] = DELIVERED
        world.rows("update outbox.subscriptions set ordered = false")
        relay.feeder.lanes.look_soon()
        await _look_until(relay, lambda: world.count("deliveries") == 1)
    assert sorted(sent(far_end)) == [1, 2, 3, 4]
    assert states(world) == ["open"]


async def test_parked_rows_are_let_go_only_where_order_is_off(world: World, store: Store) -> None:
    subscription = world.subscribe(ordered=True)
    _park(world, subscription, lane=7, seqs=[1, 2])
    assert await store.release_parked(subscription, 10) == 0
    world.rows("update outbox.subscriptions set ordered = false")
    assert await store.release_parked(subscription, 1) == 1
    assert await store.release_parked(subscription, 10) == 1
    assert states(world) == ["open", "open"]


async def test_order_on_off_and_on_again_puts_what_was_let_go_before_what_was_not(
    world: World, far_end: FarEnd, store: Store
) -> None:
    """Half of a lane was let go when order came back: the older half is first again."""
    subscription = world.subscribe(ordered=True)
    seqs = numbered(world, 4)
    world.rows("truncate outbox.pending")
    lane = world.value("select hashtextextended('k', hashtextextended('', 0))")
    _park(world, subscription, lane=lane, seqs=seqs)
    world.rows("update outbox.subscriptions set ordered = false")
    assert await store.release_parked(subscription, 2) == 2
    assert await store.look([(subscription, lane)]) == [subscription]  # 3 is the head of what is left
    world.rows("update outbox.subscriptions set ordered = true")
    async with running(world.url, far_end):
        await await_until(lambda: not world.count("deliveries"))
    assert sent(far_end) == [1, 2, 3, 4]


# --- whoever takes a head away


async def test_a_late_success_of_a_stale_lease_lets_the_lane_go_on(world: World, far_end: FarEnd) -> None:
    subscription = world.subscribe(ordered=True)
    numbered(world, 2)
    async with stepping(world.url, far_end) as relay:
        freed = far_end.hold("/")
        await _resolve(relay, world)
        await await_until(lambda: far_end.in_flight == 1)
        world.rows("update outbox.deliveries set lease = 1 where lease is not null")  # somebody else has it now
        freed.set()
        far_end.script["/"] = DELIVERED
        await _until_quiet(relay, world)
    assert sent(far_end) == [1, 2]
    assert not world.deliveries("id")
    assert subscription


async def test_a_stale_failure_moves_nothing(world: World, store: Store) -> None:
    subscription = world.subscribe(ordered=True)
    (seq, _) = numbered(world, 2)
    world.rows("truncate outbox.pending")
    _park(world, subscription, lane=7, seqs=[seq, seq + 1])
    await store.look([(subscription, 7)])
    lease = new_lease()
    (row,) = await store.claim([(subscription, 5)], 5, 10**9, lease)
    assert row.lane == 7
    world.rows("update outbox.deliveries set lease = 1 where lease is not null")
    await store.settle([result(claimed(row, lease), VerdictKind.RETRY)])
    assert states(world) == ["leased", "parked"]


async def test_a_head_that_crashed_too_often_is_buried_and_its_lane_goes_on(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    numbered(world, 2)
    relay = Relay(world.url, far_end)
    relay.start_settling()
    far_end.hold("/")
    await _resolve(relay, world)
    await relay.crash()
    world.rows("update outbox.deliveries set crashes = 3 where lease is not null")
    world.expire()
    far_end.script["/"] = DELIVERED
    async with running(world.url, far_end):
        await await_until(lambda: not world.count("deliveries"))
    assert sent(far_end)[-1] == 2
    assert world.count("dead_letters", "reason = 'crash'") == 1


# --- replay


def _replay(world: World, *names: object) -> None:
    engine = sqlalchemy.create_engine(world.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for name in names:
            replay(connection, None, candidates_by_id(connection, None, str(name)))
    engine.dispose()


async def test_a_replay_goes_before_later_events_of_its_key_and_after_the_head(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    numbered(world, 4)
    freed = far_end.hold("/")
    async with stepping(world.url, far_end) as relay:
        await _resolve(relay, world)
        freed.set()
        await _look_until(relay, lambda: len(far_end.requests) == 2)
        freed = far_end.hold("/")  # 3 hangs
        await _look_until(relay, lambda: far_end.in_flight == 1)
        first = world.value("select outbox.text_id('evt', id) from outbox.events order by seq limit 1")
        _replay(world, first)
        assert sorted(states(world)) == ["leased", "parked", "parked"]
        freed.set()
        far_end.script["/"] = DELIVERED
        await _until_quiet(relay, world)
    assert sent(far_end) == [1, 2, 3, 1, 4]


async def test_a_cancelled_head_lets_its_lane_go_on_and_a_cancelled_one_behind_it_changes_nothing(
    world: World, far_end: FarEnd
) -> None:
    world.subscribe(ordered=True)
    numbered(world, 4)
    far_end.script["/"] = ERROR_500
    async with stepping(world.url, far_end) as relay:
        await _resolve(relay, world)
        await relay.settled()
    ids = [row[0] for row in world.deliveries("id")]
    _cancel(world, ids[1])
    assert states(world) == ["open", "parked", "parked"]
    _cancel(world, ids[0])
    assert world.deliveries("event_seq, due_at <= now()") == [(3, True), (4, False)]


def _cancel(world: World, identity: UUID) -> None:
    engine = sqlalchemy.create_engine(world.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        assert len(cancel(connection, [identity])) == 1
    engine.dispose()


async def test_a_head_that_a_relay_made_in_the_same_moment_does_not_stop_who_cancels(world: World) -> None:
    """The person's look is refused by the index: the relay's head stays, and what is cancelled is gone."""
    subscription = world.subscribe(ordered=True)
    seqs = numbered(world, 3)
    _park(world, subscription, lane=7, seqs=seqs)
    ids = [row[0] for row in world.deliveries("id")]
    with world.open() as relay:
        relay.execute("update outbox.deliveries set due_at = now() where event_seq = %s", (seqs[2],))
        cancelling = asyncio.create_task(asyncio.to_thread(_cancel, world, ids[0]))
        await await_until(lambda: world.value(WAITING))
        relay.commit()
        await cancelling
    assert world.deliveries("event_seq, due_at < 'infinity'") == [(seqs[1], False), (seqs[2], True)]


async def test_a_replay_into_an_empty_lane_is_due_at_once(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    numbered(world, 2)
    async with stepping(world.url, far_end) as relay:
        await _until_quiet(relay, world)
    _replay(world, *[row[0] for row in world.rows("select outbox.text_id('evt', id) from outbox.events order by seq")])
    assert states(world) == ["open", "parked"]


async def test_a_replayed_event_without_a_key_or_order_is_in_no_lane(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    world.subscribe()
    numbered(world, 1, None)
    numbered(world, 1, "k")
    async with stepping(world.url, far_end) as relay:
        await _until_quiet(relay, world)
    _replay(world, *[row[0] for row in world.rows("select outbox.text_id('evt', id) from outbox.events order by seq")])
    assert states(world) == ["open"] * 4
    assert world.count("deliveries", "lane is not null") == 1


async def test_a_paused_subscription_keeps_its_lanes_and_resumes_in_order(world: World, far_end: FarEnd) -> None:
    world.subscribe(ordered=True)
    world.rows("update outbox.subscriptions set paused_at = now()")
    numbered(world, 3)
    async with running(world.url, far_end):
        await await_until(lambda: world.count("deliveries") == 3)
        assert states(world) == ["open", "parked", "parked"]
        world.rows("update outbox.subscriptions set paused_at = null")
        await await_until(lambda: not world.count("deliveries"))
    assert sent(far_end) == [1, 2, 3]


async def test_lanes_cost_no_statement_where_nothing_is_ordered(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    numbered(world, 20)
    async with stepping(world.url, far_end) as relay:
        looks: list[object] = []
        for store in (relay.engine.feed_store, relay.engine.settle_store):
            store.look = lambda lanes: looks.append(lanes)  # type: ignore[method-assign,assignment]
        await relay.look()
        await relay.settled()
    assert sent(far_end)
    assert not looks


def _park(world: World, subscription: bytes, *, lane: int, seqs: list[int]) -> None:
    """Park a delivery of each of these events in a lane."""
    for seq in seqs:
        world.rows(
            "insert into outbox.deliveries (id, event_seq, subscription_id, due_at, lane)"
            " values (outbox.uuid7(), %s, %s, 'infinity', %s)", seq, uuid_of(subscription), lane,
        )  # fmt: skip
